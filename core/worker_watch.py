"""A time limit for data workers that is kept from outside, because a stopped worker answers nothing.

torch passes a batch as file descriptors, which the training process asks the worker for and waits for without a limit.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Self

_SECONDS_TO_DIE = 5.0
_MOST_STRIKES = 100


class WorkerWatch:
    """Kills all workers where the training process waits for a batch for longer than `limit_seconds`.

    The wait then ends with an error of the broken connection, and `has_fired` says why. On leaving, what is left of
    the workers is killed: a stopped one would not end, and the program would wait for it at its exit.
    """

    def __init__(self, workers: Sequence[BaseProcess], limit_seconds: float) -> None:
        self.has_fired = False
        self._workers, self._limit_seconds = workers, limit_seconds
        self._waits_since: float | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._workers:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._thread.is_alive():
            self._thread.join()
        self.kill()
        for worker in self._workers:
            _insist(partial(worker.join, _SECONDS_TO_DIE))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time in here is limited."""
        self._waits_since = time.monotonic()
        try:
            yield
        finally:
            self._waits_since = None

    def _watch(self) -> None:
        """Looks at the clock a few times in the limit."""
        while not self._left.wait(min(self._limit_seconds / 10, 1.0)):
            since = self._waits_since
            if since is not None and time.monotonic() - since > self._limit_seconds:
                self.has_fired = True
                self.kill()
                return

    def kill(self) -> None:
        """Ends every worker at once; SIGKILL reaches stopped ones too."""
        for worker in self._workers:
            _insist(worker.kill)


def _insist(action: Callable[[], object]) -> None:
    """Does something again where torch's handler struck in it, which tells of a worker's death wherever the program is,
    such as in killing the next one."""
    for _ in range(_MOST_STRIKES):
        with suppress(RuntimeError):
            action()
            return
