"""Samples of a generator against real pictures: after each epoch in brief, at the end in full.

Every distance stands beside its floor, that of as many held-out real pictures, and at the end beside that of the
generator before training. The three are of equal numbers of pictures, because a Fréchet distance falls with the number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core import randomness
from core.accelerator import Accelerator
from core.evaluation import evaluating
from projects.gan import metrics
from projects.gan.config import Config
from projects.gan.data import Data, to_pixels
from projects.gan.judge import Judge, knows

NUM_REFERENCE = 10_000  # training pictures that a distance is measured to
NUM_FOR_NEAREST = 256
COPY_SHARE = 0.5  # of the held-out pictures' median distance to their nearest training picture
AT_ONCE = 250


@dataclass(frozen=True)
class Seen:
    """Pictures as the judge sees them: features float32 [N, D], classes int64 [N]."""

    features: Tensor
    classes: Tensor

    def first(self, num: int) -> "Seen":
        """The first `num`."""
        return Seen(self.features[:num], self.classes[:num])


@dataclass(frozen=True)
class Assessment:
    """What samples are worth.

    numbers: Fréchet distance, precision, recall, diversity, and where the judge knows the classes, how many of them are
    covered and how often the one asked for was drawn. missing: classes not covered. collapsed: in words, or None.
    pixels: the samples.
    """

    numbers: dict[str, float]
    missing: list[str]
    collapsed: str | None
    pixels: Tensor


class Assessor:
    """Knows the real pictures; judges generators."""

    def __init__(self, data: Data, judge: Judge, config: Config, accelerator: Accelerator) -> None:
        self.data, self.judge, self.config, self.accelerator = data, judge, config, accelerator
        self.num_classes = len(data.classes) if knows(judge, data.classes) else 0
        chosen = randomness.permutation(config.seed, 0, len(data.held_out))  # no slice is of the first classes alone
        self.held_out_rows = chosen[: max(config.eval_samples, config.test_samples)].to(accelerator.device)
        self.real = self.see(data.held_out.pixels[self.held_out_rows])
        reference = randomness.permutation(config.seed, 1, len(data.train))[:NUM_REFERENCE].to(accelerator.device)
        self.reference = metrics.gaussian(self.see(data.train.pixels[reference]).features)

    def see(self, pixels: Tensor) -> Seen:
        """Pictures uint8 [N, S, S, C] with the judge's eyes."""
        return Seen(*self.judge.look(pixels, self.accelerator))

    def samples(self, generator: nn.Module, num: int, purpose: str) -> tuple[Tensor, Tensor]:
        """Pictures uint8 [num, S, S, C] of the noise that `purpose` names, and the labels asked for."""
        random = randomness.generator(self.config.seed, 0, purpose)
        noise = torch.randn(num, self.config.latent, generator=random)
        labels = self.data.train.labels.cpu()[torch.randint(len(self.data.train), (num,), generator=random)]
        return draw(generator, noise, labels, self.accelerator), labels

    def assess(self, generator: nn.Module, num: int, purpose: str) -> "Assessment":
        """Judges `num` samples, or as many as there are held-out pictures."""
        num = min(num, len(self.real.classes))
        pixels, labels = self.samples(generator, num, purpose)
        seen, real = self.see(pixels), self.real.first(num)
        precision, recall = metrics.precision_recall(real.features, seen.features)
        numbers = {
            "frechet": metrics.frechet_distance(metrics.gaussian(seen.features), self.reference),
            "precision": precision,
            "recall": recall,
            "diversity": metrics.diversity(real.features, seen.features),
        }
        missing = []
        if self.num_classes:
            covered = metrics.covered_classes(real.classes, seen.classes, self.num_classes).tolist()
            missing = [name for name, there in zip(self.data.classes, covered, strict=True) if not there]
            numbers["classes_covered"] = float(sum(covered))
            if self.config.conditional:
                numbers["label_accuracy"] = float((seen.classes == labels).double().mean())
        return Assessment(numbers, missing, metrics.collapse(numbers, self.num_classes), pixels)

    def floor(self, num: int) -> float:
        """The distance of held-out real pictures, as many as there are samples."""
        return metrics.frechet_distance(metrics.gaussian(self.real.first(num).features), self.reference)

    def copying(self, pixels: Tensor) -> tuple[dict[str, float], Tensor]:
        """How near samples uint8 [N, S, S, C] lie to the training pictures, beside held-out ones; their nearest."""
        device, training = self.accelerator.device, self.data.train.pixels
        rows, distances = metrics.nearest(pixels[:NUM_FOR_NEAREST].to(device), training)
        held_out = self.data.held_out.pixels[self.held_out_rows[:NUM_FOR_NEAREST]]
        usual = metrics.nearest(held_out, training)[1].median()
        numbers = {
            "nearest_grey_levels": float(distances.median()),
            "nearest_grey_levels_held_out": float(usual),
            "copies": float((distances < COPY_SHARE * usual).double().mean()),
        }
        return numbers, training[rows].cpu()


def draw(generator: nn.Module, noise: Tensor, labels: Tensor, accelerator: Accelerator) -> Tensor:
    """A generator's pictures of noise [N, latent] and labels [N] in evaluation mode: uint8 [N, S, S, C], on the CPU."""
    parts = []
    with evaluating(generator):
        for some, asked in zip(torch.split(noise, AT_ONCE), torch.split(labels, AT_ONCE), strict=True):
            with accelerator.autocast():
                drawn = generator(some.to(accelerator.device), asked.to(accelerator.device))
            parts.append(to_pixels(drawn).cpu())
    return torch.cat(parts)
