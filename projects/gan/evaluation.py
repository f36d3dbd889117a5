"""Samples of a generator against real images: after each epoch in brief, at the end in full.

Every distance stands beside that of as many held-out real images, which is the lowest that can be expected, and at the
end beside that of the untrained generator. All three are of equal numbers of images, because a Fréchet distance falls
with the number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core import randomness
from core.accelerator import Accelerator
from core.evaluation import evaluating
from projects.gan import metrics
from projects.gan.config import Config
from projects.gan.data import Data, pixels_of, to_pixels
from projects.gan.feature_classifier import FeatureClassifier
from projects.gan.lite_features import lite_distances

_NUM_REFERENCE = 10_000  # training images that a distance is measured to
_NUM_FOR_NEAREST = 256
_COPY_SHARE = 0.5  # of the held-out images' median distance to their nearest training image
_BATCH = 250


@dataclass(frozen=True)
class Evaluation:
    """How good samples are.

    numbers: Fréchet distance, precision, recall, diversity, and where the classifier has the data's classes, how many
    of them are covered and how often a sample is of the class that was asked for. missing: classes not covered.
    collapsed: why the samples count as collapsed, or None. pixels: the samples, uint8 [N, S, S, C].
    """

    numbers: dict[str, float]
    missing: list[str]
    collapsed: str | None
    pixels: Tensor


@dataclass(frozen=True)
class _Predictions:
    """What the classifier says of images: features float32 [N, D], classes int64 [N]."""

    features: Tensor
    classes: Tensor

    def first(self, num: int) -> "_Predictions":
        """Those of the first `num` images."""
        return _Predictions(self.features[:num], self.classes[:num])


class Evaluator:
    """Compares generators' samples with the real images, whose features it keeps."""

    def __init__(self, data: Data, classifier: FeatureClassifier, config: Config, accelerator: Accelerator) -> None:
        self.data, self.classifier, self.config, self.accelerator = data, classifier, config, accelerator
        self.num_classes = len(data.classes) if classifier.has_classes(data.classes) else 0
        chosen = randomness.permutation(config.seed, 0, len(data.held_out))  # no slice is of the first classes alone
        self.held_out_rows = chosen[: max(config.eval_samples, config.test_samples)].to(accelerator.device)
        self.real = self._predict(pixels_of(data.held_out)[self.held_out_rows])
        rows = randomness.permutation(config.seed, 1, len(data.train))[:_NUM_REFERENCE].to(accelerator.device)
        self.reference = metrics.gaussian(self._predict(pixels_of(data.train)[rows]).features)

    def evaluate(self, generator: nn.Module, num: int, purpose: str) -> Evaluation:
        """Evaluates `num` samples, or as many as there are held-out images; `purpose` decides their noise."""
        num = min(num, len(self.real.classes))
        pixels, labels = self._samples(generator, num, purpose)
        fake, real = self._predict(pixels), self.real.first(num)
        precision, recall = metrics.precision_recall(real.features, fake.features)
        numbers = {
            "frechet": metrics.frechet_distance(metrics.gaussian(fake.features), self.reference),
            "precision": precision,
            "recall": recall,
            "diversity": metrics.diversity(real.features, fake.features),
        }
        missing = []
        if self.num_classes:
            covered = metrics.covered_classes(real.classes, fake.classes, self.num_classes).tolist()
            missing = [name for name, there in zip(self.data.classes, covered, strict=True) if not there]
            numbers["classes_covered"] = float(sum(covered))
            if self.config.conditional:
                numbers["label_accuracy"] = float((fake.classes == labels).double().mean())
        return Evaluation(numbers, missing, metrics.collapse(numbers, self.num_classes), pixels)

    def real_distance(self, num: int) -> float:
        """The Fréchet distance of `num` held-out real images."""
        return metrics.frechet_distance(metrics.gaussian(self.real.first(num).features), self.reference)

    def copies(self, pixels: Tensor) -> tuple[dict[str, float], Tensor]:
        """How near samples uint8 [N, S, S, C] are to the training images, beside held-out ones; and the nearest ones.

        Distances are root mean squares in gray levels.
        """
        device, training = self.accelerator.device, pixels_of(self.data.train)
        rows, distances = metrics.nearest(pixels[:_NUM_FOR_NEAREST].to(device), training)
        held_out = pixels_of(self.data.held_out)[self.held_out_rows[:_NUM_FOR_NEAREST]]
        usual = metrics.nearest(held_out, training)[1].median()
        numbers = {
            "nearest_gray_levels": float(distances.median()),
            "nearest_gray_levels_held_out": float(usual),
            "copies": float((distances < _COPY_SHARE * usual).double().mean()),
        }
        return numbers, training[rows].cpu()

    def lite_distances(self, network: nn.Module, pixels: Tensor) -> dict[str, float]:
        """The Fréchet distances of lite_features.py, of `lite0_samples` images of each kind."""
        device, num = self.accelerator.device, self.config.lite0_samples
        rows = randomness.permutation(self.config.seed, 1, len(self.data.train))[:num].to(device)
        train, held_out = pixels_of(self.data.train)[rows], pixels_of(self.data.held_out)[self.held_out_rows[:num]]
        return lite_distances(network.to(device), train, held_out, pixels[:num].to(device))

    def _predict(self, pixels: Tensor) -> _Predictions:
        """The classifier's predictions for images uint8 [N, S, S, C]."""
        return _Predictions(*self.classifier.predict(pixels, self.accelerator))

    def _samples(self, generator: nn.Module, num: int, purpose: str) -> tuple[Tensor, Tensor]:
        """Samples uint8 [num, S, S, C] of noise that `purpose` decides, and the labels asked for, as in training."""
        random = randomness.generator(self.config.seed, 0, purpose)
        noise = torch.randn(num, self.config.latent, generator=random)
        rows = torch.randint(len(self.data.train), (num,), generator=random)
        labels = torch.from_numpy(self.data.train.labels)[rows]
        return generate(generator, noise, labels, self.accelerator), labels


def generate(generator: nn.Module, noise: Tensor, labels: Tensor, accelerator: Accelerator) -> Tensor:
    """A generator's images of noise [N, latent] and labels [N], in evaluation mode: uint8 [N, S, S, C] on the CPU."""
    parts = []
    with evaluating(generator):
        for some, asked in zip(torch.split(noise, _BATCH), torch.split(labels, _BATCH), strict=True):
            with accelerator.autocast():
                generated = generator(some.to(accelerator.device), asked.to(accelerator.device))
            parts.append(to_pixels(generated).cpu())
    return torch.cat(parts)
