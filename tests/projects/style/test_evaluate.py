"""The losses in numpy are those of the training, and photographs are held out as in training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from core.accelerator import Accelerator
from core.errors import UserError
from core.seeds import sample_generator
from projects.style.config import Config
from projects.style.data import load_data, to_image, to_pixels
from projects.style.evaluate import held_out_photographs
from projects.style.loss import Perceptual
from projects.style.numpy_loss import Losses
from projects.style.random_features import RandomFeatures


def noise(height: int, width: int, number: int = 0) -> NDArray[np.uint8]:
    return sample_generator(0, 0, number, "image").integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_losses_in_numpy_are_those_of_the_training() -> None:
    config, styles = Config(content_weight=2.0), [noise(90, 67), noise(64, 100, 1)]
    painted, photograph = noise(64, 70, 2), noise(64, 70, 3)
    images = [to_image(style) for style in styles]
    perceptual = Perceptual(RandomFeatures(), images, config, Accelerator(device="cpu", precision="fp32"))
    losses = Losses(styles, config)
    for style in range(2):
        with torch.no_grad():
            expected = perceptual(to_image(painted), to_image(photograph), torch.tensor([style]))
        found = losses(painted, photograph, style)
        assert found == {name: pytest.approx(float(value), rel=1e-4) for name, value in expected._asdict().items()}


def test_photographs_are_held_out_as_in_training(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(noise(40, 44, number)).save(tmp_path / f"{number}.png")
    config = Config(data=str(tmp_path), num_held_out=3, eval_size=32, image_size=40, crop_size=32, style_size=32)
    data = load_data(config, Accelerator(device="cpu", precision="fp32"))
    expected = [to_pixels(image[None]) for image in data.held_out]
    assert np.array_equal(held_out_photographs(config, data.sha256, "held_out"), np.stack(expected))
    assert len(held_out_photographs(config, "another", "all")) == 12
    with pytest.raises(UserError, match="held_out"):
        held_out_photographs(config, "another", "held_out")
