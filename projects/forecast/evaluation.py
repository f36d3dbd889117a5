"""Scores a trained forecaster on the test windows, beside two baselines: seasonal-naive and the least-squares DLinear.

DLinear has 336 rows of lookback in its paper.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.evaluation import evaluating
from projects.forecast.config import Config
from projects.forecast.data import Batch, Data, evaluation_loader
from projects.forecast.metrics import Scale, Scores, naive_error, summary_of
from projects.forecast.model import Seq2Seq, seasonal_naive, solve_dlinear
from projects.forecast.plots import Panel, plot_attention, plot_evaluation

Results = dict[str, dict[str, Any]]  # by name of forecaster
SEASONAL_NAIVE, CLOSED_FORM = "seasonal naive", "dlinear, closed form"
_Forecaster = Callable[[Tensor], Tensor]  # standardized [N, lookback, columns] → [N, horizon, columns, levels]
_DLINEAR_LOOKBACK = 336
_NUM_ATTENDED = 64  # windows whose attention is averaged


def forecasts(loader: Loader[Batch], network: nn.Module, accelerator: Accelerator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields standardized forecasts float32 [N, horizon, columns, levels] and targets, batch by batch."""
    with evaluating(network):
        for inputs, targets in loader.batches(epoch=0):
            with accelerator.autocast():
                forecast = network(inputs)
            yield forecast.float(), targets


def score_network(data: Data, network: nn.Module, accelerator: Accelerator, config: Config) -> Scores:
    """The network's scores on all test windows."""
    scores = _new_scores(data, config, config.levels)
    for forecast, targets in forecasts(evaluation_loader(data.test, World()), network, accelerator):
        scores.add(forecast.cpu().numpy(), targets.cpu().numpy())
    return scores


def score_baselines(data: Data, config: Config) -> Results:
    """The same scores of the least-squares DLinear and of seasonal-naive; takes a few seconds."""
    lookback = min(config.lookback, _DLINEAR_LOOKBACK)
    linear = solve_dlinear(data.train_series, lookback, config.horizon)
    forecasters: dict[str, _Forecaster] = {
        CLOSED_FORM: lambda inputs: linear(inputs[:, inputs.shape[1] - lookback :]),
        SEASONAL_NAIVE: lambda inputs: seasonal_naive(inputs, config.horizon, data.season),
    }
    results: Results = {}
    for name, forecaster in forecasters.items():
        scores = _new_scores(data, config, (0.5,))
        with torch.inference_mode():
            for inputs, targets in evaluation_loader(data.test, World()).batches(0):
                scores.add(forecaster(inputs).cpu().numpy(), targets.cpu().numpy())
        results[name] = scores.result(data.columns)
    return results


def summarize(results: Results, config: Config) -> dict[str, float]:
    """The numbers of a run that tables show. Those in original units are means over columns."""
    summary = {f"test_{name}": value for name, value in summary_of(results[config.model]).items()}
    if config.baselines:
        summary["dlinear_closed_form_mse"] = results[CLOSED_FORM]["mse"]
        summary["seasonal_naive_mse"] = results[SEASONAL_NAIVE]["mse"]
    return summary


def report_lines(results: Results, config: Config) -> dict[str, str]:
    """The results as the closing report shows them, by name."""
    own = results[config.model]
    errors = {name: f"MSE {result['mse']:.4f}, MAE {result['mae']:.4f}" for name, result in results.items()}
    lines = {"test": f"{errors[config.model]} of standardized columns, {own['num_windows']:,} windows"}
    if config.baselines:
        lines["closed form"] = f"{errors[CLOSED_FORM]} by the least-squares DLinear"
        lines["naive"] = f"{errors[SEASONAL_NAIVE]} by seasonal-naive"
    if "coverage" in own:
        wanted, coverage = 100 * own["coverage_wanted"], 100 * own["coverage"]
        lines["interval"] = f"of {wanted:.0f} % holds {coverage:.1f} % of the test values, width {own['width']:.3f}"
    return lines


def plot_results(
    folder: Path, data: Data, network: nn.Module, accelerator: Accelerator, scores: Scores, results: Results
) -> None:
    """Writes some forecasts, the worst ones, errors by step and over time, and calibration as PNG files; of a network
    with attention what that looks at."""
    for part in network.modules():
        if isinstance(part, Seq2Seq):
            plot_attention(_attention(data, network, part), folder / "attention.png")
    begins = [data.time_of(int(data.test.starts[first]) + data.test.lookback) for first in scores.first_of_parts()]
    panel = partial(_panel, data, network, accelerator)
    plot_evaluation(folder, scores, results, begins, panel, len(data.columns), data.test.horizon)


def _attention(data: Data, network: nn.Module, attending: Seq2Seq) -> NDArray[np.float32]:
    """The mean attention over some test windows, float32 [horizon, lookback]. attending: a part of the network."""
    found: list[Tensor] = []
    hook = attending.register_forward_pre_hook(lambda _, inputs: found.append(attending.attention(inputs[0])))
    num = len(data.test)
    rows = torch.arange(0, num, max(1, num // _NUM_ATTENDED))
    with evaluating(network):
        network(data.test.batch(rows)[0])
    hook.remove()
    return found[0].mean(0).float().cpu().numpy()


def _panel(data: Data, network: nn.Module, accelerator: Accelerator, window: int, column: int) -> Panel:
    """One column of one test window with its forecast, in original units."""
    windows = data.test
    with evaluating(network), accelerator.autocast():
        inputs, targets = windows.batch(torch.tensor([window]))
        forecast = network(inputs).float()
    history, truth, levels = (
        tensor.double().cpu().numpy() * data.std[column] + data.mean[column]
        for tensor in (inputs[0, -2 * windows.horizon :, column], targets[0, :, column], forecast[0, :, column])
    )
    begins = data.time_of(int(windows.starts[window]) + windows.lookback)
    return Panel(f"{data.columns[column]}, from {begins}", history, levels, truth)


def _new_scores(data: Data, config: Config, levels: tuple[float, ...]) -> Scores:
    """Scores of the test windows, with nothing in them."""
    scale = Scale(data.mean, data.std, naive_error(data.train_values, data.season))
    nums = [test - config.horizon + 1 for _, _, test in data.rows]
    num_parts = min(config.backtest, *nums)
    parts = [np.arange(num) * num_parts // num for num in nums]
    return Scores(scale, levels, np.concatenate(parts))
