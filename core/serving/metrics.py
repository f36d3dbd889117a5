"""What a server counts, in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The numbers of one server. num_waiting, num_requests: called for the present values."""

    def __init__(self, num_waiting: Callable[[], float], num_requests: Callable[[], float]) -> None:
        self._registry = own = CollectorRegistry()
        self._requests = Counter("requests", "Answered requests to predict, by status.", ["status"], registry=own)
        self._seconds = Histogram("request_seconds", "From a request to its answer.", buckets=_SECONDS, registry=own)
        self._batch_size = Histogram("batch_size", "Inputs of a batch.", buckets=_SIZES, registry=own)
        self._batch_seconds = Histogram("batch_seconds", "Computation of a batch.", buckets=_SECONDS, registry=own)
        about = "Replaced model files, by what came of it."
        self._reloads = Counter("reloads", about, ["model", "outcome"], registry=own)
        Gauge("inputs_waiting", "Inputs that wait for a batch.", registry=own).set_function(num_waiting)
        Gauge("requests_in_flight", "Requests that are being answered.", registry=own).set_function(num_requests)

    def request(self, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Counts a batch."""
        self._batch_size.observe(size)
        self._batch_seconds.observe(seconds)

    def reload(self, name: str, is_served: bool) -> None:
        """Counts a replaced file."""
        self._reloads.labels(name, "served" if is_served else "refused").inc()

    def text(self) -> bytes:
        """All numbers as Prometheus reads them."""
        return generate_latest(self._registry)
