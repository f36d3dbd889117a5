"""SIGINT, SIGTERM and SIGHUP, noted for the next step of a training, which saves before it stops."""

import signal
from types import FrameType
from typing import Any, Self


class Signals:
    """Notes signals while it is entered. A second SIGINT does not wait for the step: it raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number
