"""The evaluate command line of all projects: python -m projects.NAME.evaluate MODEL.onnx DATA.

It measures an exported file on labeled data as the training measures its test: the same numbers by the same names, the
same plots, without torch. A project reads DATA, runs the file, and returns an Evaluation; this module does the rest.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from core.command_line import whole_number
from core.config import RunConfig, from_plain
from core.errors import UserError, printable, run_command, visible
from core.files import write_json
from core.inference import OnnxModel
from core.plain import to_plain
from core.plots import optional
from core.program import PROVIDERS, project_parser

C = TypeVar("C", bound=RunConfig)
Numbers = Mapping[str, float | int | None]
_SPLITS = ("test", "val", "train", "all")


@dataclass(frozen=True)
class Evaluation:
    """What a project measured. numbers: by the names of the training's summary, without the split in front of them;
    num: samples; details: more numbers, for metrics.json; plot: writes files into a folder."""

    numbers: Numbers
    num: int
    details: Mapping[str, Any]
    plot: Callable[[Path], object]


def parse_evaluate(
    config_class: type[RunConfig],
    data: str,
    argv: Sequence[str] | None = None,
    splits: Sequence[str] = _SPLITS,
    add: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> argparse.Namespace:
    """Reads an evaluate program's command line. Raises UserError.

    data: what DATA means; splits: its parts, the first of which is the default; add: adds a project's own flags.
    """
    parser = project_parser(config_class, "evaluate")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    parser.add_argument("data", metavar="DATA", help=data)
    part = f"which part of DATA; all takes everything in it, whatever its parts (default: {splits[0]})"
    parser.add_argument("--split", choices=splits, default=splits[0], help=part)
    parser.add_argument("--output", type=Path, metavar="DIR", help="a new folder for metrics.json and plots")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=whole_number, default=0, metavar="N", help="threads; 0: all cores (default)")
    parser.add_argument("--provider", choices=tuple(PROVIDERS), default="cpu", help="what computes (default: cpu)")
    add(parser)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.threads <= 1024:
        raise UserError("value out of range", f"--threads {arguments.threads}", "give 0 to 1024")
    output = arguments.output
    if output is not None and (output.exists() or not output.parent.is_dir()):
        raise UserError("not a new folder in one that exists", f"--output {output}", "give another path")
    return arguments


def run_evaluate(
    parse: Callable[[], argparse.Namespace],
    task: str,
    facts_class: type[Any],
    evaluate: Callable[[OnnxModel[Any], argparse.Namespace], Evaluation],
) -> None:
    """An evaluate program: reads the command line, measures, and leaves with the exit code of core.errors."""

    def main() -> None:
        arguments = parse()
        model = OnnxModel.named_by(arguments, task=task, facts=facts_class)
        _deliver(evaluate(model, arguments), model, arguments)

    run_command(main)


def training_settings(
    config_class: type[C], model: OnnxModel[Any], data: str, others: Mapping[str, Any] = MappingProxyType({})
) -> C:
    """The settings that a file was trained with, but for the data, which are now `data`, and `others`.

    Settings that came later than the file have their defaults. Raises UserError for those that are not known.
    """
    stored = model.metadata.get("training")
    given = {**to_plain(config_class()), **stored, "data": data, **others} if isinstance(stored, dict) else stored
    config = from_plain(config_class, given, f"the settings in {model.path}")
    config.check_present(resuming=True)
    return config


def note(text: str) -> None:
    """Prints on standard error what the user has to know of the data."""
    print(printable(f"note: {text}"), file=sys.stderr)


def no_such_split(split: str, data: object, there: Sequence[str]) -> UserError:
    """The error for a part that DATA does not have. there: the parts that it has."""
    return UserError("no such part", f"--split {split} of {data}", f"choose from {', '.join([*there, 'all'])}")


def _deliver(found: Evaluation, model: OnnxModel[Any], arguments: argparse.Namespace) -> None:
    """Prints the numbers beside those of the training, and writes metrics.json and the plots."""
    split, trained = arguments.split, model.metadata.get("metrics")
    numbers = {f"{split}_{name}": _for_json(value) for name, value in found.numbers.items()}
    numbers[f"num_{split}"] = found.num
    before = _of_training(numbers, split, trained if isinstance(trained, dict) else {})
    if arguments.json:
        print(json.dumps({**numbers, "details": found.details}, allow_nan=False))
    else:
        for name, value in numbers.items():
            then = before.get(name)
            told = f"   {_shown(then)} in the training" if isinstance(then, int | float) else ""
            print(visible(f"{name:<28}{_shown(value):>10}{told}"))
    if arguments.output is None:
        return
    arguments.output.mkdir()
    record = {
        "model": model.path.name,
        "model_sha256": hashlib.sha256(model.path.read_bytes()).hexdigest(),
        "project": model.metadata.get("project"),
        "split": split,
        **numbers,
        "details": found.details,
        "training": before,
    }
    write_json(arguments.output / "metrics.json", record)
    with optional():
        found.plot(arguments.output)
    if not arguments.json:
        names = sorted(str(path.relative_to(arguments.output)) for path in arguments.output.rglob("*.*"))
        print(visible(f"{arguments.output}: {', '.join(names)}"))


def _of_training(numbers: Numbers, split: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The training's own values of some numbers; of the test's, a summary names some without its split."""
    plain = {name: name.removeprefix("test_") if split == "test" else name for name in numbers}
    return {name: summary.get(name, summary.get(plain[name])) for name in numbers if {name, plain[name]} & set(summary)}


def _for_json(value: float | None) -> float | None:
    """A number as JSON can hold it: None in place of NaN and infinity."""
    return value if value is not None and np.isfinite(value) else None


def _shown(value: Any) -> str:
    """A number as the table shows it."""
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
