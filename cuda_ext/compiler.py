"""Compiles one library in a separate process, which can neither crash nor outlive the process that asked for it.

`python -P compiler.py FOLDER PARENT SECONDS` is a supervisor without torch. Its child compiles what FOLDER/request.json
names, with torch.utils.cpp_extension and ninja, and loads the result once: a library that crashes, crashes there. The
supervisor kills all of its session when the child has ended, the time is up, or the parent is gone. A process group
would not be enough, since ninja gives each compiler one of its own.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_REQUEST, _OUTCOME, LOG = "request.json", "outcome.txt", "log.txt"
SUCCESS, _FAILURE, KILLED = "compiled and loaded", "compiling failed", "the compiling process was killed"
_POLL_SECONDS = 0.05
GRACE_SECONDS = 10.0  # for a supervisor to keep its own deadline; one that is stopped cannot


@dataclass(frozen=True)
class Request:
    """What to compile: sources by name in the folder, into <name>.so there."""

    name: str
    sources: list[str]
    cflags: list[str]
    cuda_cflags: list[str]
    cuda_home: str | None


def compile_library(folder: Path, request: Request, environment: Mapping[str, str], seconds: float) -> str:
    """Compiles in a folder and returns SUCCESS or what happened; the compiler's output is in the folder's log.txt."""
    (folder / _REQUEST).write_text(json.dumps(asdict(request)), "utf-8")
    try:
        supervisor = start(folder, environment, seconds)
    except OSError as error:
        return f"{KILLED} at its start ({error.strerror})"
    deadline = time.monotonic() + seconds + GRACE_SECONDS
    try:
        while not _has_ended(supervisor.pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    finally:  # also on Ctrl-C; until wait() no other process can get the supervisor's number, which is the session's
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGKILL)
        _end_session(supervisor.pid)
        supervisor.wait()
    try:
        return (folder / _OUTCOME).read_text("utf-8")
    except FileNotFoundError:
        return KILLED


def start(folder: Path, environment: Mapping[str, str], seconds: float) -> "subprocess.Popen[bytes]":
    """Starts the supervisor, in a session of its own. Raises OSError."""
    command = [sys.executable, "-P", __file__, str(folder), str(os.getpid()), str(seconds)]
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _has_ended(child: int) -> bool:
    """Whether a child process has ended, without collecting its exit code."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _end_session(session: int) -> None:
    """Kills all processes of a session but the calling one."""
    deadline = time.monotonic() + GRACE_SECONDS
    while (others := [pid for pid in _members(session) if pid != os.getpid()]) and time.monotonic() < deadline:
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS / 5)


def _members(session: int) -> Iterator[int]:
    """Numbers of the living processes of a session."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: state, parent, group and session follow
                # the name, which may hold spaces and brackets
                fields = Path("/proc", entry, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[3]) == session:
                    yield int(entry)


def supervise(folder: Path, parent: int, seconds: float) -> None:
    """Compiles in a child process; ends the session when that has ended, is late, or the parent is gone."""
    pr_set_name = 15
    ctypes.CDLL(None).prctl(pr_set_name, b"compile-kernels")  # so that `killall python` ends the training, but not this
    builder = os.fork()
    if builder == 0:
        _build(folder)
    deadline = time.monotonic() + seconds
    while not _has_ended(builder) and os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    outcome = f"compiling took longer than {seconds:.0f} s"
    if _has_ended(builder):
        code = os.waitstatus_to_exitcode(os.waitpid(builder, 0)[1])
        outcome = {0: SUCCESS, 1: _FAILURE}.get(code, f"compiling or loading ended with signal {-code}")
    with suppress(OSError):
        (folder / _OUTCOME).write_text(outcome, "utf-8")
    _end_session(os.getpid())


def _build(folder: Path) -> None:
    """Compiles and loads what the request names, and ends this process."""
    code = 1
    try:
        request = Request(**json.loads((folder / _REQUEST).read_text("utf-8")))
        from torch.utils import cpp_extension

        if request.cuda_home:  # torch searches once, at import, and wrongly where nvcc is a script outside its toolkit
            cpp_extension.CUDA_HOME = request.cuda_home
        cpp_extension.load(
            name=request.name,
            sources=[str(folder / source) for source in request.sources],
            extra_cflags=request.cflags,
            extra_cuda_cflags=request.cuda_cflags,
            extra_ldflags=["-L."] if request.cuda_home else [],
            build_directory=str(folder),
            with_cuda=request.cuda_home is not None,
            is_python_module=False,
            verbose=True,  # writes ninja's output to the log as it comes
        )
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
