"""Exports a run's forecaster: python -m projects.forecast.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes rows float32 [N, lookback, columns] in original units and gives forecasts in original units: it
standardizes with the training rows' mean and deviation, and back.
"""

from core.program import ExportCommand, ProgramExportOptions, answer_early, parse_export, run_export
from projects.forecast.config import TASK, Config, Facts, ModelFacts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ProgramExportOptions)

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.export import export_onnx, finish_export
from core.export_program import export_program
from core.export_spec import ExportSpec
from core.stored_run import StoredRun, load_run
from projects.forecast.blend import Blend
from projects.forecast.model import build_model

_PARITY_BATCHES = (1, 3, 8)
_USAGE = """\
import csv, json, onnxruntime
import numpy as np
model = onnxruntime.InferenceSession("MODEL.onnx")
facts = json.loads(model.get_modelmeta().custom_metadata_map["facts"])
rows = list(csv.DictReader(open("series.csv", encoding="utf-8")))[-facts["lookback"] :]
series = np.array([[row[name] for name in facts["columns"]] for row in rows], dtype=np.float32)
forecast = model.run(["forecast"], {"series": series[None]})[0][0]
print(facts["columns"], forecast)  # a line for each row ahead
"""


class Deployed(nn.Module):
    """The network between rows in original units."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], num_levels: int) -> None:
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


def build_deployed(run: StoredRun[Config, Facts]) -> Deployed:
    """The module to export, with a checkpoint's weights."""
    build = Blend.of if run.config.blend else build_model
    network = build(run.config, len(run.facts.columns))
    network.load_state_dict(run.weights())
    return Deployed(network, run.facts.mean, run.facts.std, len(run.config.levels)).eval()


def _random_walks(num: int, facts: Facts, lookback: int) -> tuple[Tensor, ...]:
    """An input of random walks around the columns' means, in original units."""
    generator = torch.Generator().manual_seed(num)
    steps = torch.randn(num, lookback, len(facts.columns), generator=generator)
    walked = steps.cumsum(1) / lookback**0.5
    return (walked * torch.tensor(facts.std).float() + torch.tensor(facts.mean).float(),)


def export(command: ExportCommand[ProgramExportOptions]) -> None:
    """Writes the ONNX file and its parity report."""
    run = load_run(command.run_dir, command.options.checkpoint, Config, Facts)
    config, facts, output = run.config, run.facts, command.output
    outputs = {"forecast": "float32 [batch, horizon, columns], original units"}
    shapes: list[list[int | str]] = [["batch", config.horizon, len(facts.columns)]]
    if len(config.levels) > 1:
        outputs["quantiles"] = "float32 [batch, horizon, columns, levels], original units"
        shapes.append([*shapes[0], len(config.levels)])
    spec = ExportSpec(
        module=build_deployed(run),
        task=TASK,
        facts=ModelFacts(
            **vars(facts), lookback=config.lookback, horizon=config.horizon, fill=config.fill, quantiles=config.levels
        ),
        inputs={"series": "float32 [batch, lookback, columns], original units, the newest row last"},
        outputs=outputs,
        example=_random_walks(2, facts, config.lookback),
        dynamic_shapes=({0: "batch"},),
        output_shapes=shapes,
        parity_inputs=[_random_walks(num, facts, config.lookback) for num in _PARITY_BATCHES],
        pipeline_tag="time-series-forecasting",
        usage=_USAGE,
    )
    export_onnx(spec, run, output)
    if "pt2" in command.options.format:
        export_program(spec, output)
    finish_export(command, run, "SERIES.csv")


if __name__ == "__main__":
    run_export(Config, ProgramExportOptions, export)
