"""From a network to one ONNX file that has been compared with it.

The file is written under another name, checked with onnx, run with onnxruntime at the export's shape and at others,
and only then put in place: a graph that has frozen a dimension or a constant fails here. Follows
https://docs.pytorch.org/docs/stable/onnx_export.html.
"""

import json
import logging
import os
import shlex
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from core.environment import git_commit
from core.errors import RunError
from core.export_spec import ExportSpec
from core.files import read_json, temporary_beside, write_atomically, write_json
from core.inference import SCHEMA_VERSION
from core.model_card import write_card, write_package
from core.parity import compare_outputs, report_path
from core.plain import to_plain
from core.program import ExportCommand
from core.stored_run import StoredRun

_OPSET = 20


def export_onnx(
    spec: ExportSpec,
    run: StoredRun[Any, Any],
    path: Path,
    compare: "Callable[[ExportSpec, Path], dict[str, Any]] | None" = None,
) -> dict[str, Any]:
    """Writes the ONNX file, says so, and returns the parity report, which also stands in its metadata and beside it.

    compare: compares file and module in place of `compare_outputs`, which goes number by number; its report has
    "checks" and "summary". Raises RunError, with nothing left at `path` that was not there before, where onnxruntime
    and PyTorch differ.
    """
    temporary = temporary_beside(path)
    try:
        save_graph(spec, temporary)
        report = (compare or compare_outputs)(spec, temporary)
        versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        report = {**report, "versions": versions, "opset": _OPSET}
        _publish(temporary, path, {**_metadata(spec, run), "parity": report})
    finally:
        temporary.unlink(missing_ok=True)
    write_json(report_path(path), report)
    print(f"{path}  {path.stat().st_size / 1e6:.2f} MB, weights of step {run.step}")
    print(f"{'parity':<14}{len(report['checks'])} shapes, {report['summary']}")
    write_card(path, run.path)
    return report


def finish_export(command: ExportCommand[Any], run: StoredRun[Any, Any], inputs: str) -> None:
    """Writes the package if it is asked for, and prints the command that uses the file, with `inputs` behind it."""
    path, options = command.options.output or command.run_dir / "model.onnx", command.options
    if options.package is not None:
        write_package(options.package, path, run.path, int8=getattr(options, "int8", False))
    print(f"{'next':<14}python -m projects.{run.config.project}.infer {shlex.quote(str(path))} {inputs}")


def save_graph(spec: ExportSpec, path: Path) -> None:
    """Exports the module's graph as one self-contained file without metadata."""
    from onnx_ir import Shape
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    for name in ("torch.onnx", "torch._subclasses"):  # what fails is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notes on its own internals
        try:
            program = torch.onnx.export(
                spec.module.eval(),
                spec.example,
                dynamo=True,
                opset_version=_OPSET,
                verbose=False,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=spec.dynamic_shapes,
                custom_translation_table=dict(spec.custom_translation_table) or None,
            )
        except Exception as error:
            cause = error.__cause__ or error
            raise RunError("the network cannot be exported", str(cause).splitlines()[0], "see --debug") from error
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # every node carries a stack trace with local paths
    for node in program.model.graph:
        if node.op_type == "LSTM":  # torch 2.11 writes down a dimension too many
            for value in node.outputs:
                value.shape = None
    for output, shape in zip(program.model.graph.outputs, spec.output_shapes, strict=True):
        output.shape = Shape(shape)
    program.save(str(path), external_data=False)


def _metadata(spec: ExportSpec, run: StoredRun[Any, Any]) -> dict[str, Any]:
    """What the file says of itself: schema version, task, facts, training settings, metrics, commits."""
    summary: dict[str, Any] = {}
    if (run.path / "summary.json").exists():
        summary = read_json(run.path / "summary.json", "unreadable summary", "finish the run again")
        summary.pop("config", None)
    return {
        "schema_version": SCHEMA_VERSION,
        "project": run.config.project,
        "task": spec.task,
        "pipeline_tag": spec.pipeline_tag,
        "usage": spec.usage,
        "facts": to_plain(spec.facts),
        "inputs": dict(spec.inputs),
        "outputs": dict(spec.outputs),
        "step": run.step,
        "training": {key: _without_folders(value) for key, value in vars(run.config).items() if key != "data"},
        "metrics": summary,
        "commit_training": run.commit,
        "commit_export": git_commit() or "unknown",
    }


def _without_folders(value: Any) -> Any:
    """A setting without the folders of paths in it, which are of the machine that trained: "/a/b.jpg" is "b.jpg"."""
    if isinstance(value, tuple):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and os.sep in value:
        prefix, colon, path = value.rpartition(":")
        if Path(path).is_absolute() or Path(path).exists():  # not the / in 0.7/0.1/0.2 or in %d/%m/%Y
            return f"{prefix}{colon}{Path(path).name}"
    return value.name if isinstance(value, Path) else value


def _publish(temporary: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata, each value as JSON, and puts the file in place as a whole."""
    model = onnx.load(str(temporary))
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    write_atomically(path, model.SerializeToString())
