"""The Fréchet distance in EfficientNet-Lite0's features tells kinds of images apart, of any size and gray ones too."""

import pytest
import torch

from core.vision.packaged_network import PACKAGED
from projects.gan import lite_features
from projects.gan.synthetic import generate_images

pytest.importorskip("timm")


def test_other_images_of_the_same_kind_are_nearer_than_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = PACKAGED["efficientnet_lite0"]
    if not packaged.is_installed:
        pytest.skip(f"{packaged.distribution} is not installed")
    monkeypatch.setattr(lite_features, "_SIDE", 64)
    network = lite_features.build_lite()
    pixels = torch.from_numpy(generate_images(60, 0, 16)[0])
    noise = torch.randint(256, (20, 16, 16, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = lite_features.lite_distances(network, pixels[:40], pixels[40:], noise)
    assert 0 < result["frechet_lite0_real"] < 0.5 * result["frechet_lite0"]
    again = lite_features.lite_distances(network, pixels[:40], pixels[40:], pixels[40:])
    assert again["frechet_lite0"] == again["frechet_lite0_real"]
