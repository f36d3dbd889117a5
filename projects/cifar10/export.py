"""Exports a run's classifier: python -m projects.cifar10.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 pictures [N, H, W, 3] of any size and gives probabilities [N, num_classes]: it resizes the
shorter side with antialiasing, takes the center square, normalizes, and averages the network's softmax over the
picture and its mirror image.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import RunError, run_command
from projects.cifar10.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return export_parser("projects.cifar10.export", int8=True).parse_args(argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from core.checkpoint import write_atomically
from core.export import (
    ExportSpec,
    chosen_checkpoint,
    export_onnx,
    milliseconds,
    open_session,
    output_path,
    quantize_int8,
    report_path,
    run_metadata,
)
from projects.cifar10.data import load_data
from projects.cifar10.model import build_model

TASK = "image classification"
MAX_ACCURACY_DROP = 0.01
NUM_CALIBRATION_BATCHES, CALIBRATION_BATCH = 8, 32
# The borders of the graph stay in float: bytes, resize and normalization before the first convolution, softmax.
OPERATORS_IN_FLOAT = ("Cast", "Mul", "Add", "Sub", "Div", "Resize", "Softmax", "Transpose", "Slice", "Gemm", "MatMul")


class Deployed(nn.Module):
    """The network between raw pictures and probabilities."""

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], size: int, test_flip: bool) -> None:
        super().__init__()
        self.network, self.size, self.test_flip = network, size, test_flip
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)[:, None, None]))
        self.register_buffer("shift", -torch.tensor(mean)[:, None, None] / torch.tensor(std)[:, None, None])
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, num_classes]."""
        shorter: Any = torch.sym_min(image.shape[1], image.shape[2])
        height, width = (side * self.size // shorter for side in image.shape[1:3])
        x = image.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        square = torch.arange(self.size)  # rows and columns by number, so that the size stays known to the exporter
        x = x.index_select(2, top + square).index_select(3, left + square)
        x = x * self.scale + self.shift
        probabilities: Tensor = self.network(x).softmax(1)
        if self.test_flip:
            probabilities = (probabilities + self.network(x.flip(3)).softmax(1)) / 2
        return probabilities


def build_deployed(facts: dict[str, Any], config: Config, weights: dict[str, Tensor]) -> Deployed:
    """The module to export, from what the run knows and a checkpoint's weights."""
    network = build_model(facts["model"], len(facts["classes"]))
    network.load_state_dict(weights)
    return Deployed(network, facts["mean"], facts["std"], config.image_size, config.test_flip).eval()


def random_images(num: int, height: int, width: int) -> tuple[Tensor, ...]:
    """An input of noise: the hardest picture for a resize."""
    generator = torch.Generator().manual_seed(height * width)
    return (torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator),)


def export(run_dir: Path, checkpoint: str, output: Path | None, int8: bool) -> None:
    """Writes the ONNX file, its parity report, and the 8-bit copy if asked for."""
    folder, state, run = chosen_checkpoint(run_dir, checkpoint, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    output = output_path(run_dir, output)
    facts, size = run["facts"], config.image_size
    deployed = build_deployed(facts, config, state["ema"]["module"] if config.ema else state["model"])
    metadata = run_metadata(run_dir, run, state["loop"]["step"], config, TASK)
    metadata["classes"] = facts["classes"]
    metadata["input"] = "image: uint8 [batch, height, width, 3], RGB, any size; the center square is used"
    metadata["output"] = "probabilities: float32 [batch, classes]"
    metadata["image_size"] = size
    spec = ExportSpec(
        module=deployed,
        example=random_images(2, size + 7, size + 12),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
        output_shapes=[["batch", len(facts["classes"])]],
        parity_inputs=[
            random_images(1, size, size),
            random_images(5, size, size),
            random_images(3, 2 * size + 1, size + 3),
            random_images(1, size // 2 + 1, 3 * size),
            random_images(2, 240, 321),
        ],
        metadata=metadata,
    )
    report = export_onnx(spec, output)
    worst = max(row["max_difference"] for row in report["checks"])
    size_mb = output.stat().st_size / 1e6
    print(f"{output}  {size_mb:.2f} MB, from {folder.name}")
    print(f"parity      {len(report['checks'])} shapes, largest difference {worst:.1e} (allowed {spec.tolerance:g})")
    if int8:
        export_int8(output, config)
    print(f"next        python -m projects.cifar10.infer {output} PICTURE...")


def export_int8(source: Path, config: Config) -> None:
    """Writes MODEL.int8.onnx, unless it loses more than MAX_ACCURACY_DROP of accuracy on validation pictures."""
    data = load_data(config, torch.device("cpu"))
    size = config.image_size
    num = min(len(data.train), NUM_CALIBRATION_BATCHES * CALIBRATION_BATCH)
    pixels = data.train.load(range(0, len(data.train), len(data.train) // num), size)[:num]
    batches = [pixels[i : i + CALIBRATION_BATCH] for i in range(0, num, CALIBRATION_BATCH)]
    target = source.with_name(f"{source.stem}.int8.onnx")
    candidate = source.with_name(f".tmp-{source.stem}.int8.onnx")
    try:
        quantize_int8(source, candidate, input_name="image", calibration=batches, kept=OPERATORS_IN_FLOAT)
        held_out = data.val.load(range(len(data.val)), size)
        accuracies = [accuracy(path, held_out, data.val.labels) for path in (source, candidate)]
        one, many = (milliseconds([source, candidate], held_out[:num]) for num in (1, min(64, len(held_out))))
        sizes = [path.stat().st_size / 1e6 for path in (source, candidate)]
        print(f"            {'fp32':>10}{'int8':>10}")
        print(f"size        {sizes[0]:>7.2f} MB{sizes[1]:>7.2f} MB")
        print(f"1 picture   {one[0]:>7.2f} ms{one[1]:>7.2f} ms   one thread")
        print(f"64 pictures {many[0]:>7.1f} ms{many[1]:>7.1f} ms   one thread")
        print(f"accuracy    {accuracies[0]:>10.4f}{accuracies[1]:>10.4f}   {len(held_out):,} validation pictures")
        if accuracies[1] < accuracies[0] - MAX_ACCURACY_DROP:
            drop = f"{100 * (accuracies[0] - accuracies[1]):.1f} points on validation"
            raise RunError("the 8-bit model loses too much", drop, f"use {source}; nothing else was written")
        candidate.replace(target)
    finally:
        candidate.unlink(missing_ok=True)
    report: dict[str, dict[str, float]] = {"fp32": {}, "int8": {}}
    for number, name in enumerate(report):
        report[name] = {
            "megabytes": sizes[number],
            "milliseconds_1": one[number],
            "milliseconds_64": many[number],
            "val_accuracy": accuracies[number],
        }
    write_atomically(report_path(target), json.dumps(report, indent=1).encode())
    print(f"{target}")


def accuracy(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64], batch: int = 256) -> float:
    """Share of pictures that an ONNX file gets right."""
    session = open_session(path)
    right = 0
    for start in range(0, len(pixels), batch):
        probabilities = session.run(None, {"image": pixels[start : start + batch]})[0]
        right += int((probabilities.argmax(1) == labels[start : start + batch]).sum())
    return right / len(pixels)


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output, arguments.int8)


if __name__ == "__main__":
    run_command(main)
