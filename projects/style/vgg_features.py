"""Feature maps of a pretrained VGG (Simonyan and Zisserman 2014, arXiv 1409.1556), which the papers' losses use.

The layers are those of Johnson et al. 2016 (arXiv 1603.08155). Weights come from torchvision's cache, are downloaded
into it, or are read from a file, without pickle code; torchvision itself is not needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.weights import read_weights, torch_hub_file

# Channels of the 3×3 convolutions, "M" for pooling to half the size: tables D and E of the paper.
LAYERS: dict[str, Sequence[int | str]] = {
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512),
    "vgg19": (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512),
}
# Numbers of convolutions whose outputs after ReLU are used: relu1_2, 2_2, 3_3, 4_3 for style; relu3_3 for content.
_STYLE_MAPS = {"vgg16": (1, 3, 6, 9), "vgg19": (1, 3, 6, 10)}
_CONTENT_MAP = 6
# torchvision's IMAGENET1K_V1
_URLS = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}


class VggFeatures(nn.Module):
    """A VGG up to relu4_3; weights: (filters, biases) of each convolution."""

    def __init__(self, name: str, weights: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.name, self.description = name, f"{name} (pretrained on ImageNet)"
        self.filters = nn.ParameterList(filters for filters, _ in weights)
        self.biases = nn.ParameterList(biases for _, biases in weights)
        self.mean = nn.Parameter(torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.std = nn.Parameter(torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def content(self, images: Tensor) -> Sequence[Tensor]:
        """relu3_3."""
        return [self._maps(images, _CONTENT_MAP)[_CONTENT_MAP]]

    def style(self, images: Tensor) -> Sequence[Tensor]:
        """relu1_2, relu2_2, relu3_3 and relu4_3."""
        maps: Sequence[Tensor] = self(images)[1]
        return maps

    def forward(self, images: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """images: float32 [N, 3, H, W] in [0, 1]. Returns the maps of content and of style, from one pass."""
        maps = self._maps(images, _STYLE_MAPS[self.name][-1])
        return [maps[_CONTENT_MAP]], [maps[number] for number in _STYLE_MAPS[self.name]]

    def _maps(self, images: Tensor, last: int) -> list[Tensor]:
        """The outputs of all convolutions after ReLU, up to number `last`."""
        x, maps = (images - self.mean) / self.std, list[Tensor]()
        for layer in LAYERS[self.name]:
            if len(maps) > last:
                break
            if layer == "M":
                x = F.max_pool2d(x, 2)
            else:
                x = F.relu(F.conv2d(x, self.filters[len(maps)], self.biases[len(maps)], padding=1))
                maps.append(x)
        return maps


def load_vgg(name: str, path: Path | None) -> VggFeatures:
    """vgg16 or vgg19 with weights from a file, or torchvision's. Raises UserError."""
    path = path or torch_hub_file(_URLS[name])
    tensors = read_weights(path)
    weights = []
    for position, shape in vgg_shapes(name):
        filters = _checked(tensors, f"features.{position}.weight", shape, path, name)
        weights.append((filters, _checked(tensors, f"features.{position}.bias", shape[:1], path, name)))
    return VggFeatures(name, weights)


def _checked(tensors: Mapping[str, Tensor], key: str, shape: tuple[int, ...], path: Path, name: str) -> Tensor:
    """A tensor of a file as float32. Raises UserError for one that is missing, of another shape, or not finite."""
    tensor = tensors.get(key)
    if tensor is None or tensor.shape != shape or not tensor.is_floating_point():
        have = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
        where = f"{path}: {key} is {have}, must be {list(shape)}"
        raise UserError(f"not the weights of {name}", where, f"give a file of torchvision's {name}")
    if not tensor.isfinite().all():
        raise UserError("a weight is not finite", f"{path}: {key}", "give another file")
    return tensor.float()


def vgg_shapes(name: str) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The position in torchvision's `features` and the filters' shape of each convolution that is used."""
    result, channels, position = [], 3, 0
    for layer in LAYERS[name]:
        if isinstance(layer, int):
            result.append((position, (layer, channels, 3, 3)))
            channels = layer
        position += 2 if isinstance(layer, int) else 1  # a convolution is followed by its ReLU
    return result
