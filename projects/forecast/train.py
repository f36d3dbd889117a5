"""Trains the forecaster: python -m projects.forecast.train --data etth1|etth2|ettm1|ettm2|synthetic|FILE.csv.

Recipe: AdamW, a short warm-up and a cosine, the absolute error as in SegRNN, averaged weights, early stopping.
Beside the network, every run scores seasonal-naive and the least-squares DLinear on the same test windows.
"""

from core.config import Command, answer_early, parse_training
from projects.forecast.config import PROJECT, SMOKE, Config, settled


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    return parse_training(Config, "projects.forecast.train", SMOKE, argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import json
import time
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import distributed
from core.accelerator import Accelerator
from core.checkpoint import write_atomically
from core.data import Loader
from core.distributed import World
from core.errors import RunError, run_command
from core.evaluation import Mean
from core.optim import Ema, decay_groups, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import LoopState, Monitor, Stateful, best_state, fit, total_steps
from projects.forecast.assessment import Results, baselines, draw, forecasts, new_scores, report, summary_of
from projects.forecast.data import Batch, Data, evaluation_loader, load_data, training_loader
from projects.forecast.metrics import forecast_loss
from projects.forecast.model import build_model

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value


def train_step(
    batch: Batch,
    *,
    forward: nn.Module,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
    config: Config,
) -> dict[str, Tensor]:
    """One batch: forecast, loss, update. Returns the mean loss of the batch."""
    inputs, targets = batch
    with accelerator.autocast():
        forecast = forward(inputs)
    loss = forecast_loss(forecast, targets, config.levels, config.loss)
    accelerator.step(loss, optimizer, scheduler=scheduler, ema=ema)
    return {"loss": loss.detach()}


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


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = settled(command.config), time.perf_counter()
    accelerator = Accelerator.of(config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config, accelerator.device)
    network = build_model(config, len(data.series.columns))
    loader = training_loader(data, config, accelerator)
    forward = accelerator.prepare(network)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)
    steps = total_steps(config, loader)
    scheduler = LambdaLR(optimizer, warmup_cosine(steps, round(config.warmup * steps)))
    ema = Ema(network, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": network, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    run = RunFolder.start(
        PROJECT, config, command.run_dir, resume=command.resume, facts=facts_of(data, config), world=accelerator.world
    )
    if run.says_complete():
        return
    introduce(run, data, network, accelerator)
    judged = ema.module if ema is not None else network
    loop = fit(
        partial(
            train_step,
            forward=forward,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=ema,
            accelerator=accelerator,
            config=config,
        ),
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=partial(evaluate, evaluation_loader(data.val, accelerator.world), judged, accelerator, config),
        monitor=Monitor("mse", larger_is_better=False),
    )
    distributed.stop()
    if run.world.is_main:
        finish(run, loop, data, judged, accelerator, began=began, smoke=command.smoke)


def facts_of(data: Data, config: Config) -> dict[str, Any]:
    """What export needs to know of the data, and what tells it from other data."""
    series = data.series
    return {
        "model": config.model,
        "columns": list(series.columns),
        "time_column": series.time_column,
        "time_format": series.time_format,
        "frequency": series.frequency.to_plain(),
        "season": data.season,
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "rows": list(data.rows),
        "sha256": data.sha256,
    }


def introduce(run: RunFolder[Config], data: Data, network: nn.Module, accelerator: Accelerator) -> None:
    """Says what was found in the table, and what is trained on it."""
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
    num_weights = sum(p.numel() for p in network.parameters())
    run.say(
        f"{config.model}, {num_weights:,} weights, {config.lookback} rows → {config.horizon}, "
        f"{len(data.train):,} training windows, {accelerator.describe()}"
    )


def finish(
    run: RunFolder[Config],
    loop: LoopState,
    data: Data,
    network: nn.Module,
    accelerator: Accelerator,
    *,
    began: float,
    smoke: bool,
) -> None:
    """Looks at the test windows, once, with the best weights; scores the baselines; draws, sums up, says what next."""
    config = run.config
    if smoke:
        loop.check_learned(SMOKE_LOSS_RATIO)
    best = best_state(run, loop)
    network.load_state_dict(best["ema"]["module"] if config.ema else best["model"])
    scores = new_scores(data, config, config.levels)
    for forecast, targets in forecasts(evaluation_loader(data.test, World()), network, accelerator):
        scores.add(forecast, targets)
    results: Results = {config.model: scores.result(data.series.columns)}
    if config.baselines:
        results |= baselines(data, config)
    if smoke and config.baselines and results[config.model]["mse"] >= results["seasonal naive"]["mse"]:
        where = f"{results[config.model]['mse']:.4f} and {results['seasonal naive']['mse']:.4f}"
        raise RunError("the smoke run does not beat seasonal-naive", where, "see its metrics")
    write_atomically(run.path / "test.json", json.dumps(results, indent=1).encode())
    draw(run, data, network, accelerator, scores, results)
    run.summarize(
        {
            **summary_of(results, config),
            "num_test_windows": len(data.test),
            "best_val_mse": loop.best,
            "best_step": loop.best_step,
            "steps": loop.step,
            "seconds": round(time.perf_counter() - began, 1),  # of this process, from the settings to here
        }
    )
    print(report(run, loop, results))


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
