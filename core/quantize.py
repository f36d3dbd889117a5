"""8-bit copies of an ONNX file, and the report that says what they cost.

Weights use 7 of the 8 bits. Processors without VNNI add two products of unsigned and signed bytes in 16 bits, where the
sum is cut at 32,767: with 7 bits it never reaches that, so a file gives the same numbers on every machine. Follows
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html ("when to use reduce-range").
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from core.environment import instruction_set, processor
from core.errors import RunError
from core.files import temporary_beside, write_atomically, write_json
from core.parity import open_session, report_path

_MAX_ACCURACY_DROP = 0.01


@dataclass(frozen=True)
class HeldOut:
    """What an 8-bit copy is compared on.

    accuracy: the share of held-out samples that a file gets right. samples: their number and kind, as in "500
    validation images". timed: inputs by name, such as {"1 image": …}, whose time is measured. input_name: their name
    in the graph. num_samples: how many; where they are fewer than a hundred,
    one of them may be lost.
    """

    accuracy: Callable[[Path], float]
    samples: str
    timed: Mapping[str, NDArray[Any]]
    input_name: str
    num_samples: int = 0


def export_int8(source: Path, write: Callable[[Path, Path], None], held_out: HeldOut) -> Path:
    """Writes MODEL.int8.onnx with its report MODEL.int8.parity.json, and prints the comparison.

    write: `quantize_static` or `quantize_dynamic` with their settings bound. Raises RunError, with nothing written,
    where more than a hundredth of accuracy is lost, and more than one sample.
    """
    target = source.with_name(f"{source.stem}.int8.onnx")
    candidate = temporary_beside(target)
    try:
        write(source, candidate)
        paths = (source, candidate)
        accuracies = [held_out.accuracy(path) for path in paths]
        times = {name: milliseconds(paths, held_out.input_name, inputs) for name, inputs in held_out.timed.items()}
        sizes = [path.stat().st_size / 1e6 for path in paths]
        print(f"{'':<14}{'fp32':>10}{'int8':>10}")
        print(f"{'size':<14}{sizes[0]:>7.2f} MB{sizes[1]:>7.2f} MB")
        for name, (before, after) in times.items():
            print(f"{name:<14}{before:>7.2f} ms{after:>7.2f} ms   one thread")
        print(f"{'accuracy':<14}{accuracies[0]:>10.4f}{accuracies[1]:>10.4f}   {held_out.samples}")
        one_sample = 1.001 / held_out.num_samples if held_out.num_samples else 0.0
        if accuracies[1] < accuracies[0] - max(_MAX_ACCURACY_DROP, one_sample):
            drop = f"{100 * (accuracies[0] - accuracies[1]):.1f} points on {held_out.samples}"
            raise RunError("the 8-bit model loses too much", drop, f"use {source}; nothing else was written")
        candidate.replace(target)
    finally:
        candidate.unlink(missing_ok=True)
    report = {
        name: {
            "megabytes": sizes[number],
            "val_accuracy": accuracies[number],
            "milliseconds": {what: pair[number] for what, pair in times.items()},
        }
        for number, name in enumerate(("fp32", "int8"))
    }
    machine = f"{processor()}; {instruction_set()}"
    write_json(report_path(target), {**report, "measured_on": machine})
    print(f"{'measured on':<14}{machine}")
    print(target)
    return target


def quantize_static(
    source: Path, target: Path, *, input_name: str, calibration: Sequence[NDArray[Any]], kept: Sequence[str]
) -> None:
    """Writes a statically quantized copy: unsigned 8-bit activations, signed 7-bit weights per channel.

    calibration: batches of the run's own inputs. kept: operator types that stay in float.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Serves the calibration batches."""

        def __init__(self) -> None:
            self.batches: Iterator[NDArray[Any]] = iter(calibration)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            """The next batch by input name."""
            batch = next(self.batches, None)
            return None if batch is None else {input_name: batch}

    def write(prepared: Path, result: Path) -> None:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)  # it knows no Gather of rows
        quantization.quantize_static(
            str(prepared),
            str(result),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=[node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in kept],
        )

    _quantize(target, write)


def quantize_dynamic(source: Path, target: Path) -> None:
    """Writes a copy with signed 7-bit weights per channel, whose activations are quantized as they come.

    For LSTMs, embeddings and matrix products; networks of convolutions want `quantize_static`, which is faster there.
    """
    from onnxruntime import quantization

    def write(prepared: Path, result: Path) -> None:
        model = onnx.load(str(source))
        del model.graph.value_info[:]  # shapes of weights that quantization transposes (onnxruntime issue 25890)
        onnx.save(model, str(prepared))
        quantization.quantize_dynamic(
            str(prepared), str(result), per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8
        )

    _quantize(target, write)


def milliseconds(paths: Sequence[Path], input_name: str, inputs: NDArray[Any], rounds: int = 15) -> list[float]:
    """Median time of one run of each file on the same input, one thread each, measured in turns."""
    sessions = [open_session(path, threads=1) for path in paths]
    times: list[list[float]] = [[] for _ in paths]
    for turn in range(rounds + 2):
        for session, collected in zip(sessions, times, strict=True):
            began = time.perf_counter()
            session.run(None, {input_name: inputs})
            if turn >= 2:
                collected.append(1e3 * (time.perf_counter() - began))
    return [float(np.median(collected)) for collected in times]


def _quantize(target: Path, write: Callable[[Path, Path], None]) -> None:
    """Has `write(prepared, result)` fill two temporary files, and puts the result in place as a whole."""
    prepared, result = temporary_beside(target), temporary_beside(target)
    logging.getLogger().setLevel(logging.ERROR)
    try:
        write(prepared, result)
        write_atomically(target, result.read_bytes())
    finally:
        prepared.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
