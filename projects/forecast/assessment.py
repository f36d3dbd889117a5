"""What a trained forecaster is worth: its scores on the test windows beside two baselines, in numbers and pictures.

The baselines are seasonal-naive and the least-squares DLinear, which has 336 rows of lookback in its paper.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core import plots
from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.evaluation import evaluating
from core.run import RunFolder
from core.training_state import LoopState
from projects.forecast import pictures
from projects.forecast.config import Config, Facts
from projects.forecast.data import Batch, Data, Windows, evaluation_loader
from projects.forecast.metrics import Scale, Scores, naive_error
from projects.forecast.model import seasonal_naive, solve_dlinear

Results = dict[str, dict[str, Any]]  # by name of forecaster
Forecaster = Callable[[Tensor], Tensor]  # standardized [N, lookback, columns] → [N, horizon, columns, levels]
DLINEAR_LOOKBACK = 336
NUM_SHOWN = 3


def baselines(data: Data, config: Config) -> Results:
    """The same scores of the least-squares DLinear and of seasonal-naive; a few seconds."""
    lookback = min(config.lookback, DLINEAR_LOOKBACK)
    linear = solve_dlinear(data.train.values[: data.rows[0]], lookback, config.horizon)
    forecasters: dict[str, Forecaster] = {
        "dlinear, closed form": lambda inputs: linear(inputs[:, inputs.shape[1] - lookback :]),
        "seasonal naive": lambda inputs: seasonal_naive(inputs, config.horizon, data.season),
    }
    results: Results = {}
    for name, forecaster in forecasters.items():
        scores = new_scores(data, config, (0.5,))
        with torch.inference_mode():
            for inputs, targets in evaluation_loader(data.test, World()).batches(0):
                scores.add(forecaster(inputs), targets)
        results[name] = scores.result(data.series.columns)
    return results


def new_scores(data: Data, config: Config, levels: tuple[float, ...]) -> Scores:
    """Scores of the test windows, with nothing in them."""
    values = data.series.values[: data.rows[0]]
    scale = Scale(data.mean, data.std, naive_error(values, data.season))
    return Scores(scale, levels, len(data.test), config.backtest)


def forecasts(loader: Loader[Batch], network: nn.Module, accelerator: Accelerator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields forecasts float32 [N, horizon, columns, levels] and targets, batch by batch."""
    with evaluating(network):
        for inputs, targets in loader.batches(epoch=0):
            with accelerator.autocast():
                forecast = network(inputs)
            yield forecast.float(), targets


def summary_of(results: Results, config: Config) -> dict[str, float]:
    """The numbers of a run that tables show. Those in original units are means over columns."""
    own = results[config.model]
    summary = {"test_mse": own["mse"], "test_mae": own["mae"]}
    for name in ("rmse", "mae", "smape", "mase"):
        known = [column[name] for column in own["original_units"].values() if column[name] is not None]
        if known:
            label = f"test_{name}" + ("" if name in ("smape", "mase") else "_original_units")
            summary[label] = float(np.mean(known))
    if "coverage" in own:
        summary["test_coverage"] = own["coverage"]
    if config.baselines:
        summary["dlinear_closed_form_mse"] = results["dlinear, closed form"]["mse"]
        summary["seasonal_naive_mse"] = results["seasonal naive"]["mse"]
    return summary


def draw(
    run: RunFolder[Config, Facts],
    data: Data,
    network: nn.Module,
    accelerator: Accelerator,
    scores: Scores,
    results: Results,
) -> None:
    """Curves, some forecasts, the worst ones, errors by step and over time, calibration."""
    config, folder = run.config, run.path / "plots"
    plots.curves(run.path, ["loss", "mse"])
    num = len(data.test)
    some = sorted({num * k // (NUM_SHOWN + 1) for k in range(1, NUM_SHOWN + 1)})
    last_columns = range(max(0, len(data.series.columns) - NUM_SHOWN), len(data.series.columns))
    panels = [panel(data, network, accelerator, window, column) for window in some for column in last_columns]
    pictures.forecast_grid(panels, config.levels, folder / "forecasts.png", title="Test forecasts")
    worst = scores.worst_windows(NUM_SHOWN, apart=config.horizon)
    panels = [panel(data, network, accelerator, window, column) for window in worst for column in last_columns]
    pictures.forecast_grid(panels, config.levels, folder / "worst.png", title="Test windows of the largest errors")
    first = data.test.first + data.test.lookback
    begins = [data.series.shown(first + int(np.argmax(scores.part_of == k))) for k in range(scores.num_parts)]
    pictures.errors(results, begins, folder / "errors.png")
    if len(config.levels) > 1:
        pictures.calibration(results[config.model], folder / "calibration.png")


def panel(data: Data, network: nn.Module, accelerator: Accelerator, window: int, column: int) -> dict[str, Any]:
    """One column of one test window with its forecast, in original units."""
    windows: Windows = data.test
    with evaluating(network), accelerator.autocast():
        inputs, targets = windows.batch(torch.tensor([window]))
        forecast = network(inputs).float()
    history, truth, levels = (
        tensor.double().cpu().numpy() * data.std[column] + data.mean[column]
        for tensor in (inputs[0, -2 * windows.horizon :, column], targets[0, :, column], forecast[0, :, column])
    )
    begins = data.series.shown(windows.first + window + windows.lookback)
    return {
        "caption": f"{data.series.columns[column]}, from {begins}",
        "history": history,
        "truth": truth,
        "forecast": levels,
    }


def report_lines(run: RunFolder[Config, Facts], loop: LoopState, results: Results) -> dict[str, str]:
    """The results as the closing report shows them, by name."""
    lines = {"test": f"{'MSE':>8}{'MAE':>9}  of standardized columns"}
    lines |= {name: f"{result['mse']:>8.4f}{result['mae']:>9.4f}" for name, result in results.items()}
    own = results[run.config.model]
    if "coverage" in own:
        wanted, coverage = 100 * own["coverage_wanted"], 100 * own["coverage"]
        lines["interval"] = f"of {wanted:.0f} % holds {coverage:.1f} % of the test values"
    lines["windows"] = f"{own['num_windows']:,}, weights of step {loop.best_step} (val MSE {loop.best:.4f})"
    lines["all numbers"] = f"{run.path}/test.json"
    return lines
