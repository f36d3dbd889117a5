"""Programs run in forked children, killed or stopped at chosen instants, and what they leave behind compared.

Forking a process that has torch loaded costs some 40 ms, where starting one costs seconds.
"""

import gc
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from core import checkpoint
from core.errors import note_saved, run_command
from core.program import parse_training
from core.run import TIME_FIELDS

Main = Callable[[list[str]], None]

# The first backward pass decides for good whether autograd has threads of its own, and no forked child can train with
# them. Here, before the exporter has made torch look for other devices, it has none.
torch.zeros((), requires_grad=True).backward()


def run(main: Main, argv: Sequence[object], *, kill_after: float | None = None) -> int:
    """Runs main(argv) in a child and returns its exit code; SIGKILLs it after `kill_after` seconds if given."""
    child = start(main, argv)
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return wait(child)


def start(main: Main, argv: Sequence[object], *, own_group: bool = False) -> int:
    """Starts main(argv) in a child and returns its number."""
    child = fork()
    if child:
        return child
    code = 1
    try:
        if own_group:
            os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        run_command(lambda: main([str(argument) for argument in argv]))
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def fork() -> int:
    """os.fork(). What the tests before have left is never collected in the child: an ONNX session that is freed there
    would wait for ever for threads that only the parent has. Signals are as in a terminal, even where the tests run in
    the background or under nohup."""
    child = os.fork()
    if child == 0:
        gc.freeze()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return child


def last_words(main: Callable[[], None]) -> tuple[int, str]:
    """Exit code and standard error of a program that runs main() in a forked child."""
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        os.dup2(writer, 2)
        note_saved("nothing was saved")  # as a new process has it
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), write_through=True)
        try:
            run_command(main)
        except SystemExit as left:
            os._exit(int(left.code or 0))
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    return wait(child), text


def wait(child: int) -> int:
    """A child's exit code; the negative number of the signal that ended it, where one did."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ending(run_dir: Path) -> tuple[str, list[dict[str, Any]]]:
    """What has to be equal at the end of two runs: the SHA-256 of the last checkpoint's tensors and JSON, and the
    lines of metrics.jsonl without time fields."""
    folder = checkpoint.folders(run_dir)[-1]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name != checkpoint.MANIFEST:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest(), metrics(run_dir)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without time fields."""
    lines = (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIME_FIELDS} for line in lines]


def summary(run_dir: Path) -> dict[str, Any]:
    """summary.json without settings, and without what two equal runs may differ in."""
    numbers = json.loads((run_dir / "summary.json").read_text("utf-8"))
    return {
        name: value
        for name, value in numbers.items()
        if name != "config" and not name.endswith(("seconds", "memory_mb", "gpu_busy"))
    }


def assert_killed_runs_end_alike(
    main: Main, settings: Sequence[object], folder: Path, ending: Callable[[Path], object] = ending, *, share: float
) -> None:
    """Runs main once whole; then again until a kill after about a share of its time, a late one with a second kill, and
    resumes it up to its end. Both endings have to be equal. A kill that comes after the end, because the machine was
    slower before, is made again at half the time.
    """
    began = time.monotonic()
    assert run(main, ["--run-dir", folder / "whole", *settings]) == 0
    whole_seconds = time.monotonic() - began
    moments, run_dir = random.Random(repr(list(settings))), folder / "killed"
    start_anew = ["--run-dir", run_dir, *settings]
    kill_after = whole_seconds * (share + moments.uniform(-0.12, 0.12))
    code = run(main, start_anew, kill_after=kill_after)
    while code == 0 and kill_after > 0.02 * whole_seconds:
        shutil.rmtree(run_dir)
        kill_after /= 2
        code = run(main, start_anew, kill_after=kill_after)
    assert code != 0, "no kill hit a running program"
    again = whole_seconds * moments.uniform(0.1, 0.5) if share > 0.5 else None
    while code != 0:
        assert code == -signal.SIGKILL
        arguments = ["--resume", run_dir] if (run_dir / "run.json").exists() else start_anew
        code, again = run(main, arguments, kill_after=again), None
    assert ending(run_dir) == ending(folder / "whole")
    assert not list(run_dir.glob("checkpoints/.tmp-*"))


def main_of(program: ModuleType) -> Main:
    """A project's train program as a function of its command line."""
    return lambda argv: program.train(parse_training(program.Config, argv))


def stopping_at(step: int, program: ModuleType) -> Main:
    """A project's training that sends itself SIGTERM in the step of a number, and so ends with exit code 143.

    Steps are the updates of the learner that train_step is given; without one, its calls.
    """

    def stop(argv: list[str]) -> None:
        inner, calls = program.train_step, itertools.count(1)

        def train_step(*arguments: Any, **rest: Any) -> Any:
            metrics = inner(*arguments, **rest)
            if (rest["learner"].num_steps if "learner" in rest else next(calls)) == step:
                signal.raise_signal(signal.SIGTERM)
            return metrics

        program.train_step = train_step  # type: ignore[attr-defined]
        main_of(program)(argv)

    return stop


def said(main: Main, argv: Sequence[object], folder: Path) -> str:
    """What main(argv) prints; it has to end well."""
    path = folder / "said.txt"

    def tell(argv: list[str]) -> None:
        with path.open("w") as file, redirect_stdout(file):
            main(argv)

    assert run(tell, argv) == 0
    return path.read_text()


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a run folder but the lock, which names its last holder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


def warm_up(main: Main, argv: Sequence[object]) -> None:
    """Runs main(argv) here, so that children find everything imported; with one thread, which forking needs."""
    torch.set_num_threads(1)
    main([str(argument) for argument in argv])
