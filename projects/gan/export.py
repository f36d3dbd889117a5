"""Exports a run's averaged generator: python -m projects.gan.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes noise float32 [N, latent], and with classes labels int64 [N], and gives pictures uint8 [N, S, S, C]:
the same noise is the same picture, whoever runs it.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import run_command
from projects.gan.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return export_parser("projects.gan.export").parse_args(argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import torch
from torch import Tensor, nn

from core.export import ExportSpec, chosen_checkpoint, export_onnx, output_path, run_metadata
from projects.gan.data import to_pixels
from projects.gan.model import Generator, bake_weights
from projects.gan.players import build_generator

TASK = "image generation"
GRAY_LEVEL = 1 / 200  # of an output's largest value: a number between two bytes may become either of them


class Deployed(nn.Module):
    """The generator between noise and raw pictures."""

    def __init__(self, generator: Generator, num_classes: int) -> None:
        super().__init__()
        self.generator, self.num_classes = generator, num_classes

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """float32 [N, latent], int64 [N] → uint8 [N, S, S, C]."""
        return to_pixels(self.generator(noise, label))


def build_deployed(facts: Mapping[str, Any], config: Config, weights: Mapping[str, Tensor]) -> Deployed:
    """The module to export, from what the run knows and a checkpoint's weights, with plain weights throughout."""
    generator = build_generator(config, facts)
    generator.load_state_dict(weights)
    bake_weights(generator)
    return Deployed(generator, facts["num_classes"]).eval()


def inputs(num: int, latent: int, num_classes: int) -> tuple[Tensor, ...]:
    """Noise, and labels where there are classes."""
    random = torch.Generator().manual_seed(num)
    noise = torch.randn(num, latent, generator=random)
    return (noise, torch.randint(num_classes, (num,), generator=random)) if num_classes else (noise,)


def export(run_dir: Path, checkpoint: str, output: Path | None) -> None:
    """Writes the ONNX file and its parity report."""
    folder, state, run = chosen_checkpoint(run_dir, checkpoint, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    output = output_path(run_dir, output)
    facts = run["facts"]
    num_classes, size, channels = facts["num_classes"], config.size, facts["channels"]
    metadata = run_metadata(run_dir, run, state["loop"]["step"], config, TASK)
    metadata["classes"] = facts["classes"] if num_classes else []
    metadata["latent"] = config.latent
    metadata["input"] = "noise: float32 [batch, latent], normally distributed"
    metadata["input"] += "; label: int64 [batch], a number of classes" if num_classes else ""
    metadata["output"] = f"image: uint8 [batch, {size}, {size}, {channels}]"
    spec = ExportSpec(
        module=build_deployed(facts, config, state["ema"]["module"]),
        example=inputs(3, config.latent, num_classes),
        input_names=["noise", "label"] if num_classes else ["noise"],
        output_names=["image"],
        dynamic_shapes=({0: "batch"},) * (2 if num_classes else 1),
        output_shapes=[["batch", size, size, channels]],
        parity_inputs=[inputs(num, config.latent, num_classes) for num in (1, 2, 17, 64)],
        metadata=metadata,
        tolerance=GRAY_LEVEL,
    )
    report = export_onnx(spec, output)
    worst = max(row["max_difference"] for row in report["checks"])
    print(f"{output}  {output.stat().st_size / 1e6:.2f} MB, the averaged generator of {folder.name}")
    print(f"parity      {len(report['checks'])} batch sizes, largest difference {255 * worst:.1f} gray levels")
    print(f"next        python -m projects.gan.infer {output} --num 64 --seed 1 --output samples.png")


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output)


if __name__ == "__main__":
    run_command(main)
