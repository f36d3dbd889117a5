"""What can go wrong, and the one place that turns it into a line of text and an exit code.

0 done; 1 failed while running; 2 the user's input is wrong; 130 and 143 stopped by SIGINT and SIGTERM after
saving. Standard error ends with one line `error: what: where; what to do`. `--debug` shows the traceback too.
"""

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from core.signals import interrupting

MAX_LINE_CHARACTERS = 600
SECONDS_FOR_RANK_0 = 15.0
_saved = {"text": "nothing was saved"}


class UserError(Exception):
    """Something that the user gave is wrong (exit code 2); nothing has been created or changed."""

    def __init__(self, what: str, where: object, todo: str) -> None:
        super().__init__(f"{what}: {where}; {todo}")


class RunError(Exception):
    """A run failed while it was running (exit code 1); its newest checkpoint is intact."""

    def __init__(self, what: str, where: object, todo: str) -> None:
        super().__init__(f"{what}: {where}; {todo}")


class Stopped(Exception):
    """A signal asked for the end, and the run has been saved (exit code 128 + signal number)."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def run_command(main: Callable[[], None], *, outlives_output: bool = False) -> NoReturn:
    """Runs a program's main function and leaves with the exit code of the contract above.

    outlives_output: go on where nobody reads the output any more, as a training does; otherwise that ends the program
    with success, as in `infer ... | head`.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII alone shows other letters as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if outlives_output:
        sys.stdout, sys.stderr = _LastingStream(sys.stdout), _LastingStream(sys.stderr)
    try:
        with interrupting():
            main()
        sys.stdout.flush()
        code = 0
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            import traceback

            traceback.print_exc()
        code, line = describe(error)
        if code == 2 and os.environ.get("RANK", "0") != "0":
            # Every rank finds the same wrong input. Rank 0 says so, and its end ends this process too; to leave first
            # would end rank 0 before it has spoken.
            time.sleep(SECONDS_FOR_RANK_0)
        print(printable(line), file=sys.stderr, flush=True)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # no destructor may wait for ranks that have left, or abort because they have
    sys.exit(code)


class _LastingStream:
    """A text stream that goes silent where it cannot be written any more: its reader left, or its terminal closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or nothing."""
        try:
            return self._stream.write(text)
        except OSError:
            return self._go_silent(len(text))

    def flush(self) -> None:
        """Flushes, or nothing."""
        try:
            self._stream.flush()
        except OSError:
            self._go_silent(0)

    def _go_silent(self, size: int) -> int:
        """Has everything from now on written to nowhere."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return size


def note_saved(text: str) -> None:
    """Sets what the closing line says of a program that is stopped from now on."""
    _saved["text"] = text


def describe(error: BaseException) -> tuple[int, str]:
    """Exit code and closing line for an exception."""
    rank = os.environ.get("RANK")
    prefix = "error: " if rank in (None, "0") else f"error: [rank {rank}] "
    text = str(error)
    if isinstance(error, Stopped):
        return 128 + error.signal_number, text
    if isinstance(error, KeyboardInterrupt):
        return 128 + getattr(error, "signal_number", signal.SIGINT), f"stopped; {_saved['text']}"
    if isinstance(error, UserError) or getattr(error, "exit_code", None) == 2:  # cuda_ext's, which core does not know
        return 2, prefix + text
    if isinstance(error, RunError):
        return 1, prefix + text
    if isinstance(error, OSError) and error.errno is not None:
        return 1, f"{prefix}{os.strerror(error.errno).lower()}: {error.filename or text}; {advice(error)}"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        first_line = text.splitlines()[0] if text else "MemoryError"
        return 1, f"{prefix}out of memory: {first_line}; try a smaller --batch-size"
    if text.startswith("DataLoader worker"):  # torch's signal handler raises it wherever the program happens to be
        return 1, f"{prefix}a data worker died: {text.splitlines()[0]}; try fewer --workers; memory may be short"
    if any(word in text for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")):
        return 1, f"{prefix}contact with another rank was lost: {text.splitlines()[0]}; see that rank's own line"
    return 1, f"{prefix}{type(error).__name__}: {text or 'no message'}; run again with --debug for the traceback"


def advice(error: OSError) -> str:
    """What the user can do about an error of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, then continue with --resume"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make it writable, or give another folder with --run-dir"
    return "see the system's message"


def visible(text: str) -> str:
    """The text with control characters but line breaks as escapes: a foreign name must not command a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def printable(line: str) -> str:
    """The text as one line without control characters, at most MAX_LINE_CHARACTERS long."""
    line = visible(" ".join(line.split()))
    return line if len(line) <= MAX_LINE_CHARACTERS else line[: MAX_LINE_CHARACTERS - 1] + "…"
