"""The networks have the shapes, sizes and first weights of their papers; what is frozen stays frozen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.optim import decay_groups
from projects.cifar10.model import build_model
from projects.cifar10.networks.fast import FastNet
from projects.cifar10.networks.resnet import Padding, ResidualBlock, ResNet
from projects.cifar10.synthetic import draw_images


@pytest.mark.parametrize("name", ["wide", "fast", "resnet18", "resnet20", "timm:resnet10t"])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_every_network_gives_finite_logits_of_its_classes(name: str, num_classes: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build_model(name, num_classes).eval()
    with torch.inference_mode():
        logits = network(torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, num_classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [16, 31, 48])
def test_other_sizes_of_images_go_through(size: int) -> None:
    for name in ("fast", "resnet20"):
        assert build_model(name, 4).eval()(torch.zeros(2, 3, size, size)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "num_weights"),
    [("resnet20", 269_722), ("resnet18", 11_173_962)],
)
def test_the_number_of_weights_is_the_papers(name: str, num_weights: int) -> None:
    assert sum(p.numel() for p in build_model(name, 10).parameters()) == num_weights


def test_an_unknown_timm_model_is_named() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="timm:no_such_model"):
        build_model("timm:no_such_model", 10)


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_residual_blocks_begin_as_their_shortcut(name: str) -> None:
    network = build_model(name, 10)
    assert isinstance(network, ResNet)
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == {"resnet18": 8, "resnet20": 9}[name]
    for block in blocks:
        if not isinstance(block.shortcut, Padding):
            x = torch.rand(2, block.conv1.in_channels, 8, 8)
            assert torch.equal(block(x), F.relu(block.shortcut(x)))


def test_no_channel_of_resnet20_is_dead_from_the_beginning(images: Tensor) -> None:
    torch.manual_seed(0)
    network = build_model("resnet20", 10)
    F.cross_entropy(network(images[:40]), torch.arange(40) % 10).backward()
    for name, parameter in network.named_parameters():
        if name.endswith("norm2.weight"):
            assert parameter.grad is not None
            assert (parameter.grad != 0).all(), name


def test_shortcut_a_takes_every_second_pixel_and_adds_zeros() -> None:
    x = torch.rand(1, 2, 4, 4)
    y = Padding(5, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert not y[:, 2:].any()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Normalized images [200, 3, 32, 32]."""
    pixels = torch.from_numpy(draw_images(200, seed=3)[0]).permute(0, 3, 1, 2).float() / 255
    return (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), keepdim=True)


def test_whitened_patches_have_unit_covariance(images: Tensor) -> None:
    network = FastNet(10)
    network.whiten(images, epsilon=1e-9)
    answers = F.conv2d(images, network.whitening.weight).double().permute(1, 0, 2, 3).flatten(1)
    assert answers.shape[0] == 24
    assert torch.equal(network.whitening.weight[12:], -network.whitening.weight[:12])
    covariance = answers[:12] @ answers[:12].T / answers.shape[1]
    np.testing.assert_allclose(covariance.numpy(), np.eye(12), atol=0.02)


def test_whitening_does_not_blow_up_flat_images() -> None:
    network = FastNet(10)
    network.whiten(torch.ones(4, 3, 16, 16))
    assert network.whitening.weight.isfinite().all()
    assert network(torch.ones(4, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize("gelu", [False, True])
def test_the_fast_networks_first_filters_do_not_change_in_training(images: Tensor, gelu: bool) -> None:
    torch.manual_seed(0)
    network = FastNet(10, gelu=gelu)
    network.whiten(images)
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD(decay_groups(network, 0.1), lr=0.1, momentum=0.9)
    for _ in range(2):
        loss = F.cross_entropy(network(images[:20]), torch.arange(20) % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(before) - {"whitening.weight"}


def test_the_fast_networks_filters_begin_as_the_identity() -> None:
    network = FastNet(10)
    convolutions = [m for m in network.stages.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 6
    for convolution in convolutions:
        x = torch.rand(1, convolution.in_channels, 5, 5)
        assert torch.allclose(convolution(x)[:, : convolution.in_channels], x, atol=1e-6)
