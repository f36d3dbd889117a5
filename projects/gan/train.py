"""Trains the GAN: python -m projects.gan.train --data synthetic|digits|DIR.

Each step updates the discriminator, which tells real images from generated ones, then the generator, whose images the
discriminator should take for real; each has a learning rate of its own (TTUR: Heusel et al. 2017, arXiv 1706.08500).
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.gan.config import Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import RunError
from core.evaluation import count_weights
from core.plots import optional
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from cuda_ext import build as kernels
from projects.gan import plots
from projects.gan.augment import differentiable_augment, parse_policy
from projects.gan.data import Batch, Data, load_data, pixels_of, training_loader
from projects.gan.evaluation import Evaluator, generate
from projects.gan.feature_classifier import FeatureClassifier, find_classifier
from projects.gan.inception import build_inception, fid_kid, find_weights
from projects.gan.lite_features import build_lite
from projects.gan.loss import discriminator_loss, generator_loss, r1_penalty
from projects.gan.networks import DiscriminatorLearner, GeneratorLearner, build_learners, build_networks
from projects.gan.report import plot_all, results

_SMOKE_DISTANCE_SHARE = 0.5  # a smoke run has to bring the distance below this share of the untrained generator's


def train_step(
    batch: Batch,
    *,
    generator: GeneratorLearner,
    discriminator: DiscriminatorLearner,
    policy: Sequence[str],
    config: Config,
) -> dict[str, Tensor]:
    """One batch: the discriminator's update, then the generator's. Returns both losses and the mean logits.

    "loss" is the discriminator's. Real and generated images go through it in one batch, so that they are normalized
    alike. policy: augmentations of both.
    """
    images, labels = batch
    autocast = generator.accelerator.autocast
    noise = torch.randn(len(images), config.latent, device=images.device)
    with autocast():
        fakes = generator.forward(noise, labels)
        both = differentiable_augment(torch.cat([images, fakes.detach().to(images.dtype)]), policy)
        logits = discriminator.forward(both, labels.repeat(2)).float()
    real, fake = logits.chunk(2)
    loss = discriminator_loss(config.loss, real, fake)
    metrics = {"loss": loss.detach(), "real_logit": real.detach().mean(), "fake_logit": fake.detach().mean()}
    if is_penalized(generator, config):
        augmented = differentiable_augment(images, policy)
        loss = loss + config.r1 * config.r1_every * r1_penalty(discriminator.network, augmented, labels)
    discriminator.step(loss)

    discriminator.network.requires_grad_(False)  # the generator's loss gives it no gradients
    with autocast():
        logits = discriminator.network(differentiable_augment(fakes, policy), labels).float()
    discriminator.network.requires_grad_(True)
    loss = generator_loss(config.loss, logits)
    generator.step(loss)
    return {**metrics, "generator_loss": loss.detach()}


def is_penalized(generator: GeneratorLearner, config: Config) -> bool:
    """Whether the next step adds the penalty of the discriminator's gradient."""
    return config.r1 > 0 and generator.num_steps % config.r1_every == 0


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    config, accelerator = command.config, Accelerator.of(command.config)
    data = load_data(config, accelerator.device)
    weights = find_weights(config)
    inception = None if weights is None else build_inception(weights)
    lite = build_lite() if config.lite0_samples else None
    classifier = find_classifier(config, data, accelerator, command.run_dir if command.resume else None)
    facts = _build_facts(config, data, classifier)
    loader = training_loader(data, config, accelerator)
    generator, discriminator = build_learners(config, facts, accelerator, total_steps(config, loader))
    run = RunFolder.start(command, facts, accelerator.world, kernels.for_run(accelerator.device.type))
    if run.says_complete():
        return
    if run.world.is_main:
        classifier.store(run.path)
    run.say_all(data.notes)
    sizes = " + ".join(f"{count_weights(learner.network):,}" for learner in (generator, discriminator))
    run.say(f"{facts.model}, {sizes} weights, {len(data.train):,} images; {accelerator.describe()}")
    evaluator = Evaluator(data, classifier, config, accelerator)
    loop = fit(
        partial(train_step, generator=generator, discriminator=discriminator, policy=facts.augment, config=config),
        loader,
        accelerator=accelerator,
        state=generator.state("generator_") | discriminator.state("discriminator_"),
        run=run,
        evaluate=partial(evaluate, evaluator, generator, run),
        monitor=Monitor("frechet", larger_is_better=False),
        graph_key=lambda: is_penalized(generator, config),
        smoke_loss_ratio=None,  # two losses against each other need not fall; the distance has to, see finish
    )
    if run.world.is_main:
        finish(run, loop, evaluator, generator, inception, lite, smoke=command.smoke)


def evaluate(evaluator: Evaluator, generator: GeneratorLearner, run: RunFolder[Config, Facts]) -> dict[str, float]:
    """Evaluates samples, plots those of the fixed noise, and says so where they have collapsed."""
    evaluation = evaluator.evaluate(generator.averaged, run.config.eval_samples, "evaluation")
    if run.world.is_main:
        path = run.path / "plots" / "samples" / f"step-{generator.num_steps:08d}.png"
        generated = partial(generate, generator.averaged, accelerator=evaluator.accelerator)
        plots.fixed_grid(generated, run.config, len(run.facts.labels), path)
    if evaluation.collapsed is not None:
        run.say(f"collapse at step {generator.num_steps}: {evaluation.collapsed}")
    return evaluation.numbers


def _build_facts(config: Config, data: Data, classifier: FeatureClassifier) -> Facts:
    """What run.json says of the data and the networks."""
    return Facts(
        model=config.architecture,
        classes=tuple(data.classes),
        conditional=config.conditional and len(data.classes) > 0,
        channels=pixels_of(data.train).shape[3],
        image_size=config.size,
        latent=config.latent,
        augment=parse_policy(config.augment, len(data.train)),
        num_train=len(data.train),
        num_held_out=len(data.held_out),
        classifier=classifier.facts(),
        data_sha256=data.sha256,
    )


def finish(
    run: RunFolder[Config, Facts],
    loop: LoopState,
    evaluator: Evaluator,
    generator: GeneratorLearner,
    inception: nn.Module | None,
    lite: nn.Module | None,
    *,
    smoke: bool,
) -> None:
    """Evaluates the best generator on fresh noise beside the untrained one; writes plots and summary, and reports."""
    config, accelerator = run.config, evaluator.accelerator
    generator.load_best(run, loop, "generator_")
    num = min(config.test_samples, len(evaluator.real.classes))
    evaluation = evaluator.evaluate(generator.averaged, num, "test")
    numbers = dict(evaluation.numbers)
    numbers["frechet_real"] = evaluator.real_distance(num)
    untrained = build_networks(config, run.facts)[0].to(accelerator.device)
    numbers["frechet_untrained"] = evaluator.evaluate(untrained, num, "test").numbers["frechet"]
    numbers["frechet_share"] = numbers["frechet"] / max(numbers["frechet_untrained"], 1e-12)
    if smoke and not numbers["frechet_share"] < _SMOKE_DISTANCE_SHARE:
        where = f"Fréchet distance {numbers['frechet_untrained']:.3g} → {numbers['frechet']:.3g}"
        raise RunError("the smoke run did not learn", where, "see its metrics")
    copies, neighbors = evaluator.copies(evaluation.pixels)
    numbers.update(copies)
    if inception is not None:
        real = pixels_of(evaluator.data.held_out)[evaluator.held_out_rows[:num]].cpu()
        numbers.update(fid_kid(inception, real, evaluation.pixels, accelerator.device))
    if lite is not None:
        numbers.update(evaluator.lite_distances(lite, evaluation.pixels))
    generated = partial(generate, generator.averaged, accelerator=accelerator)
    with optional():
        plot_all(run, generated, evaluation.pixels, neighbors, numbers["frechet_real"])
    run.summarize(
        {
            **numbers,
            "collapsed": evaluation.collapsed is not None,
            "num_samples": num,
            "feature_classifier": run.facts.classifier.title,
            "best_val_frechet": loop.best,
            **loop.numbers(),
        }
    )
    run.report(results(run, numbers, evaluation, num))


if __name__ == "__main__":
    run_training(Config, train)
