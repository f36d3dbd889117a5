"""What a sweep searches: ranges and lists of a program's own settings, checked against their declared bounds.

    lr=log:1e-3:1        between two numbers, as likely in each decade; lr=log:1e-3:1:7 is seven of them for a grid
    momentum=0.8:0.99    between two numbers, all as likely; likewise momentum=0.8:0.99:3
    optimizer=sgd,adamw  a list

Loads no torch, unless the program declares its Config itself.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from core.command_line import flag, positive_number, real_number, whole_number
from core.config import RunConfig
from core.errors import UserError
from core.plain import kind
from core.program import parse_training

_NOT_SEARCHED = ("data", "seed", "device", "profile", "keep", "checkpoint_every", "log_every", "workers")
_DIGITS = 4  # of a sampled number: a command line that a person can read, and far finer than any search


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched. values: the list, or a grid's points; empty for a range between low and high.

    is_whole: whether the values are ints. is_log: whether a range, or a grid's points, are even in the logarithm.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that have to be allowed for all to be."""
        return self.values or (self._used(self.low), self._used(self.high))

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.extremes)

    def suggest(self, trial: Any, *, is_grid: bool) -> Any:
        """The value of an optuna trial. is_grid: the points of a grid are drawn from the range that holds them."""
        if self.values and not (is_grid and self.is_numeric):
            return trial.suggest_categorical(self.name, self.values)
        low, high = (min(self.values), max(self.values)) if self.values else (self.low, self.high)
        if self.is_whole:
            return trial.suggest_int(self.name, int(low), int(high), log=self.is_log)
        return self._used(trial.suggest_float(self.name, low, high, log=self.is_log))

    def _used(self, value: float) -> float:
        """A sampled number with few digits, still inside the range."""
        return int(value) if self.is_whole else min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class SearchSpace:
    """The dimensions of a search in a program's settings. fixed: flags that every run gets."""

    config_class: type[RunConfig]
    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    @classmethod
    def parse(cls, program: str, searches: Sequence[str], fixed: Sequence[str]) -> "SearchSpace":
        """From a program's module and the words of --search. Raises UserError for what the program would refuse."""
        config_class = _config_of(program)
        dimensions = tuple(_dimension(config_class, text) for text in searches)
        names = [dimension.name for dimension in dimensions]
        for name in names:
            if names.count(name) > 1:
                raise UserError("searched twice", f"--search {name}", "give each setting once")
        given = {word.partition("=")[0] for word in fixed}
        for word in (*(flag(name) for name in names), *(f"--no-{flag(name)[2:]}" for name in names)):
            if word in given:
                raise UserError("both fixed and searched", word, "leave one out")
        for word in {"--run-dir", "--resume", "--debug", "--help", "-h"} & given:
            raise UserError("not a setting", f"{word} after --", "the sweep chooses its runs' folders")
        space = cls(config_class, dimensions, tuple(fixed))
        space._check()
        return space

    def points(self) -> list[tuple[Any, ...]]:
        """All points of a grid. Raises UserError for a range without a number of points."""
        for dimension in self.dimensions:
            if not dimension.values:
                spec = f"--search {dimension.name}"
                raise UserError("a grid needs points", spec, "give a list, or a range with a number: 0.001:1:5")
        return list(itertools.product(*(dimension.values for dimension in self.dimensions)))

    def flags(self, values: Mapping[str, Any]) -> list[str]:
        """The flags of a program for values by name. None stands for leaving a flag out."""
        words: list[str] = []
        for name, value in values.items():
            if isinstance(value, bool):
                words.append(flag(name) if value else f"--no-{flag(name)[2:]}")
            elif value is not None:
                words += [flag(name), str(value)]
        return words

    def base(self) -> RunConfig:
        """The settings of a run in which nothing is searched."""
        return parse_training(self.config_class, list(self.fixed)).config

    def _check(self) -> None:
        """Raises UserError for a value that the program refuses, with the first value of every other dimension."""
        first = {dimension.name: dimension.extremes[0] for dimension in self.dimensions}
        for dimension in self.dimensions:
            for value in dimension.extremes:
                parse_training(self.config_class, [*self.fixed, *self.flags({**first, dimension.name: value})])


def _config_of(program: str) -> type[RunConfig]:
    """The settings of a train program: Config of the module config beside it, or its own. Raises UserError."""
    what, todo = "not a train program", "name its module, as after python -m"
    if not all(word.isidentifier() for word in program.split(".")):
        raise UserError(what, program, todo)
    beside = f"{program.rpartition('.')[0]}.config".lstrip(".")
    try:
        if importlib.util.find_spec(program) is None:
            raise UserError(what, f"{program} (no such module)", todo)
        module = importlib.import_module(beside if importlib.util.find_spec(beside) is not None else program)
    except ImportError as error:
        raise UserError(what, f"{program} ({error})", todo) from error
    found = getattr(module, "Config", None)
    if not isinstance(found, type) or not issubclass(found, RunConfig):
        raise UserError(what, f"{program} (no Config of settings in {module.__name__})", todo)
    return found


def _dimension(config_class: type[RunConfig], text: str) -> Dimension:
    """A dimension from a --search. Raises UserError."""
    name, equals, spec = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    known = [field for field in fields if field not in _NOT_SEARCHED]
    if name not in known:
        raise UserError("no setting to search", f"--search {text}", f"choose from {', '.join(known)}")
    base, optional, _ = kind(get_type_hints(config_class)[name])
    if not equals or not spec or get_origin(base) is tuple:
        raise UserError("nothing to search", f"--search {text}", "give NAME=LOW:HIGH, log:LOW:HIGH or A,B,...")
    try:
        if base in (int, float) and ":" in spec:
            return _range(name, base, spec)
        may_be_none = optional and fields[name].default is None
        values = tuple(_value(base, word, may_be_none) for word in spec.split(","))
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise UserError("wrong search", f"--search {text} ({error})", "see --help") from error
    if len(set(values)) < len(values):
        raise UserError("a value stands twice", f"--search {text}", "give each once")
    return Dimension(
        name, values, low=-math.inf, high=math.inf, is_whole=base is int and all(type(v) is int for v in values)
    )


def _range(name: str, base: type, spec: str) -> Dimension:
    """A range, or evenly spaced points of it. Raises ValueError or ArgumentTypeError."""
    words = spec.split(":")
    is_log = words[0] == "log"
    ends, points = words[is_log : is_log + 2], words[is_log + 2 :]
    if len(ends) < 2 or len(points) > 1:
        raise ValueError("give LOW:HIGH, with log: before it, and for a grid :N behind it")
    read = whole_number if base is int else real_number
    low, high = (read(word) for word in ends)
    if not low < high or (is_log and low <= 0):
        raise ValueError("LOW has to be below HIGH" if not low < high else "a logarithm needs LOW above 0")
    made = Dimension(name, (), low, high, is_log, base is int)
    if not points:
        return made
    num = positive_number(points[0])
    shares = [index / max(1, num - 1) for index in range(num)]
    spaced = [low * (high / low) ** share if is_log else low + (high - low) * share for share in shares]
    values = dict.fromkeys(round(value) if base is int else made._used(value) for value in spaced)
    return dataclasses.replace(made, values=tuple(values))


def _value(base: Any, word: str, may_be_none: bool) -> Any:
    """One value of a list. Raises ValueError or ArgumentTypeError."""
    if word == "none" and may_be_none:
        return None
    if base is bool:
        if word not in ("true", "false"):
            raise ValueError(f"{word!r} is neither true nor false")
        return word == "true"
    return {int: whole_number, float: real_number}.get(base, str)(word)
