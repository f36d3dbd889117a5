"""Exports a run's forecaster: python -m projects.forecast.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes the last `lookback` rows in original units, [batch, lookback, columns], and gives the next `horizon`
rows in original units: it standardizes, normalizes each window, forecasts, and undoes both. A quantile head has a
second output with all levels.
"""

import argparse
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import run_command
from projects.forecast.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return export_parser("projects.forecast.export").parse_args(argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import torch
from torch import Tensor, nn

from core.export import ExportSpec, chosen_checkpoint, export_onnx, output_path, run_metadata
from projects.forecast.model import build_model

TASK = "time series forecasting"
PARITY_BATCHES = (1, 3, 8)


class Deployed(nn.Module):
    """The network between rows in original units."""

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], num_levels: int) -> None:
        super().__init__()
        self.network, self.num_levels = network, num_levels
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, series: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """float32 [N, lookback, columns] → forecast [N, horizon, columns], and quantiles [N, horizon, columns, levels]
        where there are several levels."""
        levels = self.network((series - self.mean) / self.std)
        levels = levels * self.std[:, None] + self.mean[:, None]
        forecast: Tensor = levels[..., self.num_levels // 2]
        return (forecast, levels) if self.num_levels > 1 else forecast


def build_deployed(facts: dict[str, Any], config: Config, weights: dict[str, Tensor]) -> Deployed:
    """The module to export, from what the run knows and a checkpoint's weights."""
    network = build_model(config, len(facts["columns"]))
    network.load_state_dict(weights)
    return Deployed(network, facts["mean"], facts["std"], len(config.levels)).eval()


def walks(num: int, facts: dict[str, Any], lookback: int) -> tuple[Tensor, ...]:
    """An input of random walks round the columns' means, in original units."""
    generator = torch.Generator().manual_seed(num)
    steps = torch.randn(num, lookback, len(facts["columns"]), generator=generator)
    walked = steps.cumsum(1) / lookback**0.5
    return (walked * torch.tensor(facts["std"]).float() + torch.tensor(facts["mean"]).float(),)


def export(run_dir: Path, checkpoint: str, output: Path | None) -> None:
    """Writes the ONNX file and its parity report."""
    folder, state, run = chosen_checkpoint(run_dir, checkpoint, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    output = output_path(run_dir, output)
    facts = run["facts"]
    deployed = build_deployed(facts, config, state["ema"]["module"] if config.ema else state["model"])
    metadata = run_metadata(run_dir, run, state["loop"]["step"], config, TASK)
    for name in ("columns", "time_column", "time_format", "frequency", "mean", "std"):
        metadata[name] = facts[name]
    metadata |= {"lookback": config.lookback, "horizon": config.horizon, "fill": config.fill}
    metadata["quantiles"] = list(config.levels)
    metadata["input"] = "series: float32 [batch, lookback, columns], original units, the newest row last"
    metadata["output"] = "forecast: float32 [batch, horizon, columns], original units"
    several = len(config.levels) > 1
    if several:
        metadata["output"] += "; quantiles: float32 [batch, horizon, columns, levels]"
    shape: list[int | str] = ["batch", config.horizon, len(facts["columns"])]
    spec = ExportSpec(
        module=deployed,
        example=walks(2, facts, config.lookback),
        input_names=["series"],
        output_names=["forecast", "quantiles"] if several else ["forecast"],
        dynamic_shapes=({0: "batch"},),
        output_shapes=[shape, [*shape, len(config.levels)]] if several else [shape],
        parity_inputs=[walks(num, facts, config.lookback) for num in PARITY_BATCHES],
        metadata=metadata,
    )
    report = export_onnx(spec, output)
    worst = max(row["max_difference"] for row in report["checks"])
    size_mb = output.stat().st_size / 1e6
    print(f"{output}  {size_mb:.2f} MB, from {folder.name}")
    print(f"parity      {len(report['checks'])} shapes, largest difference {worst:.1e} (allowed {spec.tolerance:g})")
    print(f"next        python -m projects.forecast.infer {output} SERIES.csv")


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output)


if __name__ == "__main__":
    run_command(main)
