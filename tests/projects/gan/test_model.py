"""The networks: shapes, classes, spectral norm under mixed precision, and what export makes of it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from projects.gan.model import (
    Architecture,
    Discriminator,
    Generator,
    normalize_weights,
    remove_spectral_norm,
    weighted_layers,
)

ARCHITECTURES: list[Architecture] = ["dcgan", "resnet"]
LABELS = torch.tensor([0, 1, 2, 0, 1])


def noise(num: int = 5) -> Tensor:
    return torch.randn(num, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (32, 1)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_of_every_size_are_generated_and_classified(
    architecture: Architecture, size: int, channels: int, num_classes: int
) -> None:
    torch.manual_seed(0)
    images = Generator(architecture, size, channels, 6, 8, num_classes)(noise(), LABELS)
    assert images.shape == (5, channels, size, size)
    assert float(images.detach().abs().max()) <= 1
    assert float(images.detach().std(0).mean()) > 0.01
    logits = Discriminator(architecture, size, channels, 8, num_classes, normalized=True)(images, LABELS)
    assert logits.shape == (5,)
    assert float(logits.detach().std()) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_label_changes_image_and_verdict_only_with_classes(architecture: Architecture) -> None:
    torch.manual_seed(0)
    for num_classes, expected in ((3, True), (0, False)):
        generator = Generator(architecture, 8, 1, 6, 8, num_classes).eval()
        discriminator = Discriminator(architecture, 8, 1, 8, num_classes, normalized=False)
        for part in generator.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight)
        first, second = generator(noise(), LABELS), generator(noise(), LABELS.flip(0))
        changed = (first != second).flatten(1).any(1)
        assert changed.tolist() == [expected, expected, False, expected, expected]
        assert torch.equal(discriminator(first, LABELS), discriminator(first, LABELS.flip(0))) != expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_of_the_discriminator_has_spectral_norm_1(architecture: Architecture) -> None:
    torch.manual_seed(0)
    network = Discriminator(architecture, 16, 3, 8, 3, normalized=True)
    for part in weighted_layers(network):
        with torch.no_grad():
            part.parametrizations.weight.original.mul_(7)  # type: ignore[union-attr, operator]
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(60):
            network(torch.zeros(1, 3, 16, 16), LABELS[:1])
    network.eval()
    for part in weighted_layers(network):
        assert part.weight.dtype == torch.float32
        largest = float(torch.linalg.matrix_norm(part.weight.detach().flatten(1), 2))
        assert largest == pytest.approx(1, abs=2e-3), part
    buffers = {name: buffer.dtype for name, buffer in network.named_buffers()}
    assert set(buffers.values()) == {torch.float32}


def test_plain_weights_that_are_put_in_place_give_the_same_images() -> None:
    torch.manual_seed(0)
    generator = Generator("resnet", 8, 3, 6, 8, 3)
    normalize_weights(generator)
    generator(noise(), LABELS)
    expected = generator.eval()(noise(), LABELS).detach()
    remove_spectral_norm(generator)
    assert not any(parametrize.is_parametrized(part) for part in generator.modules())
    assert float((generator(noise(), LABELS).detach() - expected).abs().max()) < 1e-6
