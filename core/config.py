"""Settings as frozen dataclasses: read from a command line, written to run.json, read back, strict both ways.

A field made with `option` is a flag: `batch_size` is `--batch-size`, its annotation is its type (int, float, str,
bool, Path, Literal, or one of these `| None`), and its bounds hold wherever a value comes from. This module loads
no torch, so that a wrong flag is answered in a tenth of a second.
"""

import argparse
import dataclasses
import difflib
import json
import math
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from core.errors import UserError, run_command

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
    """What every run has. A project's Config adds its own fields, and redeclares one to change its default."""

    data: str = option("synthetic", "what to train on", harmless=False)
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
    deterministic: bool = option(False, "only deterministic kernels on a GPU; a CPU run always is")
    checkpoint_every: int | None = option(None, "steps between checkpoints, besides one an epoch", low=1, harmless=True)
    keep: int = option(2, "newest checkpoints to keep; the best one is kept as well", low=2, harmless=True)
    log_every: int = option(50, "steps between lines of metrics.jsonl", low=1)
    profile: bool = option(False, "record a few steps: Chrome trace and table in the run folder", harmless=True)

    def check(self) -> None:
        """Raises UserError where fields do not fit together. A project overrides it."""


@dataclass(frozen=True)
class Command(Generic[C]):
    """A parsed training command line."""

    config: C
    run_dir: Path | None
    resume: bool
    smoke: bool


def parse_training(
    config_class: type[C], program: str, smoke: Mapping[str, Any], argv: Sequence[str] | None = None
) -> Command[C]:
    """Reads a train program's command line.

    `smoke` holds the values that --smoke puts in place of the defaults. With --resume the run's own settings are
    the defaults, and only harmless ones may be given other values. Raises UserError.
    """
    parser = Parser(prog=f"python -m {program}", allow_abbrev=False)
    add_options(parser, config_class)
    parser.add_argument("--run-dir", type=Path, help="folder of this run (default: runs/<project>/<date>-<n>)")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="continue from its newest good checkpoint")
    parser.add_argument("--smoke", action="store_true", help="a short run on synthetic data that must learn")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    given = vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
    run_dir, resume = given.pop("run_dir"), given.pop("resume")
    use_smoke = given.pop("smoke")
    given.pop("debug")
    if resume is None:
        config = config_class(**{**(smoke if use_smoke else {}), **given})
    else:
        if run_dir is not None or use_smoke:
            other = "--run-dir" if run_dir is not None else "--smoke"
            raise UserError("options that exclude each other", f"--resume and {other}", "leave one out")
        stored = read_json(resume / "run.json", "not a run folder", "give a folder that a train program made")
        config = changed_for_resume(from_plain(config_class, stored.get("config"), resume / "run.json"), given)
    check(config)
    return Command(config, resume or run_dir, resume is not None, use_smoke)


def export_parser(program: str, *, int8: bool = False) -> "Parser":
    """The command line that all export programs have; a project may add to it."""
    parser = Parser(prog=f"python -m {program}", allow_abbrev=False)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a step (default: best)")
    parser.add_argument("--output", type=Path, help="where to write (default: RUN_DIR/model.onnx)")
    if int8:
        parser.add_argument("--int8", action="store_true", help="write an 8-bit copy too, and compare it")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    return parser


def answer_early(parse: Callable[[], object]) -> None:
    """Runs a program's parser for what it refuses or prints, before the program goes on to load torch."""
    try:
        parse()
    except UserError as error:
        refused = error

        def fail() -> None:
            raise refused

        run_command(fail)


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


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The settings as plain data for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}


def from_plain(config_class: type[C], data: Any, where: object) -> C:
    """The settings from plain data; unknown, missing, mistyped and out-of-range ones raise UserError by name."""
    if not isinstance(data, dict):
        raise UserError("no settings", where, "give a run folder that a train program made")
    hints = get_type_hints(config_class)
    names = {f.name for f in dataclasses.fields(config_class)}
    for name in [*sorted(set(data) - names), *sorted(names - set(data))]:
        problem = "unknown setting" if name in data else "missing setting"
        raise UserError(problem, f"{name} in {where}", "use the version of this project that made the run")
    values = {}
    for name, value in data.items():
        base, optional, choices = kind(hints[name])
        if not (value is None and optional):
            if base is float and type(value) is int and abs(value) < 2**63:
                value = float(value)
            if base is Path and isinstance(value, str):
                value = Path(value)
            if (not isinstance(value, base)) or (base is not bool and isinstance(value, bool)):
                raise UserError("wrong type of setting", f"{name} in {where}", f"it must be {base.__name__}")
            if choices and value not in choices:
                raise UserError("unknown value", f"{name} in {where}: {value}", f"choose from {', '.join(choices)}")
        values[name] = value
    config = config_class(**values)
    check(config)
    return config


def check(config: RunConfig) -> None:
    """Raises UserError for the first value outside its bounds, or fields that do not fit together."""
    for option_field in dataclasses.fields(config):
        value = getattr(config, option_field.name)
        bounds = option_field.metadata.get("bounds", {})
        if isinstance(value, int | float) and not isinstance(value, bool) and not within(value, bounds):
            raise UserError("value out of range", f"{flag(option_field.name)} {value}", f"give {in_words(bounds)}")
    config.check()


def within(value: float, bounds: Mapping[str, float | None]) -> bool:
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


def in_words(bounds: Mapping[str, float | None]) -> str:
    """Bounds as a sentence shows them."""
    words = {"low": "at least", "high": "at most", "above": "above", "below": "below"}
    parts = [f"{words[name]} {bound}" for name, bound in bounds.items() if bound is not None]
    return "a number " + " and ".join(parts) if parts else "a finite number"


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors of one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage."""
        unknown = re.fullmatch(r"unrecognized arguments: (.*)", message)
        if unknown:
            word = (unknown.group(1).split() or ["(an empty word)"])[0]
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(word.split("=")[0], known, n=1)
            todo = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
            raise UserError("unknown option", word, todo)
        wrong = re.fullmatch(r"argument (?:[^:]*/)?([^:]+): (.*)", message)
        if wrong:
            raise UserError("wrong value", f"{wrong.group(1)}: {wrong.group(2)}", f"see {self.prog} --help")
        raise UserError("wrong command line", message, f"see {self.prog} --help")


def add_options(parser: argparse.ArgumentParser, config_class: type) -> None:
    """Adds a flag for every field of a config dataclass; a flag that is not given leaves no attribute behind."""
    hints = get_type_hints(config_class)
    for option_field in dataclasses.fields(config_class):
        base, _, choices = kind(hints[option_field.name])
        meta, default = option_field.metadata, option_field.default
        text = meta["help"].replace("%", "%%") + f" (default: {'none' if default is None else default})"
        if base is bool:
            parser.add_argument(
                flag(option_field.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            converter = {int: whole_number, float: real_number}.get(base, base)
            metavar = None if choices else {int: "N", float: "X", Path: "PATH"}.get(base, "NAME")
            parser.add_argument(
                flag(option_field.name),
                type=converter,
                choices=choices or None,
                default=argparse.SUPPRESS,
                help=text,
                metavar=metavar,
            )


def kind(annotation: Any) -> tuple[type, bool, tuple[str, ...]]:
    """An annotation's base type, whether it may be None, and its closed choices."""
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        optional, annotation = len(rest) < len(get_args(annotation)), rest[0]
    if get_origin(annotation) is Literal:
        return str, optional, get_args(annotation)
    return annotation, optional, ()


def flag(name: str) -> str:
    """A field's flag."""
    return "--" + name.replace("_", "-")


def whole_number(text: str) -> int:
    """An int from plain ASCII digits; int() would take 1_000 and digits of other scripts too."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def real_number(text: str) -> float:
    """A finite float in plain ASCII notation."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or math.isinf(float(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return float(text)


def read_json(path: Path, what: str, todo: str) -> dict[str, Any]:
    """An object from a JSON file, without duplicate keys, NaN or infinity. Raises UserError(what, path, todo)."""
    try:
        data = json.loads(path.read_text("utf-8"), object_pairs_hook=without_duplicates, parse_constant=refuse)
    except OSError as error:
        raise UserError(what, f"{path} ({(error.strerror or 'unreadable').lower()})", todo) from error
    except (ValueError, RecursionError) as error:
        raise UserError(what, f"{path} ({error})", todo) from error
    if not isinstance(data, dict):
        raise UserError(what, f"{path} (not an object)", todo)
    return data


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key stands twice, of which json would silently keep the last."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def refuse(text: str) -> NoReturn:
    """Refuses NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{text} is not a JSON number")
