"""How fast an exported file is on this machine: milliseconds a call and inputs a second at several batch sizes."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from core.errors import printable
from core.inference import OnnxModel

_BATCH_SIZES = (1, 8, 32)
_SECONDS, _MIN_CALLS, _MAX_CALLS = 1.0, 3, 200  # of each batch size, after one call that is not counted

Inputs = Mapping[str, NDArray[Any]]


def benchmark(model: OnnxModel[Any], example: Callable[[int], Inputs], *, as_json: bool) -> None:
    """Measures a file and prints a table, or with as_json an object a batch size: medians of many calls.

    example: makes the inputs of a batch of so many.
    """
    shapes = ", ".join(f"{name} {_shape(array)}" for name, array in example(1).items())
    threads = model.threads or "all"
    if not as_json:
        print(printable(f"{model.path}: {model.provider}, threads: {threads}, onnxruntime {onnxruntime.__version__}"))
        print(printable(f"inputs: {shapes}"))
        print(f"{'batch':>5}  {'ms a call':>10}  {'inputs/s':>10}  {'calls':>5}", flush=True)
    for batch_size in _BATCH_SIZES:
        milliseconds = _milliseconds(model, example(batch_size))
        median = statistics.median(milliseconds)
        per_second = 1000 * batch_size / median
        if as_json:
            record = {"batch": batch_size, "milliseconds": round(median, 4), "inputs_per_second": round(per_second, 2)}
            about = {"calls": len(milliseconds), "provider": model.provider, "threads": model.threads}
            print(json.dumps({**record, **about, "inputs": shapes}), flush=True)
        else:
            print(f"{batch_size:5d}  {median:10.3f}  {per_second:10,.1f}  {len(milliseconds):5d}", flush=True)


def noise_images(height: int, width: int) -> Callable[[int], NDArray[np.uint8]]:
    """A function that makes uint8 [num, height, width, 3] of random numbers."""
    return lambda num: np.random.default_rng(0).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def _milliseconds(model: OnnxModel[Any], inputs: Inputs) -> list[float]:
    """The time of each of many calls."""
    model.run(**inputs)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _MIN_CALLS or (time.perf_counter() - began < _SECONDS and len(taken) < _MAX_CALLS):
        start = time.perf_counter()
        model.run(**inputs)
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def _shape(array: NDArray[Any]) -> str:
    """An input's dtype and shape, with N for the number of the batch."""
    return f"{array.dtype} [{', '.join(['N', *map(str, array.shape[1:])])}]"
