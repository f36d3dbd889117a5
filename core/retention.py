"""Which checkpoints of a run stay: the newest and the best, and none that is broken or half written.

Only the process that holds the run's lock may call these functions.
"""

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from core.checkpoint import REPLACED, Broken, folder_of, folders, put_back, verify
from core.errors import RunError, printable
from core.files import TEMPORARY

_BROKEN = "broken-"


def rotate(run_dir: Path, keep: int, protected: Collection[int]) -> None:
    """Deletes all but the newest `keep` checkpoints and the protected steps', once the newest has been read back.

    Raises RunError, with nothing deleted, where the disk holds something else than was written.
    """
    names = {folder_of(run_dir, step).name for step in protected}
    *_, newest = present = folders(run_dir)
    superfluous = [folder for folder in present[:-keep] if folder.name not in names]
    if superfluous:
        try:
            verify(newest)
        except Broken as error:
            raise RunError(
                "checkpoint not written as it should be", f"{newest}: {error}", "look at the disk"
            ) from error
    for folder in superfluous:
        doomed = folder.with_name(f"{TEMPORARY}{folder.name}")  # half a deletion must not look like a checkpoint
        folder.rename(doomed)
        shutil.rmtree(doomed)


def sweep(run_dir: Path) -> None:
    """Deletes what a killed process left behind, half written."""
    for path in (*run_dir.glob(f"{TEMPORARY}*"), *run_dir.glob(f"plots/{TEMPORARY}*")):
        if not path.is_dir():
            path.unlink()
    for folder in (run_dir / "checkpoints").glob(f"{REPLACED}*"):
        put_back(folder)
    for folder in (run_dir / "checkpoints").glob(f"{TEMPORARY}*"):
        shutil.rmtree(folder, ignore_errors=True)


def set_aside_after(folder: Path) -> None:
    """Renames the checkpoints that are newer than a good one, because they are broken: training will pass their steps
    again, and what is broken must not count among those that are kept."""
    for later in folders(folder.parents[1]):
        if later.name > folder.name:
            aside = later.with_name(f"{_BROKEN}{later.name}")
            if aside.exists():
                shutil.rmtree(aside)
            later.rename(aside)
            print(printable(f"note: the broken checkpoint is now called {aside}"), file=sys.stderr)
