"""Every way to fail ends in one printable line and the exit code of the contract."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import errors
from core.errors import MAX_LINE_CHARACTERS, RunError, Stopped, UserError, run_command
from core.signals import Interrupted

ROOT = Path(__file__).parents[2]


def raising(error: BaseException) -> Callable[[], None]:
    """A main function that raises it."""

    def main() -> None:
        raise error

    return main


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher, no flags, nothing saved."""
    errors.note_saved("nothing was saved")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["train"])


def outcome(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Exit code and standard error of a program that raises it."""
    with pytest.raises(SystemExit) as left:
        run_command(raising(error))
    written = capsys.readouterr()
    assert written.out == ""
    return left.value.code, written.err


FULL = OSError(errno.ENOSPC, "x", "/disk/file")
CASES: list[tuple[BaseException, int, str]] = [
    (UserError("no such file", "a.jpg", "give a picture"), 2, "error: no such file: a.jpg; give a picture\n"),
    (RunError("a worker died", "pid 3", "try 0"), 1, "error: a worker died: pid 3; try 0\n"),
    (Stopped(2, "saved step 3"), 130, "saved step 3\n"),
    (Stopped(15, "saved step 3"), 143, "saved step 3\n"),
    (Interrupted(15), 143, "stopped; nothing was saved\n"),
    (KeyboardInterrupt(), 130, "stopped; nothing was saved\n"),
    (FULL, 1, "error: no space left on device: /disk/file; free some space, then continue with --resume\n"),
    (PermissionError(errno.EACCES, "x", "/f"), 1, "error: permission denied: /f; make it writable, or give another"),
    (MemoryError(), 1, "error: out of memory: MemoryError; try a smaller --batch-size\n"),
    (RuntimeError("CUDA out of memory. Tried\nmore"), 1, "error: out of memory: CUDA out of memory. Tried; try a"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 1, "error: out of memory: "),
    (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), 1, "error: a data worker died: "),
    (RuntimeError("gloo: Connection closed by peer\nmore"), 1, "error: contact with another rank was lost: "),
    (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero; run again with --debug"),
    (ValueError(), 1, "error: ValueError: no message; run again with --debug"),
]


@pytest.mark.parametrize(("error", "code", "text"), CASES, ids=[f"{type(e).__name__}-{c}" for e, c, _ in CASES])
def test_an_error_gives_its_exit_code_and_one_line(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, written = outcome(error, capsys)
    assert got == code
    assert written.startswith(text)
    assert written.count("\n") == 1
    assert written.endswith("\n")


@pytest.mark.parametrize("bad", ["\x1b[31mred", "a\nb", "a\rb", "\x00", "\x85", "\u2028", "\u202e", "\udcff", "\x7f"])
def test_control_characters_and_broken_names_are_escaped(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, written = outcome(UserError("no such file", f"x{bad}y", "look"), capsys)
    assert code == 2
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    assert written.encode("utf-8")


def test_an_endless_message_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    _, written = outcome(UserError("x" * 100_000, "where", "todo"), capsys)
    assert len(written) == MAX_LINE_CHARACTERS + 1


def test_debug_shows_the_traceback_before_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "--debug"])
    code, written = outcome(UserError("wrong", "here", "look"), capsys)
    assert code == 2
    assert written.startswith("Traceback (most recent call last)")
    assert written.splitlines()[-1] == "error: wrong: here; look"


def test_success_is_exit_code_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(lambda: None)
    assert left.value.code == 0
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "from core.errors import run_command; run_command(lambda: [print('x' * 99) for _ in range(9999)] and None)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_with_wrong_input_other_ranks_leave_rank_0_time_to_speak(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert outcome(UserError("wrong", "here", "look"), capsys) == (2, "error: [rank 1] wrong: here; look\n")
    assert waited == [errors.SECONDS_FOR_RANK_0]


def test_a_failure_of_another_rank_names_the_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert outcome(RunError("broke", "here", "look"), capsys) == (1, "error: [rank 1] broke: here; look\n")
