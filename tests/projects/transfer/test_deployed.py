"""The exported module does to raw pictures what training did to its own, so serving cannot disagree with it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core import images
from cuda_ext import lookup_table
from projects.transfer.augment import Look, plain_view
from projects.transfer.export import Deployed
from projects.transfer.model import SmallNet
from projects.transfer.synthetic import TARGET_CLASSES, draw_pictures

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


class Probe(nn.Module):
    """Keeps what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.mean((2, 3))


@pytest.mark.parametrize("crop", [1.0, 0.8])
@pytest.mark.parametrize("test_flip", [True, False])
def test_on_pictures_of_the_stored_size_it_equals_evaluation(crop: float, test_flip: bool) -> None:
    torch.manual_seed(0)
    network, look = SmallNet(6).eval(), Look.of(32, crop, MEAN, STD)
    pixels = torch.from_numpy(draw_pictures(8, 0, look.side, TARGET_CLASSES, "day")[0])
    table = lookup_table(MEAN, STD)
    inputs = plain_view(pixels, look, table)
    with torch.inference_mode():
        expected = network(inputs).softmax(1)
        if test_flip:
            expected = (expected + network(inputs.flip(3)).softmax(1)) / 2
        found = Deployed(network, look, test_flip).eval()(pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(8))


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize(("height", "width"), [(240, 321), (97, 33), (33, 32), (16, 20), (300, 64)])
def test_the_resize_of_larger_pictures_is_that_of_training_within_a_grey_level(
    height: int, width: int, crop: float
) -> None:
    """Pillow rounds to whole gray levels after each of its two passes, the graph does not round: 0.5 + 0.5."""
    drawn = draw_pictures(1, 4, 96, TARGET_CLASSES, "day")[0][0]
    picture = np.pad(drawn, ((0, 240), (0, 240), (0, 0)), mode="reflect")[:height, :width]
    probe, look = Probe(), Look.of(32, crop, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with torch.inference_mode():
        Deployed(probe, look, test_flip=False)(torch.from_numpy(picture.copy())[None])
    found = 255 * probe.seen[0].permute(1, 2, 0).numpy()
    stored = torch.from_numpy(images.square(picture, look.side).copy()).permute(2, 0, 1)
    expected = look.middle(stored).permute(1, 2, 0).numpy().astype(np.float32)
    assert found.shape == (32, 32, 3)
    assert np.abs(found - expected).max() <= 1.01
    assert np.abs(found - expected).mean() <= 0.5
