"""A project's smoke run with its exported files, made once for all tests: each of them looks at another promise."""

import pickle
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import Once, Program


class Smoke(NamedTuple):
    """The run's folder, and what `train --smoke` and `export` printed."""

    run_dir: Path
    trained: "subprocess.CompletedProcess[str]"
    exported: "subprocess.CompletedProcess[str]"


def smoke_run(
    project: str, program: Program, once: Once, *, train: Sequence[str] = (), export: Sequence[str] = ()
) -> Smoke:
    """Runs a project's two programs at the first call; `train` and `export` are flags beyond the run folder."""

    def fill(folder: Path) -> None:
        run_dir = folder / "run"
        trained = program(f"projects.{project}.train", "--smoke", *train, "--run-dir", run_dir)
        assert trained.returncode == 0, trained.stderr
        exported = program(f"projects.{project}.export", run_dir, *export)
        (folder / "said.pickle").write_bytes(pickle.dumps((trained, exported)))

    folder = once(f"smoke-{project}", fill)
    trained, exported = pickle.loads((folder / "said.pickle").read_bytes())
    return Smoke(folder / "run", trained, exported)
