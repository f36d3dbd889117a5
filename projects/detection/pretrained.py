"""The small detector's pyramid on a backbone that was pretrained on ImageNet, for training on few images.

The weights are installed with a package (core/vision/packaged_network.py). The layers up to stride 4 and the statistics
and scales of all norms stay as they are, as in torchvision's fine-tuning: batches of detection are too small for them.
"""

import importlib
from typing import Any, Self

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from core.vision.packaged_network import PackagedNetwork, packaged_network
from projects.detection.config import BACKBONE_PREFIX, Config
from projects.detection.model import PyramidDetector

_OUTPUTS = (2, 3, 4)  # of timm's stages, those of strides 8, 16 and 32
_FROZEN = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")


class Pretrained(PyramidDetector):
    """Pyramid and head on timm's layers of a packaged network.

    initial_weights: whether to load the package's weights; else they are random until a checkpoint's are loaded.
    """

    def __init__(self, packaged: PackagedNetwork, num_classes: int, *, initial_weights: bool) -> None:
        super().__init__()
        timm: Any = importlib.import_module("timm")
        self.backbone: Any = timm.create_model(packaged.model, features_only=True, out_indices=_OUTPUTS)
        self.statistics = packaged.mean, packaged.std
        if initial_weights:
            own = self.backbone.state_dict()
            self.backbone.load_state_dict({name: t for name, t in packaged.weights().items() if name in own})
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(parameter.ndim > 1 and not name.startswith(_FROZEN))
        self.add_head(num_classes, self.backbone.feature_info.channels())
        backbone = set(self.backbone.modules())
        self.initialize(module for module in self.modules() if module not in backbone)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the stages of strides 8, 16 and 32."""
        outputs: list[Tensor] = self.backbone(images)
        return outputs

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the backbone's norms."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def build_pretrained(config: Config, num_classes: int, *, initial_weights: bool) -> Pretrained:
    """The detector on the backbone that the settings name. Raises UserError for an unknown one."""
    name = config.backbone.removeprefix(BACKBONE_PREFIX)
    packaged = packaged_network(name, f"--backbone {config.backbone}")
    return Pretrained(packaged, num_classes, initial_weights=initial_weights)
