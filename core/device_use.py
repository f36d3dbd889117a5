"""How busy a GPU is: the share of the time between the first train step and the last in which it worked on one."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

_FOLD_BEYOND = 64  # events of steps that are kept before those that are over are summed up


class Event(Protocol):
    """A moment on the device's clock, as torch.cuda.Event has it."""

    def record(self) -> object:
        """Marks the place behind all work that is queued."""

    def query(self) -> bool:
        """Whether the device has come there."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds between two such moments."""


class DeviceUse:
    """Adds up the device's time in train steps by its own clock; nothing is waited for until take().

    A step whose work Python starts bit by bit counts as a whole, with the gaps between its kernels: where steps are not
    replayed as a graph, the share is an upper bound. make_event: None on a CPU, where there is nothing to tell.
    """

    def __init__(self, make_event: Callable[[], Event] | None) -> None:
        self._make_event = make_event
        self._first: Event | None = None
        self._last: Event | None = None
        self._open: deque[tuple[Event, Event]] = deque()
        self._busy_ms = 0.0
        self._sums = [0.0, 0.0]  # busy, all; of what take() has told

    @classmethod
    def of(cls, device: torch.device) -> "DeviceUse":
        """That of a device."""
        return cls((lambda: torch.cuda.Event(enable_timing=True)) if device.type == "cuda" else None)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within it, work of a train step is queued."""
        if self._make_event is None:
            yield
            return
        begin, end = self._make_event(), self._make_event()
        begin.record()
        yield
        end.record()
        self._first, self._last = self._first or begin, end
        self._open.append((begin, end))
        while len(self._open) > _FOLD_BEYOND and self._open[0][1].query():
            self._fold()

    def take(self) -> dict[str, float]:
        """gpu_busy since the last call, in [0, 1]; nothing on a CPU. The device's work has to be done."""
        if self._first is None or self._last is None:
            return {}
        while self._open:
            self._fold()
        whole = self._first.elapsed_time(self._last)
        told = _share(self._busy_ms, whole)
        self._sums = [self._sums[0] + self._busy_ms, self._sums[1] + whole]
        self._first, self._last, self._busy_ms = None, None, 0.0
        return told

    def whole(self) -> dict[str, float]:
        """gpu_busy over all that take() has told; nothing on a CPU."""
        return _share(*self._sums) if self._sums[1] else {}

    def _fold(self) -> None:
        """Adds the oldest step."""
        begin, end = self._open.popleft()
        self._busy_ms += begin.elapsed_time(end)


def _share(busy_ms: float, whole_ms: float) -> dict[str, float]:
    """As a number of metrics.jsonl."""
    return {"gpu_busy": round(min(1.0, busy_ms / max(whole_ms, 1e-6)), 4)}
