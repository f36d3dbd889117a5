"""The flags of every serve program, and what a server refuses: too large, too many, too late. Loads no torch.

Every refusal has a status of HTTP and a short code that programs can rely on. What waits or is computed at one time is
bounded in number and in bytes, so that no set of requests can take all memory.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.config import option

_MEGABYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The flags of every serve program."""

    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0 lets other machines in, without any password")
    port: int = option(8000, "port to listen at; 0: a free one", low=0, high=65535)
    workers: int = option(2, "threads that run the model, a batch each", low=1, high=256)
    threads: int = option(1, "threads of onnxruntime for one batch; 0: all cores", low=0, high=1024)
    window_ms: float = option(
        0.0, "how long a free thread waits for further inputs of a batch that are being read, in ms", low=0, high=10_000
    )
    largest_batch: int = option(16, "inputs of one batch", low=1, high=4096)
    time_limit: float = option(30.0, "seconds until a request is given up", above=0, high=86_400)
    max_requests: int = option(256, "requests at one time; further ones are refused with 503", low=1, high=100_000)
    max_memory_mb: float = option(
        1024.0, "MB of bodies and inputs at one time; more is refused with 503", above=0, high=1e6
    )
    max_body_mb: float = option(20.0, "MB of a request's body", above=0, high=10_000)
    max_inputs: int = option(64, "inputs of a request", low=1, high=10_000)
    max_pixels: int = option(25_000_000, "pixels of an image", low=1, high=100_000_000)
    max_characters: int = option(20_000, "characters of a text", low=1, high=10_000_000)
    reload_seconds: float = option(1.0, "how often to look whether a file was replaced; 0: never", low=0, high=86_400)

    @property
    def max_body_bytes(self) -> int:
        """Bytes of a request's body."""
        return int(self.max_body_mb * _MEGABYTE)


class Refused(Exception):
    """A request that is not answered: its status of HTTP, a code for programs, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Admission:
    """Counts the requests that are being answered, and the bytes that they hold."""

    def __init__(self, options: ServeOptions) -> None:
        self.num_requests = 0
        self._max_requests = options.max_requests
        self._max_bytes = int(options.max_memory_mb * _MEGABYTE)
        self._bytes_held = 0
        self._lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator["Held"]:
        """Within it, a request is being answered. Raises Refused where there are too many."""
        with self._lock:
            if self.num_requests >= self._max_requests:
                raise Refused(503, "busy", f"{self._max_requests} requests are being answered; try again")
            self.num_requests += 1
        held = Held(self)
        try:
            yield held
        finally:
            with self._lock:
                self.num_requests -= 1
                self._bytes_held -= held.num_bytes

    def hold(self, num_bytes: int) -> None:
        """Counts bytes. Raises Refused where they are too many with those of the other requests."""
        with self._lock:
            if self._bytes_held + num_bytes > self._max_bytes:
                raise Refused(503, "busy", "the requests that are being answered take all memory allowed; try again")
            self._bytes_held += num_bytes


class Held:
    """The bytes that one request holds until it is answered."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Counts bytes more. Raises Refused."""
        self._admission.hold(num_bytes)
        self.num_bytes += num_bytes
