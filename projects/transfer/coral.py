"""Deep CORAL: training on labeled images and unlabeled ones of a target domain at once (--adapt coral).

Sun and Saenko 2016 (arXiv 1607.01719): beside the loss of the labeled images, the distance between the covariances of
the logits of both domains becomes small. Each labeled image of a batch is paired with a random target image, which is a
function of (seed, epoch, sample).
"""

import torch
from torch import Tensor

from core import randomness
from core.vision.image_set import ImageSet
from projects.transfer.augment import Preprocessing, training_view
from projects.transfer.config import Config


def with_target(
    images: Tensor,
    target: ImageSet,
    samples: Tensor,
    epoch: int,
    preprocessing: Preprocessing,
    table: Tensor,
    config: Config,
) -> Tensor:
    """A batch followed by as many augmented target images: [N, 3, S, S] → [2N, 3, S, S]. samples: int64 [N]."""
    rows = randomness.uniform_integers(config.seed, epoch, samples, "target", (len(target),))[:, 0]
    pixels = target.pixels
    if pixels is None:
        pixels = torch.from_numpy(target.load(rows.tolist())).to(images.device)
        rows = torch.arange(len(rows), device=images.device)
    views = training_view(pixels, rows, samples, epoch, preprocessing, table, config)
    return torch.cat([images, views]).contiguous(memory_format=torch.channels_last)


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """The squared distance of two covariances, divided by 4 d²: logits [N, d] and [M, d] → a scalar."""
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def _covariance(values: Tensor) -> Tensor:
    """[N, d] → [d, d]."""
    centered = values.float() - values.float().mean(0)
    return centered.T @ centered / max(1, len(values) - 1)
