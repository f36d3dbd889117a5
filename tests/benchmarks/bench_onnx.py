"""Latency of the exported classifier in onnxruntime against the same module in PyTorch, one thread each.

The file comes from projects.cifar10.export, run on a run folder that holds an untrained fast network: weights do not
change the time. The work is that of a served request: uint8 image in, resize, normalization, network on the image
and its mirror image, probabilities out.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.devices import set_up_backend
from core.distributed import World
from core.parity import open_session
from core.program import ClassifierExportOptions, ExportCommand, TrainCommand
from core.run import RunFolder
from core.stored_run import load_run
from core.vision.classification_export import quantize_classifier
from core.vision.image_set import from_pixels
from projects.cifar10.config import Config, Facts
from projects.cifar10.export import build_deployed, export
from projects.cifar10.model import build_model
from projects.cifar10.networks.fast import FastNet
from projects.cifar10.outlines import CLASSES
from projects.cifar10.synthetic import draw_images
from tests.benchmarks import measure

BASELINE, OURS = "PyTorch eager", "onnxruntime"
FACTS = Facts(
    model="fast", classes=CLASSES, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26), num_train=0, data_sha256="none"
)


def untrained_run(path: Path) -> None:
    """Makes a run folder with a checkpoint of step 0."""
    torch.manual_seed(0)
    network = build_model("fast", len(CLASSES))
    assert isinstance(network, FastNet)
    images, _ = draw_images(100, seed=0)
    network.whiten(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    run = RunFolder.start(TrainCommand(Config(data="synthetic", ema=0.0), path), FACTS, World())
    run.save(0, {"model": network.state_dict(), "loop": {"step": 0}}, None)


def milliseconds(call: Any, repeats: int) -> dict[str, float]:
    """Wall and processor time of one call: the mean of some, after one that is not counted."""
    call()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"wall_ms": 1e3 * wall / repeats, "processor_ms": 1e3 * processor / repeats}


def in_torch(module: nn.Module, pixels: NDArray[np.uint8]) -> None:
    """One answer of the module."""
    with torch.inference_mode():
        module(torch.from_numpy(pixels)).numpy()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("onnx", "Latency of the exported classifier.", rounds=9)
    flags.add_argument("--repeats", type=int, default=20, help="calls a round at batch 1 (default: %(default)s)")
    flags.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64], help="images of a call")
    flags.add_argument("--no-int8", action="store_true", help="leave out the 8-bit copy")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    set_up_backend(torch.device("cpu"), deterministic=False)  # as the project's programs have it
    tables, facts, skipped = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "run" / "model.onnx"
        untrained_run(path.parent)
        export(ExportCommand(path.parent, ClassifierExportOptions(checkpoint="last")))
        stored = load_run(path.parent, "last", Config, Facts)
        sessions = {OURS: open_session(path, threads=arguments.threads)}
        facts["megabytes"] = {OURS: path.stat().st_size / 1e6}
        if arguments.no_int8:
            skipped["onnxruntime, int8"] = "--no-int8"
        else:
            quantized = path.with_name("int8.onnx")
            quantize_classifier(path, quantized, from_pixels(*draw_images(128, seed=1)))
            sessions["onnxruntime, int8"] = open_session(quantized, threads=arguments.threads)
            facts["megabytes"]["onnxruntime, int8"] = quantized.stat().st_size / 1e6
    module, other = build_deployed(stored), build_deployed(stored).to(memory_format=torch.channels_last)
    for batch_size in arguments.batch_sizes:
        pixels, _ = draw_images(batch_size, seed=2)
        calls: dict[str, Any] = {BASELINE: partial(in_torch, module, pixels)}
        calls["PyTorch eager, channels_last"] = partial(in_torch, other, pixels)
        for name, session in sessions.items():
            calls[name] = partial(session.run, None, {"image": pixels})
        repeats = max(1, arguments.repeats // (1 if batch_size < 8 else 10))
        sides = {name: partial(milliseconds, call, repeats) for name, call in calls.items()}
        rows = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
        title = f"The exported fast network, {batch_size} image(s) of 32×32, {arguments.threads} thread(s)"
        columns = {"wall_ms": "wall ms", "processor_ms": "processor ms"}
        measure.show(title, rows, columns, BASELINE)
        tables[f"batch {batch_size}"] = rows
    measure.write("onnx", argv, arguments, tables, skipped, baseline=BASELINE, ours=OURS, **facts)


if __name__ == "__main__":
    main()
