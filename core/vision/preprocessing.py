"""What an exported graph does before the network: uint8 images of any size become normalized squares.

The same steps as core.vision.decoding.center_square, in torch, so that training and serving see the same pixels up to
rounding. Exports with torch 2.11 and later.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.vision.decoding import MAX_ASPECT


class Normalize(nn.Module):
    """Values of 0 to 255 [N, C, H, W] → (value / 255 - mean) / std, per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)[:, None, None]))
        self.register_buffer("shift", -torch.tensor(mean)[:, None, None] / torch.tensor(std)[:, None, None])
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] in 0 to 255 → float32 [N, C, H, W]."""
        return x * self.scale + self.shift


class CenterSquare(nn.Module):
    """uint8 [N, H, W, 3] of any size → float32 [N, 3, size, size], normalized.

    The shorter side is resized to `side` (by default `size`) with antialiasing, and the middle `size` pixels are taken.
    Of an image that is longer than MAX_ASPECT times its shorter side, the middle part of that length is used.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], *, side: int | None = None) -> None:
        super().__init__()
        self.size, self.side = size, size if side is None else side
        self.normalize = Normalize(mean, std)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, 3, size, size]."""
        image = _at_most_aspect(image)
        shorter: Any = torch.sym_min(image.shape[1], image.shape[2])
        height, width = (extent * self.side // shorter for extent in image.shape[1:3])
        x = image.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
        # As in training: the middle square of `side` pixels, and of that the part that the network sees.
        inner = (self.side - self.size) // 2
        top, left = (height - self.side) // 2 + inner, (width - self.side) // 2 + inner
        square = torch.arange(self.size)  # rows and columns by number, so that the size stays known to the exporter
        x = x.index_select(2, top + square).index_select(3, left + square)
        normalized: Tensor = self.normalize(x)
        return normalized


class ImageClassifier(nn.Module):
    """What image classifiers export: uint8 [N, H, W, 3] of any size → probabilities float32 [N, num_classes].

    test_flip, test_shift: average the probabilities of an image's views; see views_of.
    """

    def __init__(
        self, network: nn.Module, preprocessing: CenterSquare, test_flip: bool, test_shift: bool = False
    ) -> None:
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        self.test_flip, self.test_shift = test_flip, test_shift

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, num_classes]."""
        views = views_of(self.preprocessing(image), flip=self.test_flip, shift=self.test_shift)
        return mean_probabilities(self.network, views)


def views_of(images: Tensor, *, flip: bool, shift: bool) -> list[Tensor]:
    """What is predicted from: images [N, 3, S, S], with `shift` also moved by one pixel up and left, and down and right
    (borders are mirrored), and with `flip` the mirror images of all these. Two or six views: Jordan 2024, arXiv
    2404.00498, section 3.5."""
    views = [images]
    if shift:
        height, width = images.shape[2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        views += [padded[:, :, 2:, 2:], padded[:, :, :height, :width]]
    return [*views, *(view.flip(3) for view in views)] if flip else views


def mean_probabilities(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """The mean of the probabilities that a network gives to views [N, 3, S, S]: float32 [N, num_classes]. All views are
    one batch, so that an exported graph holds the network once."""
    probabilities: Any = network(torch.cat(list(views))).float().softmax(1)
    mean: Tensor = probabilities.unflatten(0, (len(views), -1)).mean(0)
    return mean


def noise_images(num: int, height: int, width: int) -> Tensor:
    """Images of noise, uint8 [num, height, width, 3]: the hardest input for a resize."""
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)


def _at_most_aspect(image: Tensor) -> Tensor:
    """The middle part of images [N, H, W, C] that is at most MAX_ASPECT times as long as wide, or as wide as long."""
    full_height: Any = image.shape[1]
    full_width: Any = image.shape[2]
    height = torch.sym_min(full_height, MAX_ASPECT * full_width)
    width = torch.sym_min(full_width, MAX_ASPECT * full_height)
    rows = torch.arange(height) + (full_height - height) // 2
    columns = torch.arange(width) + (full_width - width) // 2
    return image.index_select(1, rows).index_select(2, columns)
