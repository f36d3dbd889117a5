"""From a network to one ONNX file that has been compared with it, and from that to an 8-bit one.

The file is written under another name, checked with onnx, run with onnxruntime at the export's shape and at others,
and only then put in place: a graph that has frozen a dimension or a constant fails here. Export follows
https://docs.pytorch.org/docs/stable/onnx_export.html, quantization
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

import json
import logging
import time
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

from core import checkpoint
from core.config import RunConfig, read_json, to_plain
from core.errors import RunError, UserError
from core.inference import SCHEMA_VERSION
from core.run import git_commit, read_run

OPSET = 20
Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class ExportSpec:
    """What to export, and what to compare.

    module: raw inputs in, final answers out, in evaluation mode. example: inputs with no size of 1 and no two equal
    ones. dynamic_shapes: as torch.onnx.export takes it, names for free dimensions. output_shapes: sizes and names.
    parity_inputs: other shapes to compare at. tolerance: largest |onnx - torch|, absolute plus relative to the
    largest value of an output.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    input_names: Sequence[str]
    output_names: Sequence[str]
    dynamic_shapes: Any
    output_shapes: Sequence[Sequence[int | str]]
    parity_inputs: Sequence[tuple[Tensor, ...]]
    metadata: Mapping[str, Any]
    tolerance: float = 1e-4
    custom_translation_table: Mapping[Any, Any] = field(default_factory=dict)


def export_onnx(
    spec: ExportSpec, path: Path, comparison: Callable[[ExportSpec, Path], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Writes the ONNX file and returns the parity report, which also stands in its metadata and beside it.

    comparison: compares file and module in place of `compare`, which goes number by number. Raises RunError, with
    nothing left at `path` that was not there before, where onnxruntime and PyTorch differ.
    """
    temporary = path.with_name(f"{checkpoint.TEMPORARY}{path.name}")
    try:
        save_graph(spec, temporary)
        report = (comparison or compare)(spec, temporary)
        publish(temporary, path, {**spec.metadata, "parity": report})
    finally:
        temporary.unlink(missing_ok=True)
    checkpoint.write_atomically(report_path(path), json.dumps(report, indent=1).encode())
    return report


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
                opset_version=OPSET,
                verbose=False,
                input_names=list(spec.input_names),
                output_names=list(spec.output_names),
                dynamic_shapes=spec.dynamic_shapes,
                custom_translation_table=dict(spec.custom_translation_table) or None,
            )
        except Exception as error:
            cause = error.__cause__ or error
            raise RunError("the network cannot be exported", str(cause).splitlines()[0], "see --debug") from error
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # every node carries a stack trace with local paths
    for output, shape in zip(program.model.graph.outputs, spec.output_shapes, strict=True):
        output.shape = Shape(shape)
    program.save(str(path), external_data=False)


def compare(spec: ExportSpec, path: Path) -> dict[str, Any]:
    """Runs file and module on the same inputs; the report, or RunError for the first difference that is too large."""
    onnx.checker.check_model(str(path), full_check=True)
    session = open_session(path)
    rows = []
    with torch.inference_mode():
        for inputs in (spec.example, *spec.parity_inputs):
            outputs = spec.module(*inputs)
            expected = [o.numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,))]
            shapes = [list(tensor.shape) for tensor in inputs]
            try:
                names = zip(spec.input_names, inputs, strict=True)
                found = session.run(None, {name: tensor.numpy() for name, tensor in names})
            except Exception as error:
                message = str(error).splitlines()[0]
                raise RunError("the ONNX file does not run", f"input shapes {shapes}: {message}", DEFECT) from error
            worst = max(difference(a, b) for a, b in zip(found, expected, strict=True))
            rows.append({"input_shapes": shapes, "max_difference": worst})
            if not worst <= spec.tolerance:
                what = f"input shapes {shapes} differ by {worst:.3g}, allowed are {spec.tolerance:g}"
                raise RunError("the ONNX file does not equal the PyTorch network", what, DEFECT)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return {"tolerance": spec.tolerance, "checks": rows, "versions": versions, "opset": OPSET}


DEFECT = "this is a defect of the export; nothing was written"


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute difference over max(1, largest expected value); infinite for another shape, dtype or NaN."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if found.size == 0:
        return 0.0
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    return float(apart / max(1.0, np.abs(expected).max())) if np.isfinite(apart) else float("inf")


def publish(temporary: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata and puts the file in place as a whole."""
    model = onnx.load(str(temporary))
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    checkpoint.write_atomically(path, model.SerializeToString())


def report_path(path: Path) -> Path:
    """Where the parity report of an ONNX file stands."""
    return path.with_name(f"{path.stem}.parity.json")


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; 0 threads stands for all cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def chosen_checkpoint(run_dir: Path, choice: str, project: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A checkpoint's folder, its state, and the run's description. choice: best, last, or a step.

    Raises UserError where the run has none such, or it is broken.
    """
    run = read_run(run_dir, project)
    folder = checkpoint.best(run_dir) if choice == "best" else checkpoint.newest_good(run_dir)
    if choice not in ("best", "last"):
        if not choice.isascii() or not choice.isdigit():
            raise UserError("unknown checkpoint", f"--checkpoint {choice}", "give best, last, or a step")
        folder = folder.with_name(f"step-{int(choice):08d}")
    try:
        return folder, checkpoint.load(folder, project=project), run
    except checkpoint.Broken as error:
        there = ", ".join(str(int(f.name[5:])) for f in checkpoint.folders(run_dir))
        raise UserError("no such good checkpoint", f"{folder} ({error})", f"steps there: {there}") from error


def output_path(run_dir: Path, output: Path | None) -> Path:
    """Where an export is to write: RUN_DIR/model.onnx by default. Raises UserError where that folder is not there."""
    output = output or run_dir / "model.onnx"
    if not output.parent.is_dir():
        raise UserError("no such folder", output.parent, "make it, or give another --output")
    return output


def run_metadata(run_dir: Path, run: Mapping[str, Any], step: int, config: RunConfig, task: str) -> dict[str, Any]:
    """What every ONNX file says of itself: schema version, task, training settings, metrics, commit, versions."""
    summary: dict[str, Any] = {}
    if (run_dir / "summary.json").exists():
        summary = read_json(run_dir / "summary.json", "unreadable summary", "finish the run again")
        summary.pop("config", None)
    settings = {key: value for key, value in to_plain(config).items() if key != "data"}
    return {
        "schema_version": str(SCHEMA_VERSION),
        "project": run["project"],
        "task": task,
        "step": step,
        "training": settings,
        "metrics": summary,
        "commit_training": run["environment"]["commit"] or "unknown",
        "commit_export": git_commit() or "unknown",
    }


def quantize_int8(
    source: Path, target: Path, *, input_name: str, calibration: Sequence[NDArray[Any]], kept: Sequence[str]
) -> None:
    """Writes a statically quantized copy: unsigned 8-bit activations, signed 8-bit weights per channel.

    calibration: batches of the run's own inputs. kept: operator types that stay in float.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Serves the calibration batches."""

        def __init__(self) -> None:
            self.batches: Iterator[NDArray[Any]] = iter(calibration)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            """The next batch by input name."""
            batch = next(self.batches, None)
            return None if batch is None else {input_name: batch}

    prepared = target.with_name(f"{checkpoint.TEMPORARY}{target.name}.prepared")
    result = target.with_name(f"{checkpoint.TEMPORARY}{target.name}")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)  # it knows no Gather of rows
        excluded = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in kept]
        quantize_static(
            str(prepared),
            str(result),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=excluded,
        )
        checkpoint.write_atomically(target, result.read_bytes())
    finally:
        prepared.unlink(missing_ok=True)
        result.unlink(missing_ok=True)


def quantize_dynamic_int8(source: Path, target: Path) -> None:
    """Writes a copy with signed 8-bit weights per channel, whose activations are quantized as they come.

    For LSTMs, embeddings and matrix products; networks of convolutions want `quantize_int8`, which is faster there.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = target.with_name(f"{checkpoint.TEMPORARY}{target.name}.prepared")
    result = target.with_name(f"{checkpoint.TEMPORARY}{target.name}")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        model = onnx.load(str(source))
        del model.graph.value_info[:]  # shapes of weights that quantization transposes (onnxruntime issue 25890)
        onnx.save(model, str(prepared))
        quantize_dynamic(str(prepared), str(result), per_channel=True, weight_type=QuantType.QInt8)
        checkpoint.write_atomically(target, result.read_bytes())
    finally:
        prepared.unlink(missing_ok=True)
        result.unlink(missing_ok=True)


def milliseconds(paths: Sequence[Path], inputs: NDArray[Any], rounds: int = 15) -> list[float]:
    """Median time of one run of each file on the same input, one thread each, measured in turns."""
    sessions = [open_session(path, threads=1) for path in paths]
    name = sessions[0].get_inputs()[0].name
    times: list[list[float]] = [[] for _ in paths]
    for turn in range(rounds + 2):
        for session, collected in zip(sessions, times, strict=True):
            began = time.perf_counter()
            session.run(None, {name: inputs})
            if turn >= 2:
                collected.append(1e3 * (time.perf_counter() - began))
    return [float(np.median(collected)) for collected in times]
