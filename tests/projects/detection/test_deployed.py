"""What is exported sees an image as training saw it, and gives boxes in the image's own pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from projects.detection.augment import letterbox
from projects.detection.canvas import draw, lay_out, pack
from projects.detection.deploy import Deployed
from projects.detection.detector import Detector
from projects.detection.nms import Rule
from projects.detection.synthetic import draw_scenes

CANVAS = (96, 128)
RULE = Rule(0.1, 0.5, 5)


class Probe(Detector):
    """Keeps what it is given, and finds two boxes on every canvas."""

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen = images
        boxes = torch.tensor([[8.0, 12, 40, 36], [0, 0, 128, 96]]).expand(len(images), -1, -1)
        return boxes, torch.tensor([[0.0, 0.4], [0.9, 0.0]]).expand(len(images), -1, -1)


def deployed(probe: Probe, mean: float = 0.0, std: float = 1 / 255) -> Deployed:
    return Deployed(probe, CANVAS, [mean] * 3, [std] * 3, RULE).eval()


@pytest.mark.parametrize(("height", "width"), [(240, 321), (97, 33), (33, 400), (96, 128), (480, 640), (50, 60)])
def test_the_canvas_is_that_of_training_within_a_gray_level(height: int, width: int) -> None:
    """Training's is rounded to whole gray levels, the graph does not round."""
    drawn = draw_scenes(1, seed=4)[0].pixels
    pixels = np.pad(drawn, ((0, 500), (0, 700), (0, 0)), mode="reflect")[:height, :width].copy()
    probe = Probe()
    with torch.inference_mode():
        deployed(probe)(torch.from_numpy(pixels)[None])
    image = replace(draw_scenes(1, seed=4)[0].image, height=height, width=width)
    layout, table = lay_out([letterbox(0, [image], CANVAS)]), torch.arange(256.0).expand(3, -1)
    expected = draw(pack([pixels], [(height, width)]), layout, CANVAS, table).numpy()
    result = probe.seen.numpy()
    assert result.shape == (1, 3, *CANVAS)
    assert np.abs(result - expected).max() <= 1.01
    assert np.abs(result - expected).mean() <= 0.5


def test_mean_and_deviation_are_taken_out() -> None:
    probe = Probe()
    with torch.inference_mode():
        deployed(probe, mean=0.5, std=0.25)(torch.full((1, 96, 128, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(probe.seen, torch.full((1, 3, 96, 128), 2.0))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (192, 256), (480, 640)])
def test_boxes_come_back_in_the_images_own_pixels(height: int, width: int) -> None:
    with torch.inference_mode():
        result = deployed(Probe())(torch.zeros(3, height, width, 3, dtype=torch.uint8))
    scale = width / 128
    expected = scale * torch.tensor([[0.0, 0, 128, 96], [8, 12, 40, 36]]).flip(0)
    assert result.num.tolist() == [2, 2, 2]
    assert result.labels[:, :2].tolist() == [[1, 0]] * 3
    torch.testing.assert_close(result.boxes[0, :2], expected)


def test_boxes_do_not_reach_over_the_images_border() -> None:
    with torch.inference_mode():
        result = deployed(Probe())(torch.zeros(1, 400, 100, 3, dtype=torch.uint8))  # 24 columns of the canvas
    assert result.boxes[0, 0, 2] == 100
    assert result.boxes[0, 1].tolist() == [0, 0, 100, 400]


def test_a_box_in_the_padding_alone_is_not_given() -> None:
    with torch.inference_mode():
        result = deployed(Probe())(torch.zeros(1, 400, 20, 3, dtype=torch.uint8))  # 4 columns of the canvas
    assert result.num.tolist() == [1]
    assert result.labels[0].tolist() == [0, -1, -1, -1]
