"""Trains the forecaster: python -m projects.forecast.train --data etth1|etth2|ettm1|ettm2|synthetic|FILE.csv.

Recipe: AdamW, a short warm-up and a cosine, the absolute error as in SegRNN, averaged weights, early stopping.
Beside the network, every run scores seasonal-naive and the least-squares DLinear on the same test windows.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.forecast.config import Config, Facts, settled

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.optim import AdamW

from core import distributed
from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.errors import RunError
from core.evaluation import Mean, count_weights
from core.files import write_json
from core.learner import Learner
from core.optim import decay_groups, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from projects.forecast.assessment import Results, baselines, draw, forecasts, new_scores, report_lines, summary_of
from projects.forecast.data import Batch, Data, evaluation_loader, load_data, training_loader
from projects.forecast.metrics import forecast_loss
from projects.forecast.model import build_model

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value


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
    network = build_model(config, len(data.series.columns))
    loader = training_loader(data, config, accelerator)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)
    steps = total_steps(config, loader)
    schedule = warmup_cosine(steps, round(config.warmup * steps))
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema)
    run = RunFolder.start(command, facts_of(data, config), accelerator.world)
    if run.says_complete():
        return
    introduce(run, data, network, accelerator)
    val = evaluation_loader(data.val, accelerator.world)
    loop = fit(
        partial(train_step, learner=learner, config=config),
        loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=partial(evaluate, val, learner.averaged, accelerator, config),
        monitor=Monitor("mse", larger_is_better=False),
    )
    distributed.stop()
    if run.world.is_main:
        if command.smoke:
            loop.check_learned(SMOKE_LOSS_RATIO)
        finish(run, loop, data, learner, smoke=command.smoke)


def evaluate(loader: Loader[Batch], network: nn.Module, accelerator: Accelerator, config: Config) -> dict[str, float]:
    """Standardized errors of the point forecast, and the loss, over all windows of a loader and all ranks."""
    means = Mean()
    for forecast, targets in forecasts(loader, network, accelerator):
        error = forecast[..., len(config.levels) // 2] - targets
        numbers = {
            "mse": error.square().mean(),
            "mae": error.abs().mean(),
            "loss": forecast_loss(forecast, targets, config.levels, config.loss),
        }
        means.add({name: value * len(targets) for name, value in numbers.items()}, len(targets))
    return means.result()


def facts_of(data: Data, config: Config) -> Facts:
    """What export needs to know of the data, and what tells it from other data."""
    series = data.series
    return Facts(
        model=config.model,
        columns=tuple(series.columns),
        time_column=series.time_column,
        time_format=series.time_format,
        frequency_unit=series.frequency.unit,
        frequency_count=series.frequency.count,
        season=data.season,
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
        rows=data.rows,
        num_train=len(data.train),
        data_sha256=data.sha256,
    )


def introduce(run: RunFolder[Config, Facts], data: Data, network: nn.Module, accelerator: Accelerator) -> None:
    """Says what is in the table, and what is trained on it."""
    series, config = data.series, run.config
    train_rows, val_rows, test_rows = data.rows
    named = ", ".join(series.columns[:8]) + (", …" if len(series.columns) > 8 else "")
    run.say(f"{len(series):,} rows, {series.frequency} apart, of {len(series.columns)} columns: {named}")
    if series.time_column is not None:
        run.say(f"time column {series.time_column}, from {series.shown(0)} to {series.shown(-1)}")
    if series.left_out:
        run.say(f"left out, as they hold no numbers: {', '.join(series.left_out)}")
    if series.filled:
        run.say(f"filled {series.filled:,} missing numbers by the rule {config.fill}")
    run.say(f"rows for training {train_rows:,}, validation {val_rows:,}, test {test_rows:,}")
    run.say(
        f"{config.model}, {count_weights(network):,} weights, {config.lookback} rows → {config.horizon}, "
        f"{len(data.train):,} training windows, {accelerator.describe()}"
    )


def finish(
    run: RunFolder[Config, Facts], loop: LoopState, data: Data, learner: Learner[nn.Module], *, smoke: bool
) -> None:
    """Evaluates the best weights on the test windows, once, beside the baselines; writes plots, summary and report."""
    config, accelerator = run.config, learner.accelerator
    learner.load_best(run, loop)
    network = learner.averaged
    scores = new_scores(data, config, config.levels)
    for forecast, targets in forecasts(evaluation_loader(data.test, World()), network, accelerator):
        scores.add(forecast, targets)
    results: Results = {config.model: scores.result(data.series.columns)}
    if config.baselines:
        results |= baselines(data, config)
    if smoke and config.baselines and results[config.model]["mse"] >= results["seasonal naive"]["mse"]:
        where = f"{results[config.model]['mse']:.4f} and {results['seasonal naive']['mse']:.4f}"
        raise RunError("the smoke run does not beat seasonal-naive", where, "see its metrics")
    write_json(run.path / "test.json", results)
    draw(run, data, network, accelerator, scores, results)
    numbers = {**summary_of(results, config), "num_test_windows": len(data.test), "best_val_mse": loop.best}
    run.summarize({**numbers, **loop.numbers()})
    run.report(report_lines(run, loop, results))


if __name__ == "__main__":
    run_training(Config, train)
