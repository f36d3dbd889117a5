"""The networks: any size, styles that are each other's neighbors in one network, pixels that are not stuck."""

import pytest
import torch
from torch import nn

from projects.style.model import Layer, OptimizedImage, StyleNet, one_hot


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (50, 33)])
def test_a_result_has_the_size_of_the_photograph_and_lies_in_0_to_1(height: int, width: int) -> None:
    network = StyleNet(2, width=4, blocks=1)
    result = network(torch.rand(2, 3, height, width), one_hot(torch.tensor([0, 1]), 2))
    assert result.shape == (2, 3, height, width)
    assert result.min() >= 0
    assert result.max() <= 1


def test_styles_share_all_filters_and_a_blend_lies_between_them() -> None:
    torch.manual_seed(0)
    network = StyleNet(2, width=4, blocks=1)
    own = [p for name, p in network.named_parameters() if name.endswith(("weight", "bias")) and p.ndim == 2]
    assert len(own) == 2 * (1 + 2 + 2 + 2)
    assert sum(p.numel() for p in own) < 0.1 * sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        for parameter in own:
            parameter[1] = parameter[0] + 0.5 * torch.randn_like(parameter[0])
        photograph = torch.rand(1, 3, 32, 32)
        shares = torch.linspace(0, 1, 5)
        blends = torch.stack([1 - shares, shares], 1)
        results = network(photograph.expand(5, -1, -1, -1), blends)
    whole = (results[4] - results[0]).abs().mean()
    steps = (results[1:] - results[:-1]).abs().mean((1, 2, 3))
    assert whole > 0.01
    assert steps.max() < 0.8 * whole


def test_an_evenly_colored_image_leaves_the_gradients_as_they_are_without_it() -> None:
    torch.manual_seed(0)
    network = StyleNet(1, width=8, blocks=5)
    for layer in network.modules():
        if isinstance(layer, Layer):  # such that the gradients of an even image are infinite
            nn.init.constant_(layer.weight, 30.0)
            nn.init.constant_(layer.bias, 1.0)
    images, blend = torch.stack([torch.rand(3, 32, 32), torch.full((3, 32, 32), 0.7)]), torch.ones(2, 1)

    def gradients(num: int) -> list[torch.Tensor]:
        network.zero_grad()
        network(images[:num], blend[:num]).square().mean((1, 2, 3)).sum().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    for alone, together in zip(gradients(1), gradients(2), strict=True):
        torch.testing.assert_close(alone, together)
    network.eval()
    assert not all(gradient.isfinite().all() for gradient in gradients(2))


def test_a_pixel_beyond_white_is_shown_as_white_and_returns() -> None:
    image = OptimizedImage(torch.full((1, 3, 4, 4), 0.9))
    optimizer = torch.optim.SGD(image.parameters(), lr=1.0)
    with torch.no_grad():
        image.pixels.add_(0.5)
    assert image().max() == 1
    for _ in range(3):
        optimizer.zero_grad()
        (0.3 * image().sum()).backward()
        optimizer.step()
    assert image().max() < 0.6
