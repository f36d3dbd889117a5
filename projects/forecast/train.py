"""Trains the forecaster: python -m projects.forecast.train --data etth1|etth2|ettm1|ettm2|synthetic|FILE.csv.

Recipe: AdamW, a short warm-up and a cosine, the absolute error as in SegRNN, averaged weights, early stopping.
Beside the network, every run scores seasonal-naive and the least-squares DLinear on the same test windows.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.forecast.config import Config, Facts, settled

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.optim import AdamW

from core import plots
from core.accelerator import Accelerator
from core.data import Loader
from core.errors import RunError
from core.evaluation import Mean, count_weights
from core.files import write_json
from core.learner import Learner
from core.optim import decay_groups, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from projects.forecast.blend import Blend, build_blend, fit_blend
from projects.forecast.data import Batch, Data, evaluation_loader, load_data, training_loader
from projects.forecast.evaluation import (
    SEASONAL_NAIVE,
    Results,
    forecasts,
    plot_results,
    report_lines,
    score_baselines,
    score_network,
    summarize,
)
from projects.forecast.loss import forecast_loss
from projects.forecast.model import build_model


def train_step(batch: Batch, *, learner: Learner[nn.Module], config: Config) -> dict[str, Tensor]:
    """One batch: forecast, loss, update. Returns the mean loss of the batch."""
    inputs, targets = batch
    with learner.accelerator.autocast():
        forecast = learner.forward(inputs)
    loss = forecast_loss(forecast, targets, config.levels, config.loss)
    learner.step(loss)
    return {"loss": loss.detach()}


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    command = replace(command, config=settled(command.config))
    config, accelerator = command.config, Accelerator.of(command.config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config, accelerator.device)
    network = build_blend(config, data) if config.blend else build_model(config, len(data.columns))
    loader = training_loader(data, config, accelerator)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)
    steps = total_steps(config, loader)
    schedule = warmup_cosine(steps, round(config.warmup * steps))
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema)
    run = RunFolder.start(command, facts_of(data, config), accelerator.world)
    if run.says_complete():
        return
    run.say_all(data.notes)
    windows = f"{len(data.train):,} windows of {config.lookback} + {config.horizon} rows"
    run.say(f"{config.model}, {count_weights(network):,} weights, {windows}; {accelerator.describe()}")
    val = evaluation_loader(data.val, accelerator.world)
    blends = [module for module in (learner.averaged, network) if isinstance(module, Blend)]
    fit_before = partial(fit_blend, blends, data.val, config.levels, accelerator) if blends else dict
    loop = fit(
        partial(train_step, learner=learner, config=config),
        loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=partial(evaluate, val, learner.averaged, accelerator, config, fit_before),
        monitor=Monitor("mse", larger_is_better=False),
        graph_key=lambda: "step",
    )
    if run.world.is_main:
        finish(run, loop, data, learner)


def evaluate(
    loader: Loader[Batch],
    network: nn.Module,
    accelerator: Accelerator,
    config: Config,
    fit_before: Callable[[], dict[str, float]] = dict,
) -> dict[str, float]:
    """Standardized errors of the point forecast, and the loss, over all windows of a loader and all ranks.

    fit_before: fits a part of the network on these windows; what it returns is among the numbers.
    """
    fitted = fit_before()
    means = Mean()
    for forecast, targets in forecasts(loader, network, accelerator):
        error = forecast[..., len(config.levels) // 2] - targets
        numbers = {
            "mse": error.square().mean(),
            "mae": error.abs().mean(),
            "loss": forecast_loss(forecast, targets, config.levels, config.loss),
        }
        means.add({name: value * len(targets) for name, value in numbers.items()}, len(targets))
    return {**means.result(), **fitted}


def facts_of(data: Data, config: Config) -> Facts:
    """What export needs to know of the data, and what tells it from other data."""
    has_times = data.series[0].time_column is not None
    return Facts(
        model=config.model,
        columns=data.columns,
        time_column=data.series[0].time_column,
        time_format=config.time_format if has_times else None,
        series_column=config.series_column,
        frequency=data.frequency,
        season=data.season,
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
        rows=data.num_rows,
        num_train=len(data.train),
        data_sha256=data.sha256,
    )


def finish(run: RunFolder[Config, Facts], loop: LoopState, data: Data, learner: Learner[nn.Module]) -> None:
    """Evaluates the best weights on the test windows, once, beside the baselines; writes plots, summary and report."""
    config, accelerator = run.config, learner.accelerator
    learner.load_best(run, loop)
    scores = score_network(data, learner.averaged, accelerator, config)
    results: Results = {config.model: scores.result(data.columns)}
    if config.baselines:
        results |= score_baselines(data, config)
    if run.smoke and config.baselines and results[config.model]["mse"] >= results[SEASONAL_NAIVE]["mse"]:
        where = f"{results[config.model]['mse']:.4f} and {results[SEASONAL_NAIVE]['mse']:.4f}"
        raise RunError("the smoke run is not better than seasonal-naive", where, "see its metrics")
    write_json(run.path / "test.json", results)
    with plots.optional():
        plots.curves(run.path, ["loss", "mse"])
        plot_results(run.path / "plots", data, learner.averaged, accelerator, scores, results)
    numbers = {**summarize(results, config), "num_test_windows": len(data.test), "best_val_mse": loop.best}
    run.summarize({**numbers, **loop.numbers()})
    run.report({**report_lines(results, config), "all scores": f"{run.path}/test.json"})


if __name__ == "__main__":
    run_training(Config, train)
