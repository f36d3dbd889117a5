"""SIGINT, SIGTERM and SIGHUP: answered at once, or, in a train step, at its end and after saving. Loads no torch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end, wherever the program was. Not an Exception: no reader of files may catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


@contextmanager
def interrupting() -> Iterator[None]:
    """Has the signals raise Interrupted, as Python has it for SIGINT alone."""

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        raise Interrupted(number)

    before = _set(interrupt)
    try:
        yield
    finally:
        _restore(before)


class Signals:
    """Notes signals while it is entered. A second SIGINT does not wait for the step: it raises Interrupted."""

    def __init__(self) -> None:
        self.received = 0
        self._is_at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = _set(self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        _restore(self._before)
        if kind is None and self.received:
            raise Interrupted(self.received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In here a signal raises Interrupted, for work that changes nothing and may take long.

        The exception may also come from the `with` statement itself, so catch it around the statement, in the same
        function: a generator that is a context manager would not hear of it.
        """
        self._is_at_once = True
        try:
            if self.received:
                raise Interrupted(self.received)
            yield
        finally:
            self._is_at_once = False

    def _note(self, number: int, _: FrameType | None) -> None:
        is_awaited = self._is_at_once or self.received == signal.SIGINT == number
        self.received, self._is_at_once = number, False  # what is done about it is not to be interrupted by another
        if is_awaited:
            raise Interrupted(number)


def _set(handler: Any) -> dict[int, Any]:
    """Sets a handler in the main thread, but not for SIGHUP under nohup; returns the handlers before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return {n: signal.signal(n, handler) for n in _NUMBERS if not (n == signal.SIGHUP and ignored)}


def _restore(handlers: dict[int, Any]) -> None:
    """Sets the handlers that were there before."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
