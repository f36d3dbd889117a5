"""The graph sees what training sees, at any size; it exports, and its onnxruntime twin agrees."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from core.vision.decoding import center_square
from core.vision.preprocessing import CenterSquare, ImageClassifier, noise_images

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


def test_the_exported_graph_agrees_at_every_size(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    classifier = ImageClassifier(network, CenterSquare(16, (0.5,) * 3, (0.25,) * 3), test_flip=True).eval()
    dimensions = ({0: "batch", 1: "height", 2: "width"},)
    program = torch.onnx.export(classifier, (noise_images(2, 23, 28),), dynamic_shapes=dimensions, dynamo=True)
    assert program is not None
    program.save(str(tmp_path / "x.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    for num, height, width in SIZES:
        images = noise_images(num, height, width)
        with torch.no_grad():
            expected = classifier(images).numpy()
        (probabilities,) = session.run(None, {given.name: images.numpy()})
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(expected, classifier(images.flip(2)).detach().numpy(), atol=0.1)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
