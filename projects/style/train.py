"""Trains a style network, or paints one photograph: python -m projects.style.train --data DIR --style A.jpg B.jpg.

Both methods are the same loop with the same losses: `feedforward` changes a network's weights (Johnson et al. 2016,
arXiv 1603.08155), `optimize` changes the pixels of one image (Gatys et al. 2016). Muon for filters, Adam for all other
numbers, a cosine schedule, averaged weights.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.style.config import Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from core.accelerator import Accelerator
from core.errors import printable
from core.evaluation import Mean, count_weights, evaluating
from core.learner import Learner
from core.muon import Muon
from core.optim import Combined, warmup_cosine
from core.plots import curves, optional
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from core.vision.image_grid import save_image
from cuda_ext import build as kernels
from projects.style import plots
from projects.style.data import Batch, Data, image_sha256, load_data, to_pixels
from projects.style.features import build_features, features_sha256
from projects.style.loss import Perceptual
from projects.style.model import Layer, OptimizedImage, StyleNet, one_hot
from projects.style.optimization_baseline import NUM_STEPS, compare_with_optimization

_EVALUATION_BATCH = 4


def train_step(batch: Batch, *, learner: Learner[nn.Module], perceptual: Perceptual) -> dict[str, Tensor]:
    """One batch: results, losses, update. Returns the means of the losses over the batch."""
    images, styles = batch
    with learner.accelerator.autocast():
        results = learner.forward(images, one_hot(styles, perceptual.num_styles))
    losses = perceptual(results.float(), images, styles)
    learner.step(losses.loss.mean())
    return {name: values.detach().mean() for name, values in losses._asdict().items()}


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    config, accelerator = command.config, Accelerator.of(command.config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    environment = kernels.for_run(accelerator.device.type)
    features = build_features(config, accelerator.device)
    data = load_data(config, accelerator)
    perceptual = Perceptual(features, [style.image for style in data.styles], config, accelerator)
    network = build_network(config, data)
    steps = total_steps(config, data.loader)
    schedule = warmup_cosine(steps, round(config.warmup * steps), final=0.01)
    optimizer = build_optimizer(network, config)
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema, channels_last=True)
    run = RunFolder.start(command, facts_of(config, data, perceptual), accelerator.world, environment)
    if run.says_complete():
        return
    say_what_is_trained(run, data, learner)
    loop = fit(
        partial(train_step, learner=learner, perceptual=perceptual),
        data.loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=partial(evaluate_and_show, run, data.held_out, learner, perceptual),
        monitor=Monitor("loss", larger_is_better=False),
        graph_key=lambda: "step",
    )
    if run.world.is_main:
        finish(run, loop, data, learner, perceptual)


def build_network(config: Config, data: Data) -> nn.Module:
    """What is trained: a network for all photographs, or the pixels of one."""
    if config.method == "optimize":
        return OptimizedImage(data.held_out)
    return StyleNet(len(data.styles), config.width, config.blocks)


def build_optimizer(network: nn.Module, config: Config) -> Optimizer:
    """Muon for the filters of layers, with steps as large as Adam's; AdamW for everything else."""
    lr, weight_decay = config.peak_lr, config.weight_decay
    filters = [layer.filters for layer in network.modules() if isinstance(layer, Layer)]
    if not filters:
        return AdamW(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    matrices = {id(each) for each in filters}
    others = [each for each in network.parameters() if id(each) not in matrices]
    return Combined(
        Muon(filters, lr=lr, weight_decay=weight_decay, match_adam=True),
        AdamW(others, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True),
    )


def facts_of(config: Config, data: Data, perceptual: Perceptual) -> Facts:
    """What export and inference need of this run."""
    return Facts(
        model="one image" if config.method == "optimize" else f"{config.width} channels",
        features=perceptual.features.description,
        features_sha256=features_sha256(perceptual.features),
        styles=tuple(style.name for style in data.styles),
        style_sha256=tuple(image_sha256(style.image) for style in data.styles),
        num_train=data.num_train,
        num_held_out=len(data.held_out),
        data_sha256=data.sha256,
    )


def say_what_is_trained(run: RunFolder[Config, Facts], data: Data, learner: Learner[nn.Module]) -> None:
    """Prints the opening lines."""
    facts, photographs = run.facts, "photograph" if data.num_train == 1 else "photographs"
    size = f"{count_weights(learner.network):,} weights, {data.num_train:,} {photographs}"
    run.say(f"{run.config.method}, {facts.model}, {size}; {learner.accelerator.describe()}")
    run.say(f"losses of {facts.features}; styles: {printable(', '.join(facts.styles))}")
    for note in data.notes:
        run.say(f"note: {printable(note)}")


def evaluate(
    held_out: Tensor, network: nn.Module, perceptual: Perceptual, accelerator: Accelerator
) -> dict[str, float]:
    """The mean losses over held-out photographs, float32 [M, 3, H, W] in [0, 1], in all styles."""
    means = Mean()
    with evaluating(network):
        for number in range(perceptual.num_styles):
            for images in torch.split(held_out, _EVALUATION_BATCH):
                styles = torch.full((len(images),), number, device=images.device)
                with accelerator.autocast():
                    results = network(images, one_hot(styles, perceptual.num_styles))
                losses = perceptual(results.float(), images, styles)
                means.add({name: values.sum() for name, values in losses._asdict().items()}, len(images))
    return means.result()


def evaluate_and_show(
    run: RunFolder[Config, Facts], held_out: Tensor, learner: Learner[nn.Module], perceptual: Perceptual
) -> dict[str, float]:
    """evaluate, and the first held-out photograph in the first style as an image of this step."""
    network, accelerator = learner.averaged, learner.accelerator
    if run.world.is_main:
        blend = one_hot(torch.zeros(1, dtype=torch.int64, device=held_out.device), perceptual.num_styles)
        with evaluating(network), accelerator.autocast():
            plots.save_step(run.path, learner.num_steps, network(held_out[:1], blend))
    return evaluate(held_out, network, perceptual, accelerator)


def finish(
    run: RunFolder[Config, Facts],
    loop: LoopState,
    data: Data,
    learner: Learner[nn.Module],
    perceptual: Perceptual,
) -> None:
    """Evaluates the best weights, plots held-out photographs, compares if asked for, writes summary and report."""
    learner.load_best(run, loop)
    config, network, accelerator = run.config, learner.averaged, learner.accelerator
    numbers = evaluate(data.held_out, network, perceptual, accelerator)
    if isinstance(network, OptimizedImage):
        save_image(to_pixels(network.pixels), run.path / "result.png")
    title = f"losses of {run.facts.features}"
    with optional():
        curves(run.path, ["loss", "content", "style", "tv"])
        plots.save_progress(run.path)
        plots.save_held_out(run.path, data.held_out, data.styles, network, accelerator, title=title)
    compared: dict[str, float] = {}
    if config.compare:
        photographs = data.held_out[: config.compare]
        compared = compare_with_optimization(network, photographs, perceptual, accelerator, run.path)
    held_out = {f"held_out_{name}": value for name, value in numbers.items()}
    run.summarize({"features": run.facts.features, **held_out, **compared, **loop.numbers()})
    next_step = f"look at {run.path / 'result.png'}" if config.method == "optimize" else None
    run.report(report_lines(numbers, compared, loop), next_step)


def report_lines(numbers: Mapping[str, float], compared: Mapping[str, float], loop: LoopState) -> dict[str, str]:
    """The results as the closing report shows them."""
    parts = ", ".join(f"{name} {numbers[name]:.4f}" for name in ("content", "style", "tv"))
    lines = {"held-out loss": f"{numbers['loss']:.4f} ({parts}), weights of step {loop.best_step}"}
    if compared:
        lines[f"{NUM_STEPS} steps"] = (
            f"loss {compared['optimized_loss']:.4f}; the network's {compared['network_loss']:.4f} is "
            f"{compared['loss_ratio']:.2f} times that, and {compared['times_faster']:,.0f} times as fast"
        )
    return lines


if __name__ == "__main__":
    run_training(Config, train)
