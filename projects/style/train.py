"""Trains a style network, or paints one photograph: python -m projects.style.train --data DIR --style A.jpg B.jpg.

Both ways are the same loop with the same losses: `feedforward` changes a network's weights (Johnson et al. 2016, arXiv
1603.08155), `optimize` changes the pixels of one picture (Gatys et al. 2016). Muon for filters, Adam for all other
numbers, a cosine, averaged weights.
"""

import sys

from core.config import Command, answer_early, parse_training
from projects.style.config import PROJECT, SMOKE, Config, join_styles


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    words = join_styles(sys.argv[1:] if argv is None else argv)
    return parse_training(Config, "projects.style.train", SMOKE, words)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import distributed, plots
from core.accelerator import Accelerator
from core.data import Loader
from core.errors import run_command
from core.evaluation import Mean, evaluating
from core.optim import Combined, Ema, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import LoopState, Monitor, Stateful, best_state, fit, total_steps
from cuda_ext import build as kernels
from projects.style import pictures
from projects.style.compare import compare
from projects.style.data import (
    Batch,
    Repeated,
    Style,
    as_images,
    digest,
    load_content,
    load_data,
    load_styles,
    training_loader,
)
from projects.style.features import build_features
from projects.style.loss import Perceptual
from projects.style.model import Layer, Picture, StyleNet, one_hot

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value
EVALUATION_BATCH = 4


def train_step(
    batch: Batch,
    *,
    forward: nn.Module,
    perceptual: Perceptual,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One batch: results, losses, update. Returns the means of the losses over the batch."""
    images, styles = batch
    with accelerator.autocast():
        results = forward(images, one_hot(styles, perceptual.num_styles))
    losses = perceptual(results.float(), images, styles)
    accelerator.step(losses.loss.mean(), optimizer, scheduler=scheduler, ema=ema)
    return {name: values.detach().mean() for name, values in losses._asdict().items()}


def evaluate(
    held_out: Tensor, network: nn.Module, perceptual: Perceptual, accelerator: Accelerator
) -> dict[str, float]:
    """The mean losses over held-out photographs, float32 [M, 3, H, W], in all styles."""
    means = Mean()
    with evaluating(network):
        for number in range(perceptual.num_styles):
            for images in torch.split(held_out, EVALUATION_BATCH):
                styles = torch.full((len(images),), number, device=images.device)
                with accelerator.autocast():
                    results = network(images, one_hot(styles, perceptual.num_styles))
                losses = perceptual(results.float(), images, styles)
                means.add({name: values.sum() for name, values in losses._asdict().items()}, len(images))
    return means.result()


def evaluate_and_show(
    run: RunFolder[Config],
    scheduler: LambdaLR,
    held_out: Tensor,
    network: nn.Module,
    perceptual: Perceptual,
    accelerator: Accelerator,
) -> dict[str, float]:
    """evaluate, and the first held-out photograph in the first style as a picture of this step."""
    if run.world.is_main:
        blend = one_hot(torch.zeros(1, dtype=torch.int64, device=held_out.device), perceptual.num_styles)
        with evaluating(network), accelerator.autocast():
            pictures.save_progress(run.path, scheduler.last_epoch, network(held_out[:1], blend))
    return evaluate(held_out, network, perceptual, accelerator)


def prepare(
    config: Config, accelerator: Accelerator
) -> tuple[nn.Module, Loader[Batch], Tensor, Sequence[Style], dict[str, object]]:
    """What the two ways differ in: what is trained, on what, what is held out; the styles; facts of the data."""
    device = accelerator.device
    if config.method == "optimize":
        styles, content = load_styles(config), load_content(config).to(device)
        loader = Repeated((content, torch.zeros(1, dtype=torch.int64, device=device)))
        return Picture(content), loader, content, styles, {"model": "one picture"}
    data = load_data(config, device)
    styles, held_out = data.styles, as_images(data.held_out).to(device)
    network = StyleNet(len(styles), config.width, config.blocks)
    facts = {"num_train": len(data.train), "num_held_out": len(held_out), "model": f"{config.width} channels"}
    return network, training_loader(data, config, accelerator), held_out, styles, facts


def build_optimizer(network: nn.Module, config: Config) -> Optimizer:
    """Muon for the filters of layers, whose steps it makes as large as Adam's; AdamW for everything else."""
    lr, weight_decay = config.peak_lr, config.weight_decay
    filters = [layer.filters for layer in network.modules() if isinstance(layer, Layer)]
    if not filters:
        return AdamW(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    matrices = {id(each) for each in filters}
    others = [each for each in network.parameters() if id(each) not in matrices]
    return Combined(
        Muon(filters, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True),
    )


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = command.config, time.perf_counter()
    accelerator = Accelerator.of(config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    features = build_features(config, accelerator.device)
    network, loader, held_out, styles, facts = prepare(config, accelerator)
    forward = accelerator.prepare(network, channels_last=True)
    optimizer = build_optimizer(network, config)
    steps = total_steps(config, loader)
    scheduler = LambdaLR(optimizer, warmup_cosine(steps, round(config.warmup * steps), final=0.01))
    ema = Ema(network, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": network, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    kernels.ensure(accelerator.device.type)
    run = RunFolder.start(
        PROJECT,
        config,
        command.run_dir,
        resume=command.resume,
        facts={
            **facts,
            "features": features.description,
            "styles": [style.name for style in styles],
            "style_sha256": [digest(style.image) for style in styles],
            "held_out_sha256": digest(held_out),
        },
        world=accelerator.world,
        environment=kernels.status(accelerator.device.type).plain(),
    )
    if run.says_complete():
        return
    perceptual = Perceptual(features, [style.image.to(accelerator.device) for style in styles], config, accelerator)
    num_weights = sum(p.numel() for p in network.parameters())
    names = ", ".join(style.name for style in styles)
    run.say(f"{config.method}, {num_weights:,} numbers to learn, styles: {names}, {accelerator.describe()}")
    run.say(f"losses of {features.description}")
    judged = ema.module if ema is not None else network
    loop = fit(
        partial(
            train_step,
            forward=forward,
            perceptual=perceptual,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=ema,
            accelerator=accelerator,
        ),
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=partial(evaluate_and_show, run, scheduler, held_out, judged, perceptual, accelerator),
        monitor=Monitor("loss", larger_is_better=False),
    )
    distributed.stop()
    if run.world.is_main:
        trained = time.perf_counter() - began
        finish(run, loop, judged, held_out, styles, perceptual, accelerator, seconds=trained, smoke=command.smoke)


def finish(
    run: RunFolder[Config],
    loop: LoopState,
    network: nn.Module,
    held_out: Tensor,
    styles: Sequence[Style],
    perceptual: Perceptual,
    accelerator: Accelerator,
    *,
    seconds: float,
    smoke: bool,
) -> None:
    """Draws what the best weights make of held-out photographs, compares if asked for, sums up, says what is next."""
    if smoke:
        loop.check_learned(SMOKE_LOSS_RATIO)
    config, best = run.config, best_state(run, loop)
    network.load_state_dict(best["ema"]["module"] if config.ema else best["model"])
    description = perceptual.features.description
    numbers = evaluate(held_out, network, perceptual, accelerator)
    plots.curves(run.path, ["loss", "content", "style", "tv"])
    pictures.progress(run.path)
    if isinstance(network, Picture):
        pictures.save(network.pixels, run.path / "result.png")
    pictures.sheet(run.path, held_out, styles, network, accelerator, title=f"losses of {description}")
    compared = compare(network, held_out[: config.compare], perceptual, accelerator, run.path) if config.compare else {}
    run.summarize(
        {
            "features": description,
            **{f"held_out_{name}": value for name, value in numbers.items()},
            **compared,
            "best_step": loop.best_step,
            "steps": loop.step,
            "seconds": round(seconds, 1),  # of this process's training, without the comparison
        }
    )
    print(summary_text(run, loop, numbers, compared, description))


def summary_text(
    run: RunFolder[Config], loop: LoopState, numbers: dict[str, float], compared: dict[str, float], description: str
) -> str:
    """What is printed at the end."""
    losses = f"loss {numbers['loss']:.4f} = content {numbers['content']:.4f}, style {numbers['style']:.4f}, tv "
    text = f"\nheld out       {losses}{numbers['tv']:.4f}, weights of step {loop.best_step}; losses of {description}\n"
    if compared:
        text += (
            f"300 steps      loss {compared['optimized_loss']:.4f}; the network's {compared['network_loss']:.4f} is "
            f"{compared['loss_ratio']:.2f} times that, and {compared['times_faster']:,.0f} times as fast\n"
        )
    text += f"run folder     {run.path}  (metrics.jsonl, tensorboard/, checkpoints/)\n"
    text += f"pictures       {run.path}/plots: sheet.png, progress.png, curves.png\n"
    if run.config.method == "optimize":
        return text + f"result         {run.path}/result.png"
    return text + f"next           python -m projects.style.export {run.path}"


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
