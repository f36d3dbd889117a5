"""The two networks and what trains them: an optimizer and a falling rate for each, and the generator's average."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core.accelerator import Accelerator
from core.optim import Ema, decay_groups, one_cycle
from core.randomness import seed_all
from core.trainer import Stateful
from projects.gan.config import Config
from projects.gan.model import Discriminator, Generator, normalize_weights

BETA2 = 0.99


@dataclass
class Players:
    """The two networks, what to call in their forward passes (compiled, parallel), and what trains them."""

    generator: Generator
    discriminator: Discriminator
    generate: nn.Module
    discriminate: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    generator_scheduler: LambdaLR
    discriminator_scheduler: LambdaLR
    ema: Ema

    def state(self) -> dict[str, Stateful]:
        """All of what training changes."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
            "generator_scheduler": self.generator_scheduler,
            "discriminator_scheduler": self.discriminator_scheduler,
            "ema": self.ema,
        }


def build_players(config: Config, facts: Mapping[str, Any], accelerator: Accelerator, steps: int) -> Players:
    """The networks on the device, with an optimizer each and its rate's way through all steps."""
    generator, discriminator = build_networks(config, facts)
    generate, discriminate = (accelerator.prepare(each, channels_last=True) for each in (generator, discriminator))
    first = build_optimizer(generator, config, config.lr)
    second = build_optimizer(discriminator, config, config.discriminator_lr)
    falling = one_cycle(steps, rise=0.0, start=1.0, final=config.lr_end)
    return Players(
        generator,
        discriminator,
        generate,
        discriminate,
        first,
        second,
        LambdaLR(first, falling),
        LambdaLR(second, falling),
        Ema(generator, config.ema),
    )


def build_optimizer(network: nn.Module, config: Config, lr: float) -> Optimizer:
    """Adam, with decay of matrices and filters apart from the gradient."""
    return AdamW(decay_groups(network, config.weight_decay), lr=lr, betas=(config.beta1, BETA2), fused=True)


def build_networks(config: Config, facts: Mapping[str, Any]) -> tuple[Generator, Discriminator]:
    """Both networks, untrained; the same ones each time."""
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    return build_generator(config, facts), build_discriminator(config, facts)


def build_generator(config: Config, facts: Mapping[str, Any]) -> Generator:
    """The generator that settings and a run's facts describe."""
    architecture, channels, num_classes = facts["architecture"], facts["channels"], facts["num_classes"]
    generator = Generator(architecture, config.size, channels, config.latent, config.width, num_classes)
    if config.spectral_norm == "both":
        normalize_weights(generator)
    return generator


def build_discriminator(config: Config, facts: Mapping[str, Any]) -> Discriminator:
    """The discriminator that settings and a run's facts describe."""
    architecture, channels, num_classes = facts["architecture"], facts["channels"], facts["num_classes"]
    normalized = config.spectral_norm != "none"
    return Discriminator(architecture, config.size, channels, config.width, num_classes, normalized)
