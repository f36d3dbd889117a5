"""Dynamic batching: inputs that come together and are of one key are computed together, by several threads.

An input waits for others while the model's threads are busy; with a window, a free thread waits as well, as long as
further requests are being read. So a single request is computed at once, and batches grow with the load.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple

Results = Sequence[Any]
Compute = Callable[[Any, Sequence[Any]], Results]


class _Request:
    """Inputs that were submitted together, and the future of their results."""

    def __init__(self, num: int, future: "Future[list[Any]]") -> None:
        self.future = future
        self._results: list[Any] = [None] * num
        self._num_left, self._lock = num, threading.Lock()

    def settle(self, number: int, result: Any = None, error: Exception | None = None) -> bool:
        """Takes the result of one input, or the error of the first bad one; returns whether it was the last input."""
        with self._lock, suppress(InvalidStateError):  # it may have been given up meanwhile
            self._results[number] = result
            self._num_left -= 1
            if error is not None:
                self.future.set_exception(error)
            elif not self._num_left:
                self.future.set_result(self._results)
        return not self._num_left


class _Waiting(NamedTuple):
    """An input that waits: what computes it, since when (time.monotonic), and whose number it is."""

    model: Any
    input: Any
    since: float
    request: _Request
    number: int


class Batcher:
    """Threads that take inputs of one model and key together.

    compute: from a model and a batch to one result an input; called by several threads at once. num_coming: how many
    further inputs are about to be submitted. observe: told the size and the seconds of each batch. After `stop`, what
    is waiting is still computed.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        workers: int,
        window_seconds: float,
        largest: int,
        num_coming: Callable[[], int] = lambda: 0,
        observe: Callable[[int, float], None] = lambda *_: None,
    ) -> None:
        self._compute, self._num_coming, self._observe = compute, num_coming, observe
        self._window_seconds, self._largest = window_seconds, largest
        self._queues: dict[Hashable, deque[_Waiting]] = {}  # the one that was served last stands last
        self._changed = threading.Condition()
        self._num_idle, self._is_stopping = 0, False
        self.num_requests = 0  # submitted and not settled
        self._threads = [threading.Thread(target=self._work, name=f"batch-{n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Inputs that no thread has taken yet."""
        with self._changed:
            return sum(len(queue) for queue in self._queues.values())

    def submit(self, model: Any, inputs: Sequence[tuple[Hashable, Any]], future: "Future[list[Any]]") -> None:
        """Adds inputs with their keys; the future gets their results in order, or the error of the first bad one.

        What is not being computed when the future is cancelled never is.
        """
        request, now = _Request(len(inputs), future), time.monotonic()
        with self._changed:
            self.num_requests += 1
            for number, (key, each) in enumerate(inputs):
                waiting = _Waiting(model, each, now, request, number)
                self._queues.setdefault((id(model), key), deque()).append(waiting)
            self._changed.notify(len(inputs))

    def stop(self, timeout: float | None = None) -> None:
        """Ends the threads after what is waiting has been computed."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        """A thread: batch after batch."""
        while batch := self._take():
            live = []
            for each in batch:
                if each.request.future.cancelled():
                    self._settle(each)
                else:
                    live.append(each)
            if live:
                self._run(live)

    def _take(self) -> list[_Waiting]:
        """Waits for a batch; an empty one stands for the end."""
        with self._changed:
            while True:
                key, wait_seconds = self._ready()
                if key is not None:
                    return self._cut(key)
                if self._is_stopping and not self._queues:
                    return []
                self._num_idle += 1
                self._changed.wait(wait_seconds)
                self._num_idle -= 1

    def _ready(self) -> tuple[Hashable | None, float | None]:
        """The key of a batch that is to start now, or None with the seconds until the next one may."""
        now, wait_seconds = time.monotonic(), None
        none_comes = self._is_stopping or not self._window_seconds or self._num_coming() <= 0
        for key, queue in self._queues.items():
            left = queue[0].since + self._window_seconds - now
            if none_comes or left <= 0 or len(queue) >= self._largest:
                return key, None
            wait_seconds = left if wait_seconds is None else min(left, wait_seconds)
        return None, wait_seconds

    def _cut(self, key: Hashable) -> list[_Waiting]:
        """Takes a batch off its queue: a fair share where other threads are idle as well."""
        queue = self._queues.pop(key)
        num = min(self._largest, math.ceil(len(queue) / (1 + self._num_idle)))
        batch = [queue.popleft() for _ in range(num)]
        if queue:
            self._queues[key] = queue
            self._changed.notify()
        return batch

    def _run(self, batch: Sequence[_Waiting]) -> None:
        """Computes a batch; where it fails, each input by itself, so that a bad one costs its neighbors nothing."""
        began = time.monotonic()
        try:
            results = self._compute(batch[0].model, [each.input for each in batch])
            assert len(results) == len(batch)
        except Exception as error:
            if len(batch) == 1:
                self._settle(batch[0], error=error)
                return
            for each in batch:
                self._run([each])
            return
        self._observe(len(batch), time.monotonic() - began)
        for each, result in zip(batch, results, strict=True):
            self._settle(each, result)

    def _settle(self, waiting: _Waiting, result: Any = None, error: Exception | None = None) -> None:
        """Hands over what came of one input."""
        if waiting.request.settle(waiting.number, result, error):
            with self._changed:
                self.num_requests -= 1
