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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.environment import git_commit
from core.errors import RunError
from core.files import read_json, temporary_beside, write_atomically, write_json
from core.inference import SCHEMA_VERSION
from core.plain import to_plain
from core.stored_run import StoredRun

_OPSET = 20
DEFECT = "this is a defect of the export; nothing was written"
Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class ExportSpec:
    """What to export, and what to compare.

    module: raw inputs in, final answers out, in evaluation mode. task: what the file is for, in a few words.
    facts: the dataclass that inference reads. inputs, outputs: what the graph takes and gives, by name, in words.
    example: inputs with no size of 1 and no two equal ones. dynamic_shapes: as torch.onnx.export takes it, names for
    free dimensions. output_shapes: sizes and names. parity_inputs: other shapes to compare at. tolerance: largest
    |onnx - torch| of floating-point outputs, divided by max(1, largest value). whole_number_tolerance: the same of
    integer outputs, undivided.
    """

    module: nn.Module
    task: str
    facts: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    example: tuple[Tensor, ...]
    dynamic_shapes: Any
    output_shapes: Sequence[Sequence[int | str]]
    parity_inputs: Sequence[tuple[Tensor, ...]]
    tolerance: float = 1e-4
    whole_number_tolerance: int = 0
    custom_translation_table: Mapping[Any, Any] = field(default_factory=dict)


def export_onnx(
    spec: ExportSpec,
    run: StoredRun[Any, Any],
    path: Path,
    compare: "Callable[[ExportSpec, Path], dict[str, Any]] | None" = None,
) -> dict[str, Any]:
    """Writes the ONNX file, says so, and returns the parity report, which also stands in its metadata and beside it.

    compare: compares file and module in place of `_compare_outputs`, which goes number by number; its report has
    "checks" and "summary". Raises RunError, with nothing left at `path` that was not there before, where onnxruntime
    and PyTorch differ.
    """
    temporary = temporary_beside(path)
    try:
        save_graph(spec, temporary)
        report = (compare or _compare_outputs)(spec, temporary)
        versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        report = {**report, "versions": versions, "opset": _OPSET}
        _publish(temporary, path, {**_metadata(spec, run), "parity": report})
    finally:
        temporary.unlink(missing_ok=True)
    write_json(report_path(path), report)
    print(f"{path}  {path.stat().st_size / 1e6:.2f} MB, weights of step {run.step}")
    print(f"{'parity':<14}{len(report['checks'])} shapes, {report['summary']}")
    return report


def print_next(run: StoredRun[Any, Any], path: Path, inputs: str) -> None:
    """Prints the command that uses the file. inputs: what stands behind it on the command line."""
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


def _compare_outputs(spec: ExportSpec, path: Path) -> dict[str, Any]:
    """Runs file and module on the same inputs; the report, or RunError for the first difference that is too large."""
    rows: list[dict[str, Any]] = []
    for inputs, results, expected in run_both(spec, path):
        shapes = [list(tensor.shape) for tensor in inputs]
        differences = [difference(a, b) for a, b in zip(results, expected, strict=True)]
        rows.append({"input_shapes": shapes, "max_difference": max(differences)})
        for name, array, apart in zip(spec.outputs, expected, differences, strict=True):
            allowed = spec.tolerance if np.issubdtype(array.dtype, np.floating) else spec.whole_number_tolerance
            if not apart <= allowed:
                what = f"{name} at input shapes {shapes} differs by {apart:.3g}, allowed are {allowed:g}"
                raise RunError("the ONNX file does not equal the PyTorch network", what, DEFECT)
    worst = max(row["max_difference"] for row in rows)
    return {
        "tolerance": spec.tolerance,
        "checks": rows,
        "summary": f"largest difference {worst:.1e} (allowed {spec.tolerance or spec.whole_number_tolerance:g})",
    }


def run_both(spec: ExportSpec, path: Path) -> Iterator[tuple[tuple[Tensor, ...], Arrays, Arrays]]:
    """Yields inputs, the file's outputs and the module's, for the example and all parity inputs.

    Raises RunError where onnx finds the file faulty or onnxruntime cannot run it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        session = open_session(path)
    except Exception as error:  # of onnx, protobuf and onnxruntime
        raise RunError("the ONNX file is not valid", str(error).splitlines()[0], DEFECT) from error
    for inputs in (spec.example, *spec.parity_inputs):
        with torch.inference_mode():
            outputs = spec.module(*inputs)
        expected = [o.numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,))]
        try:
            feed = {name: tensor.numpy() for name, tensor in zip(spec.inputs, inputs, strict=True)}
            results = session.run(None, feed)
        except Exception as error:
            shapes, message = [list(tensor.shape) for tensor in inputs], str(error).splitlines()[0]
            raise RunError("the ONNX file does not run", f"input shapes {shapes}: {message}", DEFECT) from error
        yield inputs, results, expected


def difference(result: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute difference; of floating-point numbers divided by max(1, largest expected value).

    Infinite for another shape, dtype or NaN.
    """
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return float("inf")
    if result.size == 0:
        return 0.0
    apart = np.abs(result.astype(np.float64) - expected.astype(np.float64)).max()
    scale = max(1.0, np.abs(expected).max()) if np.issubdtype(expected.dtype, np.floating) else 1.0
    return float(apart / scale) if np.isfinite(apart) else float("inf")


def report_path(path: Path) -> Path:
    """Where the parity report of an ONNX file stands."""
    return path.with_name(f"{path.stem}.parity.json")


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; 0 threads stands for all cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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
        "facts": to_plain(spec.facts),
        "inputs": dict(spec.inputs),
        "outputs": dict(spec.outputs),
        "step": run.step,
        "training": {key: _without_folders(value) for key, value in to_plain(run.config).items() if key != "data"},
        "metrics": summary,
        "commit_training": run.commit,
        "commit_export": git_commit() or "unknown",
    }


def _without_folders(value: Any) -> Any:
    """A setting without the folders of paths in it, which are of the machine that trained: "/a/b.jpg" is "b.jpg"."""
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and os.sep in value:
        prefix, colon, path = value.rpartition(":")
        return f"{prefix}{colon}{Path(path).name}"
    return value


def _publish(temporary: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata, each value as JSON, and puts the file in place as a whole."""
    model = onnx.load(str(temporary))
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    write_atomically(path, model.SerializeToString())
