"""The exported module does to raw pictures what training did to its own, so serving cannot disagree with it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core import images
from cuda_ext import lookup_table, normalize
from projects.cifar10.export import Deployed
from projects.cifar10.model import build_model
from projects.cifar10.synthetic import draw_pictures

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]


class Probe(nn.Module):
    """Keeps what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.mean((2, 3))


@pytest.mark.parametrize("name", ["fast", "resnet20"])
@pytest.mark.parametrize("test_flip", [True, False])
def test_on_pictures_of_the_training_size_it_equals_training(name: str, test_flip: bool) -> None:
    torch.manual_seed(0)
    network = build_model(name, 10).eval()
    pixels = torch.from_numpy(draw_pictures(8, seed=0)[0])
    table = lookup_table(MEAN, STD)
    inputs = normalize(pixels, table)
    with torch.inference_mode():
        expected = network(inputs).softmax(1)
        if test_flip:
            expected = (expected + network(inputs.flip(3)).softmax(1)) / 2
        found = Deployed(network, MEAN, STD, 32, test_flip).eval()(pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(8))


@pytest.mark.parametrize(("height", "width"), [(240, 321), (97, 33), (33, 32), (16, 20), (300, 64)])
def test_the_resize_of_larger_pictures_is_that_of_training_within_a_grey_level(height: int, width: int) -> None:
    """Pillow rounds to whole gray levels after each of its two passes, the graph does not round: 0.5 + 0.5."""
    drawn = draw_pictures(1, seed=4, size=96)[0][0]
    picture = np.pad(drawn, ((0, 240), (0, 240), (0, 0)), mode="reflect")[:height, :width]
    assert picture.shape == (height, width, 3)
    probe = Probe()
    with torch.inference_mode():
        Deployed(probe, [0.0] * 3, [1.0] * 3, 32, test_flip=False)(torch.from_numpy(picture.copy())[None])
    found = 255 * probe.seen[0].permute(1, 2, 0).numpy()
    expected = images.square(picture, 32).astype(np.float32)
    assert found.shape == (32, 32, 3)
    assert np.abs(found - expected).max() <= 1.01
    assert np.abs(found - expected).mean() <= 0.5


def test_mirrored_pictures_have_equal_probabilities_with_test_flip() -> None:
    network = build_model("fast", 10).eval()
    deployed = Deployed(network, MEAN, STD, 32, test_flip=True).eval()
    pixels = torch.from_numpy(draw_pictures(4, seed=1)[0])
    with torch.inference_mode():
        torch.testing.assert_close(deployed(pixels), deployed(pixels.flip(2)))
