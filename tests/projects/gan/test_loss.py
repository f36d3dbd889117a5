"""The losses and the penalty, against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from projects.gan.loss import discriminator_loss, generator_loss, r1_penalty

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])


def test_hinge() -> None:
    assert float(discriminator_loss("hinge", REAL, FAKE)) == pytest.approx((0 + 0.5) / 2 + (0 + 1.25) / 2)
    assert float(generator_loss("hinge", FAKE)) == pytest.approx((3 - 0.25) / 2)


def test_nonsaturating() -> None:
    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    expected = (softplus(-2) + softplus(-0.5)) / 2 + (softplus(-3) + softplus(0.25)) / 2
    assert float(discriminator_loss("nonsaturating", REAL, FAKE)) == pytest.approx(expected)
    assert float(generator_loss("nonsaturating", FAKE)) == pytest.approx((softplus(3) + softplus(-0.25)) / 2)


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating"])
def test_the_generator_gains_where_the_discriminator_loses(kind: str) -> None:
    fake = FAKE.clone().requires_grad_(True)
    (of_generator,) = torch.autograd.grad(generator_loss(kind, fake), fake)  # type: ignore[arg-type]
    (of_discriminator,) = torch.autograd.grad(discriminator_loss(kind, REAL, fake), fake)  # type: ignore[arg-type]
    assert (of_generator < 0).all()
    assert (of_discriminator >= 0).all()
    assert of_discriminator[1] > 0


class Square(nn.Module):
    """weight · Σ x², whose gradient is 2 · weight · x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.weight * images.square().sum((1, 2, 3))


def test_r1_is_half_the_squared_gradient_and_so_is_its_own_derivative() -> None:
    network = Square()
    images = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    norm = float(images.square().sum((1, 2, 3)).mean())
    penalty = r1_penalty(network, images.bfloat16(), torch.zeros(5, dtype=torch.int64))
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(0.5 * 4 * 1.5**2 * norm, rel=1e-2)  # the images were rounded
    (derivative,) = torch.autograd.grad(penalty, network.weight)
    assert float(derivative) == pytest.approx(2 * penalty.item() / 1.5, rel=1e-5)
