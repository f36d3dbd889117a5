"""The graph sees what training sees, at any size; it exports, and its onnxruntime twin agrees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from core.export import save_graph
from core.parity import run_both
from core.vision.classification_export import classifier_spec
from core.vision.decoding import center_square
from core.vision.preprocessing import CenterSquare, ImageClassifier, noise_images, views_of

SIZES = [(1, 40, 40), (2, 33, 70), (1, 90, 20), (1, 1, 900), (1, 900, 1), (3, 16, 5)]


@pytest.mark.parametrize(("num", "height", "width"), SIZES)
@pytest.mark.parametrize("side", [16, 20])
def test_the_square_is_that_of_training(num: int, height: int, width: int, side: int) -> None:
    images = noise_images(num, height, width)
    seen = CenterSquare(16, (0.0, 0.5, 0.1), (1.0, 0.5, 0.2), side=side)(images)
    inner = (side - 16) // 2
    squares = np.stack([center_square(image, side) for image in images.numpy()])
    expected = squares[:, inner : inner + 16, inner : inner + 16] / 255
    values = seen.permute(0, 2, 3, 1).numpy() * (1.0, 0.5, 0.2) + (0.0, 0.5, 0.1)
    assert np.abs(255 * (values - expected)).max() < 1.01  # training rounds to whole numbers


def test_views_are_the_image_its_neighbors_by_a_pixel_and_their_mirror_images() -> None:
    image = torch.arange(3 * 4 * 5.0).reshape(1, 3, 4, 5)
    assert len(views_of(image, flip=False, shift=False)) == 1
    whole, up_left, down_right, *mirrored = views_of(image, flip=True, shift=True)
    assert torch.equal(whole, image)
    assert torch.equal(up_left[:, :, :-1, :-1], image[:, :, 1:, 1:])
    assert torch.equal(down_right[:, :, 1:, 1:], image[:, :, :-1, :-1])
    assert torch.equal(down_right[:, :, 0, 1:], image[:, :, 1, :-1]), "the border is mirrored"
    for view, other in zip((whole, up_left, down_right), mirrored, strict=True):
        assert torch.equal(view.flip(3), other)


@pytest.mark.parametrize("shift", [False, True])
def test_the_exported_graph_agrees_at_every_size(shift: bool, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    square = CenterSquare(16, (0.5,) * 3, (0.25,) * 3, side=18)
    classifier = ImageClassifier(network, square, test_flip=True, test_shift=shift)
    spec = classifier_spec(classifier, "image classification", None, num_classes=5)
    save_graph(spec, tmp_path / "x.onnx")
    nodes = [node.op_type for node in onnx.load(str(tmp_path / "x.onnx")).graph.node]
    assert nodes.count("Conv") == 1, "all views go through one network"
    spec = replace(spec, parity_inputs=[*spec.parity_inputs, *((noise_images(*size),) for size in SIZES)])
    for _, results, expected in run_both(spec, tmp_path / "x.onnx"):
        np.testing.assert_allclose(results[0], expected[0], atol=1e-5)
    with torch.no_grad():
        image = noise_images(1, 30, 40)
        # Moved images are two of four diagonals, of which mirroring takes the other two.
        assert torch.allclose(classifier(image), classifier(image.flip(2)), atol=1e-2 if shift else 1e-6)
