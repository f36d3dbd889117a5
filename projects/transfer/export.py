"""Exports a run's classifier: python -m projects.transfer.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 pictures [N, H, W, 3] of any size and gives probabilities [N, num_classes]: it resizes the
shorter side with antialiasing, takes the middle square, normalizes, and averages the network's softmax over the
picture and its mirror image. The run folder is all that is needed; where the backbone came from does not matter.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import RunError, run_command
from projects.transfer.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = export_parser("projects.transfer.export", int8=True)
    parser.add_argument("--adapted", action="store_true", help="with the norm statistics that adapt has estimated")
    return parser.parse_args(argv)


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
from projects.transfer.adapt import load_adapted
from projects.transfer.augment import Look
from projects.transfer.data import load_data
from projects.transfer.restore import look_of, restored

TASK = "image classification"
MAX_SHARE_LOST = 0.01
NUM_CALIBRATION_BATCHES, CALIBRATION_BATCH = 8, 32
# The borders of the graph stay in float: bytes, resize and normalization before the first convolution, softmax.
OPERATORS_IN_FLOAT = ("Cast", "Mul", "Add", "Sub", "Div", "Resize", "Softmax", "Transpose", "Slice", "Gemm", "MatMul")


class Deployed(nn.Module):
    """The network between raw pictures and probabilities."""

    def __init__(self, network: nn.Module, look: Look, test_flip: bool) -> None:
        super().__init__()
        self.network, self.size, self.side, self.test_flip = network, look.size, look.side, test_flip
        std = torch.tensor(look.std)[:, None, None]
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -torch.tensor(look.mean)[:, None, None] / std)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, num_classes]."""
        shorter: Any = torch.sym_min(image.shape[1], image.shape[2])
        height, width = (side * self.side // shorter for side in image.shape[1:3])
        x = image.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
        # As training does: the middle square of the stored side, and of that the part that the network sees.
        inner = (self.side - self.size) // 2
        top, left = (height - self.side) // 2 + inner, (width - self.side) // 2 + inner
        square = torch.arange(self.size)  # rows and columns by number, so that the size stays known to the exporter
        x = x.index_select(2, top + square).index_select(3, left + square)
        x = x * self.scale + self.shift
        probabilities: Tensor = self.network(x).softmax(1)
        if self.test_flip:
            probabilities = (probabilities + self.network(x.flip(3)).softmax(1)) / 2
        return probabilities


def random_images(num: int, height: int, width: int) -> tuple[Tensor, ...]:
    """An input of noise: the hardest picture for a resize."""
    generator = torch.Generator().manual_seed(height * width)
    return (torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator),)


def export(run_dir: Path, checkpoint: str, output: Path | None, int8: bool, adapted: bool = False) -> None:
    """Writes the ONNX file, its parity report, and the 8-bit copy if asked for."""
    folder, state, run = chosen_checkpoint(run_dir, checkpoint, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    output = output_path(run_dir, output)
    facts, step = run["facts"], state["loop"]["step"]
    look = look_of(facts)
    network = restored(run_dir, facts, config, state)
    if adapted:
        load_adapted(network, run_dir, step)
    metadata = run_metadata(run_dir, run, step, config, TASK)
    metadata["classes"] = facts["classes"]
    metadata["backbone"] = facts["model"]
    metadata["adapted"] = adapted
    metadata["input"] = "image: uint8 [batch, height, width, 3], RGB, any size; the middle square is used"
    metadata["output"] = "probabilities: float32 [batch, classes]"
    metadata["image_size"] = look.size
    size = look.side
    spec = ExportSpec(
        module=Deployed(network, look, config.test_flip).eval(),
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
    print(f"{output}  {size_mb:.2f} MB, from {folder.name}{', adapted' if adapted else ''}")
    print(f"parity      {len(report['checks'])} shapes, largest difference {worst:.1e} (allowed {spec.tolerance:g})")
    if int8:
        export_int8(output, config, look)
    print(f"next        python -m projects.transfer.infer {output} PICTURE...")


def export_int8(source: Path, config: Config, look: Look) -> None:
    """Writes MODEL.int8.onnx, unless it gets more than one validation picture, and 1 % of them, more wrong."""
    data = load_data(config, look.side, torch.device("cpu"))
    num = min(len(data.train), NUM_CALIBRATION_BATCHES * CALIBRATION_BATCH)
    pixels = data.train.load(range(0, len(data.train), len(data.train) // num))[:num]
    batches = [pixels[i : i + CALIBRATION_BATCH] for i in range(0, num, CALIBRATION_BATCH)]
    target = source.with_name(f"{source.stem}.int8.onnx")
    candidate = source.with_name(f".tmp-{source.stem}.int8.onnx")
    try:
        quantize_int8(source, candidate, input_name="image", calibration=batches, kept=OPERATORS_IN_FLOAT)
        held_out = data.val.load(range(len(data.val)))
        right = [num_right(path, held_out, data.val.labels) for path in (source, candidate)]
        few, many = 1, min(64, len(held_out))
        times = {few: milliseconds([source, candidate], held_out[:few])}
        times[many] = milliseconds([source, candidate], held_out[:many])
        sizes = [path.stat().st_size / 1e6 for path in (source, candidate)]
        print(f"            {'fp32':>10}{'int8':>10}")
        print(f"size        {sizes[0]:>7.2f} MB{sizes[1]:>7.2f} MB")
        for number, (fp32, int8) in times.items():
            print(f"{number:>3} pictures{fp32:>7.1f} ms{int8:>7.1f} ms   one thread")
        print(f"right       {right[0]:>10,}{right[1]:>10,}   of {len(held_out):,} validation pictures")
        lost = right[0] - right[1]
        if lost > max(1, MAX_SHARE_LOST * len(held_out)):
            todo = f"use {source}; nothing else was written"
            raise RunError("the 8-bit model loses too much", f"{lost} validation pictures of {right[0]}", todo)
        candidate.replace(target)
    finally:
        candidate.unlink(missing_ok=True)
    report = {
        name: {
            "megabytes": sizes[number],
            "milliseconds_1": times[few][number],
            f"milliseconds_{many}": times[many][number],
            "val_accuracy": right[number] / len(held_out),
        }
        for number, name in enumerate(("fp32", "int8"))
    }
    write_atomically(report_path(target), json.dumps(report, indent=1).encode())
    print(f"{target}")


def num_right(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64], batch: int = 64) -> int:
    """How many pictures an ONNX file gets right."""
    session = open_session(path)
    right = 0
    for start in range(0, len(pixels), batch):
        probabilities = session.run(None, {"image": pixels[start : start + batch]})[0]
        right += int((probabilities.argmax(1) == labels[start : start + batch]).sum())
    return right


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output, arguments.int8, arguments.adapted)


if __name__ == "__main__":
    run_command(main)
