"""A sweep's settings, as its folder keeps them, and what optuna makes of them. Loads no torch."""

import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from core.errors import UserError
from core.files import read_json, write_json

_FORMAT = 1
_RANDOM_TRIALS = 8  # before TPE has seen enough to choose


@dataclass(frozen=True)
class Sweep:
    """A sweep's settings. search, fixed: the words of --search, and of the flags that every run gets."""

    program: str
    search: tuple[str, ...]
    fixed: tuple[str, ...]
    sampler: str
    pruner: str
    seeds: int
    sampler_seed: int
    trials: int

    @contextmanager
    def study(self, folder: Path, epochs: int) -> Iterator[Any]:
        """The optuna study in a sweep's folder, which minimizes; its file is open within. epochs: of a run, with an
        evaluation after each."""
        optuna = load_optuna()
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{folder / 'study.sqlite'}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
        pruners = {
            "none": optuna.pruners.NopPruner,
            # Not in the first half: a high learning rate often begins worst and ends best.
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(2, epochs // 2)),
            "hyperband": optuna.pruners.HyperbandPruner,
        }
        try:
            yield optuna.create_study(
                storage=storage, study_name="sweep", load_if_exists=True, pruner=pruners[self.pruner]()
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def sampler_of(self, number: int) -> Any:
        """The sampler of one trial: random by the sweep's seed and the trial's number, whichever process asks."""
        samplers, seed = load_optuna().samplers, (self.sampler_seed * 1_000_003 + number) % 2**32
        if self.sampler != "tpe":  # a grid's points are given
            return samplers.RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some releases call a flag of this experimental
            return samplers.TPESampler(
                seed=seed, n_startup_trials=_RANDOM_TRIALS, multivariate=False, constant_liar=True
            )

    @property
    def command(self) -> str:
        """The command line that begins it, without its folder."""
        words = ["python", "-m", "core.sweep", self.program]
        for text in self.search:
            words += ["--search", text]
        for name in ("sampler", "pruner", "seeds", "sampler_seed", "trials"):
            words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        return shlex.join([*words, *(["--", *self.fixed] if self.fixed else [])])

    def write(self, folder: Path) -> None:
        """Writes sweep.json. Raises OSError."""
        write_json(folder / "sweep.json", {"format": _FORMAT, **vars(self)})

    @classmethod
    def read(cls, folder: Path) -> "Sweep":
        """Reads what write wrote. Raises UserError for a folder of no sweep, or of another version's."""
        path = folder / "sweep.json"
        body = read_json(path, "not a sweep's folder", "give a folder that core.sweep made")
        try:
            if body.pop("format") != _FORMAT:
                raise ValueError("another format")
            return cls(**{**body, "search": tuple(body["search"]), "fixed": tuple(body["fixed"])})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("not a sweep of this version", path, "start a new one") from error


def load_optuna() -> ModuleType:
    """The library that chooses settings, silent about its own progress. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError("optuna is not installed", error, "python -m pip install -e '.[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    module: ModuleType = optuna
    return module
