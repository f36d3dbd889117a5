"""Trains the GAN: python -m projects.gan.train --data synthetic|digits|DIR.

Each step the discriminator learns to tell real pictures from drawn ones, then the generator to be taken for real; two
optimizers with a rate each (TTUR: Heusel et al. 2017, arXiv 1706.08500). All samples are of the averaged generator
(Yazıcı et al. 2019, arXiv 1806.04498).
"""

from core.config import Command, answer_early, parse_training
from projects.gan.config import PROJECT, SMOKE, Config, check_present


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    command = parse_training(Config, "projects.gan.train", SMOKE, argv)
    check_present(command.config, resume=command.resume)
    return command


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core import distributed
from core.accelerator import Accelerator
from core.errors import RunError, run_command
from core.run import RunFolder
from core.trainer import LoopState, Monitor, best_state, fit, total_steps
from cuda_ext import build as kernels
from projects.gan import pictures
from projects.gan.assessment import Assessor, draw
from projects.gan.augment import chosen, differentiable_augment
from projects.gan.closing import draw_all, report
from projects.gan.data import Batch, load_data, training_loader
from projects.gan.inception import build_inception, fid_kid, find_weights
from projects.gan.judge import find_judge, keep
from projects.gan.loss import discriminator_loss, generator_loss, r1_penalty
from projects.gan.players import Players, build_networks, build_players

SMOKE_DISTANCE_SHARE = 0.5  # a smoke run has to bring the distance below this share of the untrained generator's


def train_step(
    batch: Batch, *, players: Players, policy: Sequence[str], config: Config, accelerator: Accelerator
) -> dict[str, Tensor]:
    """One batch: the discriminator's update, then the generator's. Returns both losses and the mean logits.

    "loss" is the discriminator's. Real and drawn pictures go through it together, so that they are normalized alike.
    """
    images, labels = batch
    noise = torch.randn(len(images), config.latent, device=images.device)
    with accelerator.autocast():
        fakes = players.generate(noise, labels)
        shown = differentiable_augment(torch.cat([images, fakes.detach().to(images.dtype)]), policy)
        logits = players.discriminate(shown, labels.repeat(2)).float()
    real, fake = logits.chunk(2)
    loss = discriminator_loss(config.loss, real, fake)
    told_apart = {"loss": loss.detach(), "real_logit": real.detach().mean(), "fake_logit": fake.detach().mean()}
    if config.r1 and players.ema.num_updates % config.r1_every == 0:
        seen = differentiable_augment(images, policy)
        loss = loss + config.r1 * config.r1_every * r1_penalty(players.discriminator, seen, labels)
    accelerator.step(loss, players.discriminator_optimizer, scheduler=players.discriminator_scheduler)

    players.discriminator.requires_grad_(False)  # its gradients are not of this loss
    with accelerator.autocast():
        logits = players.discriminator(differentiable_augment(fakes, policy), labels).float()
    players.discriminator.requires_grad_(True)
    loss = generator_loss(config.loss, logits)
    accelerator.step(loss, players.generator_optimizer, scheduler=players.generator_scheduler, ema=players.ema)
    return {**told_apart, "generator_loss": loss.detach()}


def evaluate(assessor: Assessor, players: Players, run: RunFolder[Config]) -> dict[str, float]:
    """Judges samples, draws those of the fixed noise, and says so where they have collapsed."""
    found = assessor.assess(players.ema.module, run.config.eval_samples, "evaluation")
    if run.world.is_main:
        path = run.path / "plots" / "samples" / f"step-{players.ema.num_updates:08d}.png"
        drawing = partial(draw, players.ema.module, accelerator=assessor.accelerator)
        pictures.fixed_grid(drawing, run.config, run.facts["num_classes"], path)
    if found.collapsed is not None:
        run.say(f"collapse at step {players.ema.num_updates}: {found.collapsed}")
    return found.numbers


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = command.config, time.perf_counter()
    accelerator = Accelerator.of(config)
    data = load_data(config, accelerator.device)
    weights = find_weights(config)
    inception = None if weights is None else build_inception(weights)
    loader = training_loader(data, config, accelerator)
    judge = find_judge(config, data, accelerator, command.run_dir if command.resume else None)
    facts: dict[str, Any] = {
        "architecture": config.architecture,
        "classes": list(data.classes),
        "num_classes": len(data.classes) if config.conditional else 0,
        "channels": data.train.pixels.shape[3],
        "num_train": len(data.train),
        "num_held_out": len(data.held_out),
        "augment": list(chosen(config.augment, len(data.train))),
        "judge": judge.facts(),
    }
    players = build_players(config, facts, accelerator, total_steps(config, loader))
    kernels.ensure(accelerator.device.type)
    run = RunFolder.start(
        PROJECT,
        config,
        command.run_dir,
        resume=command.resume,
        facts=facts,
        world=accelerator.world,
        environment=kernels.status(accelerator.device.type).plain(),
    )
    if run.says_complete():
        return
    if run.world.is_main:
        keep(judge, run.path)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (players.generator, players.discriminator)]
    run.say(f"{facts['architecture']}, {sizes[0]:,} + {sizes[1]:,} weights, {len(data.train):,} training pictures")
    run.say(f"judge: {judge.title}; {accelerator.describe()}")
    assessor = Assessor(data, judge, config, accelerator)
    loop = fit(
        partial(train_step, players=players, policy=facts["augment"], config=config, accelerator=accelerator),
        loader,
        accelerator=accelerator,
        state=players.state(),
        run=run,
        evaluate=partial(evaluate, assessor, players, run),
        monitor=Monitor("frechet", larger_is_better=False),
    )
    distributed.stop()
    if run.world.is_main:
        finish(run, loop, assessor, players, inception, began=began, smoke=command.smoke)


def finish(
    run: RunFolder[Config],
    loop: LoopState,
    assessor: Assessor,
    players: Players,
    inception: nn.Module | None,
    *,
    began: float,
    smoke: bool,
) -> None:
    """Judges the best generator on fresh noise beside the untrained one; draws, sums up, says what to do next."""
    config, accelerator, data = run.config, assessor.accelerator, assessor.data
    generator = players.ema.module
    generator.load_state_dict(best_state(run, loop)["ema"]["module"])
    num = min(config.test_samples, len(assessor.real.classes))
    found = assessor.assess(generator, num, "test")
    numbers = dict(found.numbers)
    numbers["frechet_real"] = assessor.floor(num)
    untrained = build_networks(config, run.facts)[0].to(accelerator.device)
    numbers["frechet_untrained"] = assessor.assess(untrained, num, "test").numbers["frechet"]
    numbers["frechet_share"] = numbers["frechet"] / max(numbers["frechet_untrained"], 1e-12)
    if smoke and not numbers["frechet_share"] < SMOKE_DISTANCE_SHARE:
        where = f"Fréchet distance {numbers['frechet_untrained']:.3g} → {numbers['frechet']:.3g}"
        raise RunError("the smoke run did not learn", where, "see its metrics")
    copying, neighbors = assessor.copying(found.pixels)
    numbers.update(copying)
    if inception is not None:
        real = data.held_out.pixels[assessor.held_out_rows[:num]].cpu()
        numbers.update(fid_kid(inception, real, found.pixels, accelerator.device))
    drawing = partial(draw, generator, accelerator=accelerator)
    draw_all(run, drawing, found.pixels, neighbors, numbers["frechet_real"])
    run.summarize(
        {
            **numbers,
            "collapsed": found.collapsed is not None,
            "num_samples": num,
            "judge": run.facts["judge"]["title"],
            "best_val_frechet": loop.best,
            "best_step": loop.best_step,
            "steps": loop.step,
            "seconds": round(time.perf_counter() - began, 1),  # of this process, from the settings to here
        }
    )
    print(report(run, numbers, found, num), flush=True)


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
