"""The programs under test: tiny trainings of all projects, run in forks with a fault, and what they leave behind."""

import io
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from core import checkpoint
from core.errors import note_saved, run_command
from core.run import TIME_FIELDS
from tests import forked, toy
from tests.faults.file_calls import KINDS, Fault, Shared, watch
from tests.projects.contract import CONTRACTS, module

TOY = "toy"
NAMES = tuple(CONTRACTS)
_TOY = "--epochs 1 --checkpoint-every 3 --log-every 2 --ema 0.9 --precision bf16"
Ending = tuple[object, object, object, dict[str, bytes]]  # see ending()
_POLL_SECONDS, _LONGEST_SECONDS = 0.004, 600.0
_APART = ("run.json", "run.lock", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard")


@dataclass(frozen=True)
class Program:
    """A tiny training: its name, its flags, and what an unbroken run of it needs and leaves.

    seconds: of processor time. calls: that change files, by their kind. ending: see `ending`.
    kilobytes: on the disk at its end.
    """

    name: str
    settings: tuple[object, ...]
    main: forked.Main
    seconds: float = 0
    calls: Mapping[str, int] = field(default_factory=dict)
    ending: Ending = (None, None, None, {})
    kilobytes: int = 0


@dataclass(frozen=True)
class Timed:
    """A signal sent after some seconds of processor time."""

    seconds: float
    signal_number: int


@dataclass(frozen=True)
class Outcome:
    """How a program ended. code: its exit code, negative for a signal. lines: of standard error. calls: that changed
    files, by kind. saved: the newest step that it reported as saved, 0 for none. phase: 0 before the program, 1 in it,
    2 behind it. seconds: of processor time."""

    code: int
    lines: tuple[str, ...]
    calls: Mapping[str, int]
    saved: int
    phase: int
    seconds: float


def load(name: str, number: int, folder: Path) -> Program:
    """A program, ready to be forked, with its unbroken run made in the folder; number: which kind of its settings."""
    main: forked.Main = toy.main
    settings = _TOY.split()
    if name != TOY:
        contract = CONTRACTS[name]
        main = forked.main_of(module(name, "train"))
        settings = [*contract.settings, *contract.kinds[number].split()]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        forked.warm_up(main, ["--run-dir", folder / f"warm-{name}-{number}", *settings, "--max-steps", 2])
    whole = folder / f"whole-{name}-{number}"
    program = Program(name, tuple(settings), main)
    outcome = play(program, ["--run-dir", whole, *settings], whole)
    assert outcome.code == 0, outcome.lines
    kilobytes = sum(path.stat().st_blocks for path in whole.rglob("*")) // 2
    return Program(name, tuple(settings), main, outcome.seconds, outcome.calls, ending(whole), kilobytes)


def play(program: Program, argv: Sequence[object], run_dir: Path, event: Fault | Timed | None = None) -> Outcome:
    """Runs a program in a fork, with a fault at a call or a signal at a time, and waits for its end."""
    shared, words = Shared(), os.memfd_create("standard error")  # not a file on a disk that may be full
    child = forked.fork()
    if child == 0:
        _live(program, argv, run_dir, shared, words, event if isinstance(event, Fault) else None)
    clock, seconds, began = (~child << 3) | 2, 0.0, time.monotonic()  # the child's clock of processor time
    timed = event if isinstance(event, Timed) else None
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        with suppress(OSError):
            seconds = time.clock_gettime(clock)
        if timed is not None and seconds >= timed.seconds:
            os.kill(child, timed.signal_number)
            timed = None
        if time.monotonic() - began > _LONGEST_SECONDS:
            os.kill(child, signal.SIGABRT)
        time.sleep(_POLL_SECONDS)
    os.lseek(words, 0, os.SEEK_SET)
    with open(words, encoding="utf-8", errors="replace") as file:
        lines = tuple(file.read().splitlines())
    calls = {kind: shared[kind] for kind in KINDS}
    return Outcome(forked.wait(child), lines, calls, shared["saved"], shared["phase"], seconds)


def _live(
    program: Program, argv: Sequence[object], run_dir: Path, shared: Shared, words: int, fault: Fault | None
) -> None:
    """The child's life; it does not return."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(words, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w"), write_through=True) for n in (1, 2))
        sys.argv = [program.name]
        note_saved("nothing was saved")  # as a new process has it
        plain = checkpoint.save

        def save(run_dir: Path, step: int, *arguments: Any, **rest: Any) -> Path:
            folder = plain(run_dir, step, *arguments, **rest)
            shared["saved"] = step
            return folder

        checkpoint.save = save
        # Drawing takes most of a tiny run's time.
        setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())  # noqa: B010
        watch(run_dir, shared, fault)

        def main() -> None:
            shared["phase"] = 1
            program.main([str(argument) for argument in argv])
            shared["phase"] = 2

        run_command(main)
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def arguments(program: Program, run_dir: Path) -> list[object]:
    """What continues a run, or begins it where none was begun."""
    if (run_dir / "run.json").exists():
        return ["--resume", run_dir]
    return ["--run-dir", run_dir, *program.settings]


def is_alike(one: Ending, other: Ending, *, without_plots: bool) -> bool:
    """Whether two endings are equal, or would be without the plots."""
    if not without_plots:
        return one == other
    files = [{name: text for name, text in each[3].items() if not name.startswith("plots/")} for each in (one, other)]
    return one[:3] == other[:3] and files[0] == files[1]


def ending(run_dir: Path) -> Ending:
    """What has to be equal at the end of two runs: the last checkpoint, metrics, TensorBoard's scalars, the summary,
    and every file beside them."""
    files = {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    others = {name: content for name, content in files.items() if not name.startswith(_APART)}
    return forked.ending(run_dir), _scalars(run_dir), forked.summary(run_dir), others


def _scalars(run_dir: Path) -> list[tuple[str, int, float]]:
    """TensorBoard's numbers by name and step, but those of time."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if name not in TIME_FIELDS]
    return [(name, each.step, each.value) for name in sorted(names) for each in events.Scalars(name)]


def problem_with_newest(run_dir: Path, saved: int) -> str:
    """What is wrong with a run's newest checkpoint, of which a step was reported as saved; empty if nothing is."""
    present = checkpoint.folders(run_dir)
    if not present:
        return f"step {saved} was saved, and no checkpoint is there" if saved else ""
    try:
        checkpoint.verify(present[-1])
    except checkpoint.Broken as error:
        return f"the newest checkpoint is broken: {error}"
    newest = int(present[-1].name[5:])
    return f"step {saved} was saved, the newest is of step {newest}" if newest < saved else ""
