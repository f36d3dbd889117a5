"""Exports a run's network: python -m projects.style.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 pictures [N, H, W, 3] of any size from 16×16, the styles' weights and how much of the photograph's
colors to keep, and gives pictures of the same size. An instance norm looks at the whole picture, so a part of it does
not become what it is in the whole. For that the graph also gives the means and deviations that its norms have found,
and takes those of another pass in their place: with them, tiles fit together without seams.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import UserError, run_command
from projects.style.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return export_parser("projects.style.export").parse_args(argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import time

import numpy as np
import torch
from torch import Tensor, nn

from core.checkpoint import write_atomically
from core.export import ExportSpec, chosen_checkpoint, export_onnx, open_session, output_path, report_path, run_metadata
from projects.style.model import MIN_SIDE, STRIDE, StyleNet

TASK = "style transfer"
LUMINANCE = (0.299, 0.587, 0.114)
EPSILON = 1e-5  # of the training's instance norm
TIMED_SIDE, NUM_TIMED = 1024, 5  # the first runs fetch memory from the system


class Deployed(nn.Module):
    """The network between raw pictures and painted ones."""

    def __init__(self, network: StyleNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("luminance", torch.tensor(LUMINANCE)[:, None, None])
        self.luminance: Tensor

    def forward(self, image: Tensor, blend: Tensor, keep_colors: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Painted pictures, uint8 [N, H, W, 3], and the statistics of every norm, float32 [N, 2, channels].

        image: uint8 [N, H, W, 3]. blend: float32 [N, num_styles]. keep_colors: float32 [N], from 0 to 1, the
        photograph's. statistics: float32 [N, 2, channels] to use, or [0, 2, channels] for those of the picture itself.
        """
        photograph = image.permute(0, 3, 1, 2).float() / 255
        norm = StatisticsNorm(statistics)
        painted = self.network(photograph, blend, norm)
        # The photograph with the painting's luminance: the same is added to red, green and blue.
        change = ((painted - photograph) * self.luminance).sum(1, keepdim=True)
        painted = painted + keep_colors[:, None, None, None] * (photograph + change - painted)
        pixels = (255 * painted).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1), norm.found()


class StatisticsNorm:
    """Instance norm, residual and ReLU that notes means and deviations, and uses given ones where there are any."""

    def __init__(self, given: Tensor) -> None:
        self.given = given
        self.own: list[Tensor] = []
        self.at = 0  # the channel among those of all norms

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor | None = None, relu: bool = True
    ) -> Tensor:
        """x: [N, C, H, W]; weight, bias: [N, C]."""
        mean = x.mean((2, 3))
        deviation = ((x - mean[:, :, None, None]).square().mean((2, 3)) + EPSILON).sqrt()
        self.own.append(torch.stack([mean, deviation], 1))
        given = self.given[:, :, self.at : self.at + x.shape[1]]
        self.at += x.shape[1]
        mean, deviation = torch.cat([self.own[-1], given])[given.shape[0] :].unbind(1)  # given, or else its own
        scale = weight / deviation
        y = x * scale[:, :, None, None] + (bias - mean * scale)[:, :, None, None]
        y = y if residual is None else y + residual
        return torch.relu(y) if relu else y

    def found(self) -> Tensor:
        """The pictures' own statistics: [N, 2, channels of all norms]."""
        return torch.cat(self.own, 2)


def build_deployed(facts: dict[str, Any], config: Config, weights: dict[str, Tensor]) -> Deployed:
    """The module to export, from what the run knows and a checkpoint's weights."""
    network = StyleNet(len(facts["styles"]), config.width, config.blocks)
    network.load_state_dict(weights)
    return Deployed(network).eval()


def num_channels(network: StyleNet) -> int:
    """Channels of all norms."""
    return sum(p.shape[1] for name, p in network.named_parameters() if name.endswith(".bias") and p.ndim == 2)


def random_inputs(deployed: Deployed, num: int, height: int, width: int, num_given: int) -> tuple[Tensor, ...]:
    """Noise, a blend of styles, colors kept in part, and statistics of `num_given` other pictures of noise."""
    network, generator = deployed.network, torch.Generator().manual_seed(height * width)
    image = torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)
    blend = torch.rand(num, network.num_styles, generator=generator)
    blend, keep_colors = blend / blend.sum(1, keepdim=True), torch.rand(num, generator=generator)
    statistics = torch.zeros(0, 2, num_channels(network))
    if num_given:
        others = random_inputs(deployed, num_given, 2 * MIN_SIDE, 3 * MIN_SIDE, 0)
        with torch.no_grad():
            statistics = deployed(*others)[1]
    return image, blend, keep_colors, statistics


def export(run_dir: Path, checkpoint: str, output: Path | None) -> None:
    """Writes the ONNX file and its parity report, and measures the time of a picture."""
    folder, state, run = chosen_checkpoint(run_dir, checkpoint, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    if config.method == "optimize":
        raise UserError("a run of optimize has no network", run_dir, f"its picture is {run_dir / 'result.png'}")
    output = output_path(run_dir, output)
    facts = run["facts"]
    deployed = build_deployed(facts, config, state["ema"]["module"] if config.ema else state["model"])
    report = export_onnx(spec_of(deployed, metadata_of(deployed, run_dir, run, state["loop"]["step"], config)), output)
    worst = max(row["max_difference"] for row in report["checks"])
    milliseconds = milliseconds_per_megapixel(output, deployed)
    report["milliseconds_per_megapixel"] = milliseconds
    write_atomically(report_path(output), json.dumps(report, indent=1).encode())
    print(f"{output}  {output.stat().st_size / 1e6:.2f} MB, from {folder.name}, losses of {facts['features']}")
    print(
        f"parity      {len(report['checks'])} shapes, largest difference {worst:.1e} (allowed {report['tolerance']:g})"
    )
    print(f"time        {milliseconds:.0f} ms a megapixel, onnxruntime, one thread")
    print(f"next        python -m projects.style.infer {output} PICTURE --output PAINTED.png")


def metadata_of(deployed: Deployed, run_dir: Path, run: dict[str, Any], step: int, config: Config) -> dict[str, Any]:
    """What the file says of itself."""
    facts = run["facts"]
    return {
        **run_metadata(run_dir, run, step, config, TASK),
        "styles": facts["styles"],
        "features": facts["features"],
        "channels": num_channels(deployed.network),
        "margin": deployed.network.margin(),
        "stride": STRIDE,
        "min_side": MIN_SIDE,
        "input": "image: uint8 [batch, height, width, 3], RGB; blend: float32 [batch, styles], summing to 1; "
        "keep_colors: float32 [batch], 0 to 1; statistics: float32 [0, 2, channels], or [batch, 2, channels] to use",
        "output": "painted: uint8 [batch, height, width, 3]; found: float32 [batch, 2, channels], of the norms",
    }


def spec_of(deployed: Deployed, metadata: dict[str, Any]) -> ExportSpec:
    """What to export, and what to compare."""
    network = deployed.network
    free = {0: "batch"}
    return ExportSpec(
        module=deployed,
        example=random_inputs(deployed, 2, 37, 50, 3),
        input_names=["image", "blend", "keep_colors", "statistics"],
        output_names=["painted", "found"],
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"}, free, free, {0: "given"}),
        output_shapes=[["batch", "height", "width", 3], ["batch", 2, num_channels(network)]],
        parity_inputs=[
            random_inputs(deployed, 1, 64, 64, 0),
            random_inputs(deployed, 1, 64, 61, 1),
            random_inputs(deployed, 3, MIN_SIDE, 83, 0),
            random_inputs(deployed, 2, 121, 90, 2),
        ],
        metadata=metadata,
        tolerance=1.01 / 255,  # one gray level: a value between two may be rounded either way
    )


def milliseconds_per_megapixel(path: Path, deployed: Deployed) -> float:
    """The time of a picture of 1024×1024, on one thread: the best of a few, over its megapixels."""
    session = open_session(path, threads=1)
    inputs = random_inputs(deployed, 1, TIMED_SIDE, TIMED_SIDE, 0)
    feed = {each.name: np.asarray(value) for each, value in zip(session.get_inputs(), inputs, strict=True)}
    times = []
    for _ in range(NUM_TIMED):
        began = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - began)
    return 1e3 * min(times) / (TIMED_SIDE**2 / 1e6)


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output)


if __name__ == "__main__":
    run_command(main)
