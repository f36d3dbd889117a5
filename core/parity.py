"""The comparison of an exported file with its network: the same inputs through onnxruntime and PyTorch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import RunError
from core.export_spec import ExportSpec

DEFECT = "this is a defect of the export; nothing was written"
Arrays = Sequence[NDArray[Any]]


def compare_outputs(spec: ExportSpec, path: Path) -> dict[str, Any]:
    """Runs file and module on the same inputs; the report, or RunError for the first difference that is too large."""
    rows: list[dict[str, Any]] = []
    worst = (0.0, 0.0, spec.tolerance)  # share of what is allowed, difference, allowed
    for inputs, results, expected in run_both(spec, path):
        shapes = [list(tensor.shape) for tensor in inputs]
        with torch.inference_mode():
            exact = expected if spec.unrounded is None else [each.numpy() for each in spec.unrounded(*inputs)]
        rows.append({"input_shapes": shapes, "differences": {}})
        for name, result, rounded, value in zip(spec.outputs, results, expected, exact, strict=True):
            is_rounded = rounded.dtype != value.dtype
            apart = _beyond_rounding(result, rounded, value) if is_rounded else difference(result, rounded)
            is_float = np.issubdtype(result.dtype, np.floating)
            allowed = spec.rounding_tolerance if is_rounded else spec.tolerance if is_float else 0.0
            if not apart <= allowed:
                what = f"{name} at input shapes {shapes} differs by {apart:.3g}, allowed are {allowed:g}"
                raise RunError("the ONNX file does not equal the PyTorch network", what, DEFECT)
            rows[-1]["differences"][name] = apart
            worst = max(worst, (apart / allowed if allowed else 0.0, apart, allowed))
    limits = {"tolerance": spec.tolerance, "rounding_tolerance": spec.rounding_tolerance}
    return {**limits, "checks": rows, "summary": f"largest difference {worst[1]:.1e} (allowed {worst[2]:g})"}


def _beyond_rounding(result: NDArray[Any], rounded: NDArray[Any], exact: NDArray[Any]) -> float:
    """By how much more than half a unit integers differ from the numbers that were rounded to them.

    A difference of 1e-6 makes a whole unit where a number is halfway between two. Infinite as in `difference`.
    """
    if result.shape != exact.shape or result.dtype != rounded.dtype or not np.isfinite(exact).all():
        return float("inf")
    return float(max(0.0, np.abs(result.astype(np.float64) - exact).max(initial=0.0) - 0.5))


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


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; 0 threads stands for all cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def report_path(path: Path) -> Path:
    """Where the parity report of an ONNX file stands."""
    return path.with_name(f"{path.stem}.parity.json")
