"""A run on disk, read for what comes after training: its settings, its facts, and a checkpoint's weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from core import checkpoint
from core.config import RunConfig, from_plain, project_of
from core.errors import UserError
from core.learner import averaged_weights
from core.plain import from_plain as facts_from_plain
from core.run_record import read_run

C = TypeVar("C", bound=RunConfig)
F = TypeVar("F")


@dataclass(frozen=True)
class StoredRun(Generic[C, F]):
    """path: the run folder. step: of the checkpoint. state: what the checkpoint holds, without optimizers.
    commit: of the code that trained it."""

    path: Path
    config: C
    facts: F
    step: int
    state: Mapping[str, Any]
    commit: str

    def weights(self, prefix: str = "") -> dict[str, Tensor]:
        """The weights to export: averaged ones where the learner kept an average."""
        return averaged_weights(self.state, prefix)


def load_run(
    run_dir: Path, choice: str, config_class: type[C], facts_class: type[F], prefix: str = ""
) -> StoredRun[C, F]:
    """Reads a run's checkpoint. choice: best, last, or a step. prefix: of the learner whose weights are read.

    Raises UserError where the run has no such checkpoint, it is broken, or the folder is no run of this project.
    """
    where = run_dir / "run.json"
    body = read_run(run_dir, project_of(config_class))
    config = from_plain(config_class, body.get("config"), where)
    facts = facts_from_plain(facts_class, body.get("facts"), where)
    only = [f"{prefix}model", f"{prefix}ema", "loop"]
    state = _read_checkpoint(run_dir, choice, config.project, only)
    if not {f"{prefix}model", "loop"} <= set(state):
        raise UserError("the checkpoint lacks a part", f"{prefix}model or loop in {run_dir}", "train anew")
    step = int(state["loop"]["step"])
    environment = body.get("environment")
    commit = environment.get("commit") if isinstance(environment, dict) else None
    return StoredRun(run_dir, config, facts, step, state, str(commit or "unknown"))


def _read_checkpoint(run_dir: Path, choice: str, project: str, only: Sequence[str]) -> dict[str, Any]:
    """The parts of a checkpoint: best, last, or a step. Raises UserError where that is none, or not good."""
    if choice == "best":
        step = checkpoint.best_step(run_dir)
    elif choice == "last":
        step = None
    elif choice.isascii() and choice.isdigit() and len(choice) <= 18:
        step = int(choice)
    else:
        raise UserError("unknown checkpoint", f"--checkpoint {choice}", "give best, last, or a step")
    if step is None:
        return checkpoint.load_newest(run_dir, project=project, only=only)[1]
    folder = checkpoint.folder_of(run_dir, step)
    try:
        return checkpoint.load(folder, project=project, only=only)
    except checkpoint.Broken as error:
        good = ", ".join(map(str, checkpoint.good_steps(run_dir))) or "none"
        raise UserError("no such good checkpoint", f"{folder} ({error})", f"good ones are of steps: {good}") from error
