"""A second Fréchet distance, in features of EfficientNet-Lite0, which was pretrained on ImageNet.

It is no FID, which is defined by Inception's features (see inception.py), and its values compare with each other
alone. But unlike the small classifier's, these features do not depend on the run's own images. The weights are
installed with a package. Tan and Le 2019 (arXiv 1905.11946).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.vision.packaged_network import PACKAGED
from projects.gan import metrics

_NETWORK = PACKAGED["efficientnet_lite0"]
_SIDE, _BATCH = 128, 100  # pixels: small images have no more detail, and it takes a third of the time of 224


def build_lite() -> nn.Module:
    """The network: images float32 [N, 3, H, W] in [0, 1] → features [N, 320], means over the last stage's map."""
    network = _NETWORK.build()
    network.load_state_dict(_NETWORK.weights())
    parts = [network.get_submodule(name) for name in ("conv_stem", "bn1", "blocks")]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False).eval()


def lite_distances(network: nn.Module, train: Tensor, held_out: Tensor, samples: Tensor) -> dict[str, float]:
    """The Fréchet distance of samples to training images, and that of as many held-out images.

    All are uint8 [N, S, S, C], on the network's device.
    """
    num = min(len(held_out), len(samples))
    reference = metrics.gaussian(_features(network, train))
    fake, real = (metrics.gaussian(_features(network, images[:num])) for images in (samples, held_out))
    return {
        "frechet_lite0": metrics.frechet_distance(fake, reference),
        "frechet_lite0_real": metrics.frechet_distance(real, reference),
    }


@torch.inference_mode()
def _features(network: nn.Module, pixels: Tensor) -> Tensor:
    """Of images uint8 [N, S, S, C]: float32 [N, 320]."""
    parts = []
    mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (_NETWORK.mean, _NETWORK.std))
    for part in torch.split(pixels, _BATCH):
        images = part.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float() / 255
        images = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        parts.append(network(((images - mean) / std).contiguous(memory_format=torch.channels_last)))
    return torch.cat(parts)
