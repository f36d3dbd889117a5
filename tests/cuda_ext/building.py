"""Programs that ask for kernels, as forked children: each with its own sources and cache, and what became of it.

Forking a process that has torch loaded costs some 40 ms, where starting one costs seconds.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cuda_ext import build, compiler, kernel_library

SAMPLE = Path(__file__).parent / "sample"
PLAIN_SOURCE = '#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n'  # no torch: compiled in no time
CHILD_SECONDS = 150.0
Act = Callable[[], Any]


@dataclass(frozen=True)
class Child:
    """A forked program at work."""

    pid: int
    folder: Path

    def kill(self) -> None:
        """Ends it at once, and waits for its end."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def answer(self) -> "Answer":
        """What it came to; fails where it does not end, or ends by a signal."""
        deadline = time.monotonic() + CHILD_SECONDS
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"still running after {CHILD_SECONDS:.0f} s: {self.stderr()}")
            time.sleep(0.01)
        assert ended[1] == 0, f"ended with {os.waitstatus_to_exitcode(ended[1])}: {self.stderr()}"
        return Answer(stderr=self.stderr(), **json.loads((self.folder / "answer.json").read_text("utf-8")))

    def stderr(self) -> str:
        """What it said so far."""
        return (self.folder / "stderr.txt").read_text("utf-8")


@dataclass(frozen=True)
class Answer:
    """What a program saw of its kernels."""

    active: bool | None
    error: str | None
    reason: str | None
    library: str | None
    built: bool
    result: Any
    stderr: str


def start(
    folder: Path, csrc: Path, *, before: Act | None = None, after: Act | None = None, whole: bool = False
) -> Child:
    """Forks a program that asks for the CPU kernels of `csrc`; it runs `before` first, and keeps what `after` gives.

    whole: with the compiling process started as it is for users.
    """
    folder.mkdir(parents=True)
    child = os.fork()
    if child:
        return Child(child, folder)
    code = 1
    try:
        sys.stdout = sys.stderr = (folder / "stderr.txt").open("w", buffering=1, encoding="utf-8")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's processes ignore it
        build._active.clear()
        build._statuses.clear()
        kernel_library.CSRC = csrc
        if not whole:
            compiler.start = Forked  # type: ignore[assignment]
        if before is not None:
            before()
        answer: dict[str, Any] = {"active": None, "error": None}
        try:
            answer["active"] = build.ensure("cpu")
        except build.ExtensionError as error:
            answer["error"] = str(error)
        status = build.status("cpu")
        assert build.is_active("cpu") is bool(answer["active"])
        answer |= {"reason": status.reason, "built": status.built, "result": after() if after is not None else None}
        answer["library"] = str(status.library) if status.library is not None else None
        (folder / "answer.json").write_text(json.dumps(answer), "utf-8")
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def run(folder: Path, csrc: Path, *, before: Act | None = None, after: Act | None = None) -> Answer:
    """What becomes of a program that asks for the kernels of `csrc`."""
    return start(folder, csrc, before=before, after=after).answer()


class Forked:
    """The compiling process as a fork of one that has torch loaded, which saves its seconds of loading it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], seconds: float) -> None:
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            faulthandler.disable()  # pytest's would print a crash that a test provokes
            os.setsid()
            os.chdir(folder)
            log = os.open(compiler.LOG, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
            os.environ.clear()
            os.environ.update(environment)
            compiler.supervise(folder, parent, seconds)
        finally:
            os._exit(0)

    def wait(self) -> None:
        """Waits for its end."""
        os.waitpid(self.pid, 0)


def compute() -> list[Any]:
    """The sample operation's result, and whether it was the compiled kernel's."""
    registered = torch.library.Library("atelier_sample", "FRAGMENT")
    registered.define("times(Tensor x) -> Tensor")
    result = torch.ops.atelier_sample.times(torch.ones(2)).tolist()
    return [result, torch._C._dispatch_has_kernel_for_dispatch_key("atelier_sample::times", "CPU")]


def plain_sources(folder: Path, answer: int = 42, source: str = PLAIN_SOURCE) -> Path:
    """Sources of a library without torch in it, which compile in a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answer_cpu.cpp").write_text(source, "utf-8")
    (folder / "answer.h").write_text(f"#define ANSWER {answer}\n", "utf-8")
    return folder


def at_work_in(folder: Path) -> list[str]:
    """Command lines of the processes that are at work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if command and (str(folder) in command or str(folder) in os.readlink(entry / "cwd")):
                    found.append(command)
            except OSError:
                pass
    return found


def wait_until(met: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition is met within some time."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
