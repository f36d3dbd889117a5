"""Settings as frozen dataclasses: read from a command line, written to run.json, read back, strict both ways.

A field made with `option` is a flag: `batch_size` is `--batch-size`, its annotation is its type, and its bounds hold
wherever a value comes from. This module loads no torch, so that a wrong flag is answered in a tenth of a second.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

from core import plain
from core.command_line import flag
from core.errors import UserError

C = TypeVar("C", bound="RunConfig")
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    harmless: bool = False,
) -> Any:
    """A field that is a flag: `low` and `high` are allowed values, `above` and `below` are not; a `harmless` one
    may change on resume."""
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return field(default=default, metadata={"help": help, "harmless": harmless, "bounds": bounds})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has. A project's Config adds its own fields, and redeclares one to change its default.

    smoke: what --smoke puts in place of the defaults. defaults_for: by a setting and its value, what these put there,
    such as a shorter training with --data synthetic; what an earlier setting puts there holds.
    """

    smoke: ClassVar[Mapping[str, Any]] = {}
    defaults_for: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}

    data: str = option("synthetic", "what to train on", harmless=True)
    epochs: int = option(10, "passes over the training data", low=1, harmless=True)
    patience: int = option(0, "stop after this many evaluations without a better one; 0: never", low=0, harmless=True)
    max_steps: int | None = option(None, "stop after this many optimizer steps", low=1, harmless=True)
    batch_size: int = option(128, "samples of one forward pass, over all ranks together", low=1)
    lr: float = option(1e-3, "peak learning rate", above=0)
    weight_decay: float = option(0.0, "weight decay of matrices and filters; none for biases and norms", low=0)
    seed: int = option(0, "seed of everything random", low=0, high=2**31 - 1)
    device: Device = option("auto", "where to compute; auto takes a GPU if there is one", harmless=True)
    precision: Precision = option("auto", "auto takes bf16 where the device computes it natively, fp32 elsewhere")
    workers: int = option(0, "processes that load data; 0 loads in the training process", low=0, harmless=True)
    accumulate: int = option(1, "batches summed up into one optimizer step", low=1)
    clip_norm: float | None = option(None, "largest norm of the whole gradient", above=0)
    ema: float = option(0.0, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    compile: bool = option(False, "compile the network with torch.compile")
    graph: Literal["auto", "yes", "no"] = option(
        "auto", "replay train steps as CUDA graphs; auto: on one GPU where the project's steps allow it", harmless=True
    )
    deterministic: bool = option(False, "only deterministic kernels on a GPU; a CPU run always is")
    checkpoint_every: int | None = option(None, "steps between checkpoints, besides one an epoch", low=1, harmless=True)
    keep: int = option(2, "newest checkpoints to keep; the best one is kept as well", low=2, harmless=True)
    log_every: int = option(50, "steps between lines of metrics.jsonl", low=1)
    profile: bool = option(False, "record a few steps: Chrome trace and table in the run folder", harmless=True)

    @classmethod
    def from_given(cls, given: Mapping[str, Any]) -> Self:
        """The settings as given; the others as defaults_for has them for these, or else the defaults."""
        settings = dict(given)
        for name, of_value in cls.defaults_for.items():
            settings = {**of_value.get(settings.get(name, getattr(cls, name)), {}), **settings}
        return cls(**settings)

    @property
    def project(self) -> str:
        """The project that these settings belong to: the name of its folder."""
        return project_of(type(self))

    def check(self) -> None:
        """Raises UserError where fields do not fit together; looks at no file. A project overrides it."""

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError where a file that the training needs is not there. A project overrides it.

        resuming: the run has been started before, so what it keeps in its own folder need not be anywhere else.
        """


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What every run knows beyond its settings; export and inference read it. A project's Facts adds its own fields.

    model: the network's name. num_train: training samples. data_sha256: tells these data from others, whatever place
    they lie at.
    """

    model: str
    num_train: int
    data_sha256: str


def project_of(config_class: type[RunConfig]) -> str:
    """The project's name: that of the folder in which its Config is declared, as in projects/<name>/config.py."""
    return module_of(config_class).split(".")[-2]


def module_of(config_class: type[RunConfig]) -> str:
    """The full name of the module that declares a Config, also where that module is the program that runs."""
    spec = sys.modules[config_class.__module__].__spec__
    return config_class.__module__ if spec is None else spec.name


def from_plain(config_class: type[C], data: Any, where: object) -> C:
    """The settings from plain data. Raises UserError for an unknown, missing, mistyped or out-of-range one by name."""
    config = plain.from_plain(config_class, data, where)
    check(config)
    return config


def check(config: RunConfig) -> None:
    """Raises UserError for the first value outside its bounds, or fields that do not fit together."""
    check_bounds(config)
    config.check()


def check_bounds(options: Any) -> None:
    """Raises UserError for the first value of a dataclass with options that is outside its bounds."""
    for option_field in dataclasses.fields(options):
        value = getattr(options, option_field.name)
        bounds = option_field.metadata.get("bounds", {})
        if isinstance(value, int | float) and not isinstance(value, bool) and not _within(value, bounds):
            raise UserError("value out of range", f"{flag(option_field.name)} {value}", f"give {_in_words(bounds)}")


def changed_for_resume(config: C, given: Mapping[str, Any]) -> C:
    """The stored settings with the given ones, where these are equal or harmless. Raises UserError by name."""
    for option_field in dataclasses.fields(config):
        name, harmless = option_field.name, option_field.metadata.get("harmless")
        old = getattr(config, name)
        if name in given and given[name] != old and not harmless:
            raise UserError(
                "this setting cannot change on resume",
                f"{flag(name)} was {old}, now {given[name]}",
                "leave it out, or start a new run",
            )
    return dataclasses.replace(config, **given)


def _within(value: float, bounds: Mapping[str, float | None]) -> bool:
    """Whether a number lies inside its bounds and is finite."""
    low, high, above, below = (bounds.get(name) for name in ("low", "high", "above", "below"))
    return (
        (isinstance(value, float) or abs(value) < 2**63)
        and math.isfinite(value)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _in_words(bounds: Mapping[str, float | None]) -> str:
    """Bounds as a message shows them."""
    words = {"low": "at least", "high": "at most", "above": "above", "below": "below"}
    parts = [f"{words[name]} {bound}" for name, bound in bounds.items() if bound is not None]
    return "a number " + " and ".join(parts) if parts else "a finite number"
