"""What a killed process or another program may leave in a run folder: a run is taken up, and begun, all the same."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from core import checkpoint
from tests.faults.programs import Program, Timed, arguments, ending, play
from tests.faults.tally import Tally

_HALF = b'{"step": 3, "tr'


def leftovers_trial(program: Program, number: int, folder: Path, tally: Tally) -> None:
    """A stopped run, or an empty folder, with some leftovers; begun or taken up, it has to end alike."""
    source = random.Random(f"leftovers {program.name} {number}")
    run_dir = folder / "leftovers" / "run"
    shutil.rmtree(run_dir.parent, ignore_errors=True)
    run_dir.parent.mkdir(parents=True)
    if source.random() < 0.75:
        play(program, arguments(program, run_dir), run_dir, Timed(_moment(program, source), signal.SIGTERM))
    begun = (run_dir / "run.json").exists()
    kinds = source.sample(list(_IN_ANY), source.randint(1, len(_IN_ANY)))
    kinds += source.sample(list(_IN_BEGUN), source.randint(1, 3)) if begun else []
    run_dir.mkdir(exist_ok=True)
    for kind in kinds:
        (_IN_ANY.get(kind) or _IN_BEGUN[kind])(run_dir)
    tally.count("folders")
    where = f"{program.name} {number}: {', '.join(kinds)}"
    outcome = play(program, arguments(program, run_dir), run_dir)
    if outcome.code != 0:
        tally.add("others", f"{where}: exit {outcome.code}: {outcome.lines[-1] if outcome.lines else 'no line'}")
    elif ending(run_dir) != program.ending:
        tally.add("unequal", where)
    elif list(run_dir.rglob(".tmp-*")):
        tally.add("others", f"{where}: temporary files are left")


def _moment(program: Program, source: random.Random) -> float:
    """A time within the run, in seconds of processor time."""
    return source.uniform(0.3, 0.9) * program.seconds


def _newest(run_dir: Path) -> Path | None:
    """The newest whole checkpoint: other kinds of leftovers may have made half ones."""
    whole = [path for path in checkpoint.folders(run_dir) if (path / checkpoint.MANIFEST).exists()]
    return whole[-1] if whole else None


def _half_files(run_dir: Path) -> None:
    for name in (f"run.json-{os.getpid()}", f"metrics.jsonl-{os.getpid()}", "summary.json-0123456789ab"):
        (run_dir / f".tmp-{name}").write_bytes(_HALF)


def _stale_lock(run_dir: Path) -> None:
    (run_dir / "run.lock").write_text("process 1 on another-machine, which has long gone")


def _half_checkpoint(run_dir: Path) -> None:
    half = run_dir / "checkpoints" / f".tmp-step-00000099-{os.getpid()}"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(_HALF)


def _half_plot(run_dir: Path) -> None:
    (run_dir / "plots").mkdir(exist_ok=True)
    (run_dir / "plots" / ".tmp-curves.png").write_bytes(b"\x89PNG")


def _half_deleted(run_dir: Path) -> None:
    """An old checkpoint that was being rotated away."""
    if newest := _newest(run_dir):
        doomed = newest.with_name(".tmp-step-00000001")
        shutil.copytree(newest, doomed)
        (doomed / checkpoint.MANIFEST).unlink()


def _half_renamed(run_dir: Path) -> None:
    """A checkpoint that was to be replaced by another of its step, when the process was killed between two renames."""
    if newest := _newest(run_dir):
        aside = newest.with_name(f".tmp-replaced-{newest.name}")
        shutil.rmtree(aside, ignore_errors=True)  # of another kind of leftover
        newest.rename(aside)


def _half_replaced(run_dir: Path) -> None:
    """A checkpoint that was replaced, with the former one still beside it."""
    if newest := _newest(run_dir):
        shutil.copytree(newest, newest.with_name(f".tmp-replaced-{newest.name}"))


def _empty_checkpoint(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "step-00000098").mkdir(parents=True)


def _truncated_checkpoint(run_dir: Path) -> None:
    """A newest checkpoint that came half from another disk."""
    if newest := _newest(run_dir):
        later = newest.with_name(f"step-{int(newest.name[5:]) + 1:08d}")
        shutil.copytree(newest, later)
        with (later / "model.safetensors").open("r+b") as file:
            file.truncate(100)


def _half_line(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write(_HALF)


def _half_record(run_dir: Path) -> None:
    for path in run_dir.glob("tensorboard/*"):
        with path.open("ab") as file:
            file.write(b"\x17\0\0\0\0\0\0\0half a record")


_IN_ANY: dict[str, Callable[[Path], None]] = {
    "half-written files": _half_files,
    "a stale lock": _stale_lock,
}
_IN_BEGUN: dict[str, Callable[[Path], None]] = {
    "a half-written checkpoint": _half_checkpoint,
    "a half-written plot": _half_plot,
    "a half-deleted checkpoint": _half_deleted,
    "a half-renamed checkpoint": _half_renamed,
    "a half-replaced checkpoint": _half_replaced,
    "an empty checkpoint": _empty_checkpoint,
    "a truncated checkpoint": _truncated_checkpoint,
    "half a line of metrics": _half_line,
    "half a record of TensorBoard": _half_record,
}
