"""Small experiments on the classifier: python -m projects.cifar10.study NAME --data DIR.

init: how a network begins; gradients, activations: what hooks see in each layer, step by step; precision: fp32, bf16
and fp16 with and without torch.compile; optimizers: five of them under four schedules; networks: all side by side;
smaller: 8 bits, pruning and distillation; memory: gradient checkpointing. Each prints a table, and writes it with a
plot to --output.
"""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.command_line import Parser, add_options, flag
from core.config import check_bounds, project_of
from core.errors import UserError, run_command
from core.plain import to_plain
from projects.cifar10.config import Config
from projects.cifar10.study_options import OPTIONS, StudyOptions
from projects.cifar10.study_report import Report, markdown

_MODULE = "projects.cifar10.study"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study that the command line names."""
    words = list(sys.argv[1:] if argv is None else argv)
    name, options = parse(words)
    folder = options.output or Path("runs") / project_of(Config) / f"study-{name}"
    own = {folder / f"{name}.json", folder / f"{name}.png"}
    if folder.exists() and not (folder.is_dir() and set(folder.iterdir()) <= own):
        raise UserError("not a folder of this study", folder, "give another --output")
    report = run(name, options)
    about = {"study": name, "command": _command(words), "settings": _settings(options), "environment": _environment()}
    report.write(folder, name, about)
    print(markdown(report.rows, report.shown))
    print(f"\n{folder / name}.json, .png")


def parse(words: Sequence[str]) -> tuple[str, StudyOptions]:
    """The study's name and its options. Raises UserError."""
    first = Parser(_MODULE, (__doc__ or "").partition("\n")[0])
    first.add_argument("study", choices=OPTIONS, help="which; `python -m projects.cifar10.study NAME --help` has flags")
    name = first.parse_args(words[:1]).study
    parser, kind = Parser(f"{_MODULE} {name}"), OPTIONS[name]
    add_options(parser, kind)
    given = vars(parser.parse_args(words[1:]))
    given.pop("debug")
    small = {"data": "synthetic", "num_synthetic": 300, **kind.smoke_values} if given.get("smoke") else {}
    options = kind(**{**small, **given})
    check_bounds(options)
    for field in dataclasses.fields(options):  # those that the train program has too are checked with its settings
        value = getattr(options, field.name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and field.name != "seed"
        if is_number and not 0 < value <= 1e6:
            raise UserError("value out of range", f"{flag(field.name)} {value}", "give a number above 0, to a million")
    return name, options


def run(name: str, options: Any) -> Report:
    """The study's report. Raises UserError for data, a network or a size that cannot be."""
    from projects.cifar10 import (
        study_init,
        study_layers,
        study_memory,
        study_networks,
        study_optimizers,
        study_precision,
        study_smaller,
    )

    studies: dict[str, Callable[[Any], Report]] = {
        "init": study_init.study,
        "gradients": study_layers.study_gradients,
        "activations": study_layers.study_activations,
        "precision": study_precision.study,
        "optimizers": study_optimizers.study,
        "networks": study_networks.study,
        "smaller": study_smaller.study,
        "memory": study_memory.study,
    }
    return studies[name](options)


def _settings(options: StudyOptions) -> dict[str, Any]:
    """The options without the user's folders."""
    plain: dict[str, Any] = to_plain(options)
    plain.pop("output")
    return {**plain, "data": "DIR" if "/" in options.data else options.data}


def _command(words: Sequence[str]) -> str:
    """The command line without the user's folders."""
    kept: list[str] = []
    for word in words:
        if kept[-1:] == ["--output"]:
            kept.pop()
        else:
            kept.append("DIR" if "/" in word else word)
    return shlex.join(["python", "-m", _MODULE, *kept])


def _environment() -> dict[str, Any]:
    """Machine and versions."""
    from core.distributed import World
    from core.environment import environment

    return {key: value for key, value in environment(World()).items() if key != "command"}


if __name__ == "__main__":
    run_command(main)
