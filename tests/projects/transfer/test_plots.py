"""Grad-CAM looks where the answer comes from; the images of a run are drawn for every kind of backbone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from projects.transfer.model import Classifier, build_classifier, build_network, without_head
from projects.transfer.plots import grad_cam, last_map, overlay


class Bright(nn.Module):
    """A backbone whose one map is the image's first channel, pooled by 2."""

    def __init__(self, channels_last: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 2, stride=2, bias=False)
        self.turn = Turn() if channels_last else nn.Identity()
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = 0.25
            self.conv.weight[1, 1] = 0.25

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.turn(self.conv(images))
        return maps.mean((1, 2)) if isinstance(self.turn, Turn) else maps.mean((2, 3))


class Turn(nn.Module):
    """[N, C, h, w] → [N, h, w, C]."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_part_that_spoke_for_the_answer_is_bright_and_no_other(channels_last: bool) -> None:
    network = Classifier(Bright(channels_last), 2, 2)
    with torch.no_grad():
        network.head.load_state_dict({"1.weight": torch.eye(2), "1.bias": torch.zeros(2)})
    images = torch.zeros(2, 3, 12, 12)
    images[0, 0, :4, :4] = 5.0  # speaks for class 0
    images[1, 1, 8:, 6:8] = 5.0  # speaks for class 1
    heat = grad_cam(network, images)
    assert heat is not None
    expected = np.zeros((2, 6, 6), np.float32)
    expected[0, :2, :2] = expected[1, 4:, 3:4] = 1
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_the_network_is_left_without_gradients_and_hooks() -> None:
    network = Classifier(Bright(), 2, 2)
    network.requires_grad_(False)
    assert grad_cam(network, torch.rand(1, 3, 8, 8)) is not None
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "size", "name"),
    [("small", 32, "stages.2"), ("timm:resnet18", 64, "layer4.1"), ("timm:test_vit", 160, None)],
)
def test_the_last_map_of_a_backbone_is_found_where_there_is_one(architecture: str, size: int, name: str | None) -> None:
    if architecture.startswith("timm"):
        pytest.importorskip("timm")
    classes = 1000
    network = build_classifier(without_head(*build_network(architecture, classes)), 3, size, 0.0)
    images = torch.rand(1, 3, size, size)
    assert last_map(network, images) == name
    heat = grad_cam(network, images)
    assert (heat is None) == (name is None)
    if heat is not None:
        assert heat.ndim == 3
        assert 0 <= heat.min() <= heat.max() <= 1


def test_images_and_their_heat_stand_side_by_side() -> None:
    images = np.full((2, 8, 8, 3), 100, np.uint8)
    heat = np.zeros((2, 2, 2), np.float32)
    heat[1, 0, 0] = 1
    shown = overlay(images, heat)
    assert shown.shape == (4, 8, 8, 3)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown[0], images[0])
    assert shown[3, 0, 0].sum() > shown[3, 7, 7].sum()
