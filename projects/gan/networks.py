"""The two networks of a run, and the learner of each: Adam with a learning rate that falls linearly.

All samples are of the averaged generator (Yazıcı et al. 2019, arXiv 1806.04498).
"""

from torch import nn
from torch.optim import AdamW, Optimizer

from core.accelerator import Accelerator
from core.learner import Learner
from core.optim import decay_groups, one_cycle
from core.randomness import seed_all
from projects.gan.config import Config, Facts
from projects.gan.model import Discriminator, Generator, normalize_weights

_BETA2 = 0.99

GeneratorLearner = Learner[Generator]
DiscriminatorLearner = Learner[Discriminator]


def build_learners(
    config: Config, facts: Facts, accelerator: Accelerator, steps: int
) -> tuple[GeneratorLearner, DiscriminatorLearner]:
    """Both networks on the device, each with its optimizer and schedule; steps: of the whole training."""
    generator, discriminator = build_networks(config, facts)
    schedule = one_cycle(steps, rise=0.0, start=1.0, final=config.lr_end)
    adam = _adam(generator, config, config.lr)
    first = Learner(generator, adam, schedule, accelerator, ema=config.ema, channels_last=True)
    adam = _adam(discriminator, config, config.discriminator_lr)
    return first, Learner(discriminator, adam, schedule, accelerator, channels_last=True)


def build_networks(config: Config, facts: Facts) -> tuple[Generator, Discriminator]:
    """Both networks with their initial weights, which depend on the seed alone."""
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    generator = build_generator(config, facts)
    normalized, num_classes = config.spectral_norm != "none", len(facts.labels)
    return generator, Discriminator(
        facts.model, facts.image_size, facts.channels, config.width, num_classes, normalized
    )


def build_generator(config: Config, facts: Facts) -> Generator:
    """The generator that settings and facts describe, untrained."""
    generator = Generator(facts.model, facts.image_size, facts.channels, facts.latent, config.width, len(facts.labels))
    if config.spectral_norm == "both":
        normalize_weights(generator)
    return generator


def _adam(network: nn.Module, config: Config, lr: float) -> Optimizer:
    """Adam, with decoupled weight decay of matrices and filters."""
    return AdamW(decay_groups(network, config.weight_decay), lr=lr, betas=(config.beta1, _BETA2), fused=True)
