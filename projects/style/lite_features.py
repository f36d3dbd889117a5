"""Feature maps of EfficientNet-Lite0, pretrained on ImageNet, whose weights are installed with a package.

Tan and Le 2019 (arXiv 1905.11946). The maps are those of expanded layers, after ReLU6: the narrow ones between the
blocks are linear, and have a sixth of the channels whose products the style loss compares.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.vision.packaged_network import PACKAGED

_NETWORK = PACKAGED["efficientnet_lite0"]
_EXPANDED = ("1.1", "2.1", "3.2")  # blocks: 144, 240 and 480 channels at a 4th, 8th and 16th of the image's size
_CONTENT = slice(1, 3)  # of the stem's map and these: those at a 4th and an 8th


class LiteFeatures(nn.Module):
    """The stem and the first four stages. Images are at least 32 pixels wide and high."""

    description = "EfficientNet-Lite0 (pretrained on ImageNet)"

    def __init__(self) -> None:
        super().__init__()
        network = _NETWORK.build()
        network.load_state_dict(_NETWORK.weights())
        self.stem = nn.Sequential(network.get_submodule("conv_stem"), network.get_submodule("bn1"))
        self.blocks, self.is_compared = nn.ModuleList(), list[bool]()
        stages = network.get_submodule("blocks")
        for name in (
            f"{stage}.{block}" for stage, part in stages.named_children() for block, _ in part.named_children()
        ):
            self.blocks.append(stages.get_submodule(name))
            self.is_compared.append(name in _EXPANDED)
            if name == _EXPANDED[-1]:
                break
        self.mean, self.std = (nn.Parameter(torch.tensor(v)[:, None, None]) for v in (_NETWORK.mean, _NETWORK.std))

    def content(self, images: Tensor) -> Sequence[Tensor]:
        """The maps at a 4th and an 8th of the size."""
        return self._maps(images, _CONTENT.stop)[_CONTENT]

    def style(self, images: Tensor) -> Sequence[Tensor]:
        """The stem's map, at half the size, and those at a 4th, an 8th and a 16th."""
        return self._maps(images, 1 + len(_EXPANDED))

    def forward(self, images: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """images: float32 [N, 3, H, W] in [0, 1]. Returns the maps of content and of style, from one pass."""
        maps = self.style(images)
        return maps[_CONTENT], maps

    def _maps(self, images: Tensor, num: int) -> Sequence[Tensor]:
        """The first `num` maps."""
        x = self.stem((images - self.mean) / self.std)
        maps: list[Tensor] = [x]
        for block, is_compared in zip(self.blocks, self.is_compared, strict=True):
            if is_compared:
                maps.append(block.get_submodule("bn1")(block.get_submodule("conv_pw")(x)))
                if len(maps) == num:
                    break
            x = block(x)
        return maps
