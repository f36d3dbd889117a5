"""Scores an exported file on a table: python -m projects.forecast.evaluate MODEL.onnx SERIES.csv.

numpy and onnxruntime; no torch. DATA is cut in time as the training cuts it; `--split all` scores every window of a
table that the training has not seen. Errors are standardized with the training's mean and deviation, which the file
carries. Seasonal-naive is scored beside it; the least-squares DLinear, which the training scores too, needs torch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import RunError, UserError
from core.evaluate import Evaluation, parse_evaluate, run_evaluate, training_settings
from core.inference import OnnxModel
from projects.forecast.config import ETT, TASK, Config, ModelFacts
from projects.forecast.datasets import load_series
from projects.forecast.infer import read_for
from projects.forecast.metrics import Scale, Scores, naive_error, summary_of
from projects.forecast.plots import Panel, plot_evaluation
from projects.forecast.series import Series
from projects.forecast.split import Starts, split_rows, training_rows, window_starts

_BATCH_SIZE = 256
_NAMES = (*ETT, "synthetic")
_Levels = NDArray[np.float32]  # original units, [windows, horizon, columns, levels]


def evaluate(model: OnnxModel[ModelFacts], arguments: argparse.Namespace) -> Evaluation:
    """Scores the windows that the command line names. Raises UserError."""
    facts, split = model.facts, arguments.split
    config = training_settings(Config, model, arguments.data)
    series = load_series(config) if arguments.data in _NAMES else read_for(facts, Path(arguments.data))
    columns = facts.columns
    if series[0].columns != columns:
        where = f"{', '.join(series[0].columns)} in {arguments.data}"
        raise UserError("other columns than the model's", where, f"it forecasts {', '.join(columns)}")
    if split == "all":
        rows = [(len(each), 0, 0) for each in series]
        starts = _all_starts(series, facts)
    else:
        rows = [split_rows(each, config) for each in series]
        starts = window_starts(series, rows, config)[("train", "val", "test").index(split)]
    values = np.concatenate([each.values for each in series])
    mean, std = np.array(facts.mean), np.array(facts.std)
    scale = Scale(mean, std, naive_error(training_rows(series, rows), facts.season))
    parts = np.arange(len(starts)) * min(config.backtest, len(starts)) // len(starts)
    scores, naive = Scores(scale, facts.quantiles, parts), Scores(scale, (0.5,), parts)
    for first in range(0, len(starts), _BATCH_SIZE):
        inputs, targets = _windows(values, starts[first : first + _BATCH_SIZE], facts)
        truth = ((targets - mean) / std).astype(np.float32)
        levels = (_forecast(model, inputs) - mean[:, None]) / std[:, None]
        scores.add(levels.astype(np.float32), truth)
        again = inputs[:, inputs.shape[1] - facts.season + np.arange(facts.horizon) % facts.season, :, None]
        naive.add(((again - mean[:, None]) / std[:, None]).astype(np.float32), truth)
    results = {"file": scores.result(columns), "seasonal naive": naive.result(columns)}

    def panel(window: int, column: int) -> Panel:
        inputs, targets = _windows(values, starts[window : window + 1], facts)
        levels = _forecast(model, inputs)[0, :, column].astype(np.float64)
        begins = _time_of(series, int(starts[window]) + facts.lookback)
        history = inputs[0, -2 * facts.horizon :, column]
        return Panel(f"{columns[column]}, from {begins}", history, levels, targets[0, :, column])

    begins = [_time_of(series, int(starts[first]) + facts.lookback) for first in scores.first_of_parts()]

    def plot(folder: Path) -> None:
        plot_evaluation(folder, scores, results, begins, panel, len(columns), facts.horizon)

    return Evaluation(summary_of(results["file"]), len(starts), results, plot)


def _all_starts(series: Sequence[Series], facts: ModelFacts) -> Starts:
    """The first rows of all windows of all series. Raises UserError where there are none."""
    begins = np.cumsum([0, *map(len, series)])
    nums = [len(each) - facts.lookback - facts.horizon + 1 for each in series]
    if max(nums) < 1:
        where = f"{max(map(len, series)):,} rows"
        todo = f"the model looks back on {facts.lookback} rows and forecasts {facts.horizon}"
        raise UserError("too short a series", where, todo)
    return np.concatenate([begin + np.arange(max(0, num)) for begin, num in zip(begins, nums, strict=False)])


def _windows(
    values: NDArray[np.float64], starts: Starts, facts: ModelFacts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs [N, lookback, columns] and what follows them [N, horizon, columns], in original units."""
    both = values[starts[:, None] + np.arange(facts.lookback + facts.horizon)]
    return both[:, : facts.lookback], both[:, facts.lookback :]


def _forecast(model: OnnxModel[ModelFacts], inputs: NDArray[np.float64]) -> _Levels:
    """All levels of some windows. Raises RunError where a number is not finite."""
    outputs = model.run(series=inputs.astype(np.float32))
    levels: _Levels = outputs["quantiles"] if "quantiles" in outputs else outputs["forecast"][..., None]
    if not np.isfinite(levels).all():
        raise RunError("a forecast is not a finite number", model.path, "compare the table with the training data")
    return levels


def _time_of(series: Sequence[Series], row: int) -> str:
    """The time of a row counted over all series, with the series' name where there are several."""
    for each in series:
        if row < len(each):
            return f"{each.name} {each.time_of(row)}".strip()
        row -= len(each)
    raise IndexError(row)


if __name__ == "__main__":
    data = f"{', '.join(_NAMES)}, or a CSV file with the model's columns"
    run_evaluate(lambda: parse_evaluate(Config, data), TASK, ModelFacts, evaluate)
