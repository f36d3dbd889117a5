"""The three command lines that every project has: train, export, infer. This module loads no torch.

A program calls `answer_early` before it imports torch, so that --help and a wrong flag are answered in a tenth of a
second, and its `run_…` function at the end.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from core.command_line import Parser, add_options, whole_number
from core.config import RunConfig, changed_for_resume, check, from_plain, module_of, option
from core.errors import UserError, run_command
from core.files import read_json
from core.folder_lock import refuse_links

C = TypeVar("C", bound=RunConfig)
O = TypeVar("O", bound="ExportOptions")  # noqa: E741
PROVIDERS = {  # what onnxruntime can compute with, by the names of --provider
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_MAX_THREADS = 1024


@dataclass(frozen=True)
class TrainCommand(Generic[C]):
    """A training's command line. run_dir: of a new run None for runs/<project>/<date>-<n>. began: time.perf_counter()
    when the program started."""

    config: C
    run_dir: Path | None = None
    resume: bool = False
    smoke: bool = False
    began: float = field(default_factory=time.perf_counter, compare=False)


def parse_training(config_class: type[C], argv: Sequence[str] | None = None) -> TrainCommand[C]:
    """Reads a train program's command line.

    With --resume the run's own settings are the defaults, and only harmless ones may be given other values. Raises
    UserError.
    """
    parser = project_parser(config_class, "train")
    add_options(parser, config_class)
    parser.add_argument("--run-dir", type=Path, help="folder of this run (default: runs/<project>/<date>-<n>)")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="continue from its newest good checkpoint")
    parser.add_argument("--smoke", action="store_true", help="a short run on synthetic data that must learn")
    given = vars(parser.parse_args(argv))
    run_dir, resume, smoke, _ = (given.pop(name) for name in ("run_dir", "resume", "smoke", "debug"))
    if resume is None:
        given = {**(config_class.smoke if smoke else {}), **given}
        config = config_class.from_given(given)
    else:
        if run_dir is not None or smoke:
            other = "--run-dir" if run_dir is not None else "--smoke"
            raise UserError("options that exclude each other", f"--resume and {other}", "leave one out")
        refuse_links(resume)
        stored = read_json(resume / "run.json", "not a run folder", "give a folder that a train program made")
        config = changed_for_resume(from_plain(config_class, stored.get("config"), resume / "run.json"), given)
    check(config)
    config.check_present(resuming=resume is not None)
    return TrainCommand(config, resume or run_dir, resume is not None, smoke)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The flags of every export program. A project's own class adds to them."""

    checkpoint: str = option("best", "best, last, or a step")
    output: Path | None = option(None, "where to write; none stands for RUN_DIR/model.onnx")
    package: Path | None = option(None, "a new folder, or FILE.zip, with model, card and plots, ready for the hub")


@dataclass(frozen=True, kw_only=True)
class Int8ExportOptions(ExportOptions):
    """The flags of an export program that can write an 8-bit copy."""

    int8: bool = option(False, "write an 8-bit copy too, and compare it")


@dataclass(frozen=True, kw_only=True)
class ProgramExportOptions(ExportOptions):
    """The flags of an export program that can write a torch.export program."""

    format: Literal["onnx", "onnx,pt2"] = option(
        "onnx", "onnx,pt2 writes a torch.export program (MODEL.pt2) too, and compares it"
    )


@dataclass(frozen=True, kw_only=True)
class ClassifierExportOptions(Int8ExportOptions, ProgramExportOptions):
    """The flags of an image classifier's export program."""


@dataclass(frozen=True)
class ExportCommand(Generic[O]):
    """An export's command line."""

    run_dir: Path
    options: O

    @property
    def output(self) -> Path:
        """Where to write. Raises UserError where that folder or the package's does not exist, or the package does."""
        path, package = self.options.output or self.run_dir / "model.onnx", self.options.package
        if not path.parent.is_dir():
            raise UserError("no such folder", path.parent, "make it, or give another --output")
        if package is not None and not package.parent.is_dir():
            raise UserError("no such folder", package.parent, "make it, or give another --package")
        if package is not None and package.exists():
            raise UserError("already there", f"--package {package}", "give another, or remove it")
        return path


def parse_export(
    config_class: type[RunConfig], options_class: type[O], argv: Sequence[str] | None = None
) -> ExportCommand[O]:
    """Reads an export program's command line. Raises UserError."""
    parser = project_parser(config_class, "export")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of the run")
    add_options(parser, options_class)
    given = vars(parser.parse_args(argv))
    run_dir, _ = given.pop("run_dir"), given.pop("debug")
    return ExportCommand(run_dir, options_class(**given))


class _InferParser(Parser):
    """Asks for at least one INPUT where the program needs one; --benchmark needs none."""

    needs_inputs = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Called by argparse's parse_args. Raises UserError."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if self.needs_inputs and not parsed.inputs and not parsed.benchmark and not unknown:
            self.error("the following arguments are required: INPUT")
        return parsed, unknown


def infer_parser(
    config_class: type[RunConfig], inputs: str | None, output: str | None, *, needs_inputs: bool = True
) -> Parser:
    """The part of the command line that all infer programs have; a project adds to it.

    inputs, output: what INPUT and --output mean; without a text the program has no such argument. needs_inputs:
    whether at least one INPUT has to be given, but for --benchmark.
    """
    parser = _InferParser(*_title(config_class, "infer"))
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    if inputs is not None:
        parser.needs_inputs = needs_inputs
        # With "*", argparse would take none of the words behind a flag.
        parser.add_argument("inputs", nargs="+", default=[], metavar="INPUT", help=inputs).required = False
    if output is not None:
        parser.add_argument("--output", type=Path, metavar="PATH", help=output)
        parser.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    parser.add_argument("--threads", type=_threads, default=0, metavar="N", help="threads; 0: all cores (default)")
    provider = "what onnxruntime computes with; refused where it cannot (default: cpu)"
    parser.add_argument("--provider", choices=tuple(PROVIDERS), default="cpu", help=provider)
    speed = "only measure milliseconds a call and inputs a second at batches of 1, 8 and 32"
    parser.add_argument("--benchmark", action="store_true", help=speed)
    return parser


def _threads(text: str) -> int:
    """A number of threads from a flag."""
    if not 0 <= (number := whole_number(text)) <= _MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give 0 to {_MAX_THREADS}")
    return number


def answer_early(parse: Callable[..., object], *arguments: object) -> None:
    """Parses the command line for what it refuses or prints, before the program goes on to import torch."""
    try:
        parse(*arguments)
    except UserError as error:
        refused = error

        def fail() -> None:
            raise refused

        run_command(fail)


def run_training(config_class: type[C], train: Callable[[TrainCommand[C]], None]) -> None:
    """A train program: reads the command line, trains, and leaves with the exit code of core.errors."""
    run_command(lambda: train(parse_training(config_class)), outlives_output=True)


def run_export(
    config_class: type[RunConfig], options_class: type[O], export: Callable[[ExportCommand[O]], Any]
) -> None:
    """An export program: reads the command line, exports, and leaves with the exit code of core.errors."""
    run_command(lambda: export(parse_export(config_class, options_class)), outlives_output=True)


def project_parser(config_class: type[RunConfig], program: str) -> Parser:
    """The parser of a program that stands beside the project's config.py; its help opens with the file's own text."""
    return Parser(*_title(config_class, program))


def _title(config_class: type[RunConfig], program: str) -> tuple[str, str | None]:
    """The full name of a program beside the project's config.py, and the first line of its text where it runs."""
    package = module_of(config_class).rpartition(".")[0]
    main = sys.modules["__main__"]
    own = main.__spec__ is not None and main.__spec__.name == f"{package}.{program}"
    return f"{package}.{program}", (main.__doc__ or "").partition("\n")[0] if own else None
