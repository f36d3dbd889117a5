"""A stored network is the same network, can be trained on, and a file from elsewhere runs nothing."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.vision.network_file import load_network, save_network


class Block(nn.Module):
    """Most of what the format knows: submodules, shapes, slices, functions, methods, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.conv.weight.requires_grad_(False)
        self.stages = nn.Sequential(nn.BatchNorm2d(6, momentum=0.4), nn.ReLU(), nn.Sequential(nn.Conv2d(6, 6, 1)))
        self.scale = nn.Parameter(torch.full((1,), 0.5))
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.stages(F.relu(self.conv(images)))
        x = x + F.pad(images[:, :, ::1, :], (0, 0, 0, 0, 0, x.shape[1] - 3)) * self.scale
        logits: Tensor = self.head(F.max_pool2d(x, x.shape[2:]).flatten(1))
        return logits / 9


def write(path: Path, network: nn.Module) -> Path:
    """A network's file."""
    numbers = {"image_size": 16, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_network(path, network, architecture="block", classes=list("abcd"), **numbers)  # type: ignore[arg-type]
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of a network."""
    torch.manual_seed(0)
    return write(tmp_path / "network.safetensors", Block())


def test_a_stored_network_gives_the_same_values_gradients_and_names(tmp_path: Path) -> None:
    network = Block()
    loaded = load_network(write(tmp_path / "x", network))
    assert (loaded.architecture, loaded.image_size, loaded.classes) == ("block", 16, tuple("abcd"))
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = torch.randn(3, 3, 8, 8)
    for training in (True, False):
        network.train(training)
        loaded.network.train(training)
        for one in (copy.deepcopy(loaded.network), copy.deepcopy(copy.deepcopy(loaded.network))):
            assert torch.equal(one(images), copy.deepcopy(network)(images))
    for each in (network, loaded.network):
        each(images).sum().backward()
    pairs = zip(network.named_parameters(), loaded.network.named_parameters(), strict=True)
    for (name, parameter), (loaded_name, loaded_parameter) in pairs:
        assert name == loaded_name
        assert parameter.requires_grad == loaded_parameter.requires_grad == (name != "conv.weight")
        if parameter.grad is not None:
            assert loaded_parameter.grad is not None
            assert torch.equal(parameter.grad, loaded_parameter.grad)
    assert [name for name, _ in network.named_modules()] == [name for name, _ in loaded.network.named_modules()]


def test_a_network_of_timm_is_stored_by_its_name(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_vit", num_classes=4, img_size=16 * 10).eval()
    numbers: dict[str, Any] = {"image_size": 160, "mean": (0.5,) * 3, "std": (0.5,) * 3, "classes": list("abcd")}
    save_network(tmp_path / "x", network, architecture="timm:test_vit", **numbers)
    images = torch.randn(1, 3, 160, 160)
    assert torch.equal(load_network(tmp_path / "x").network.eval()(images), network(images))


def test_a_network_that_cannot_be_stored_says_so(tmp_path: Path) -> None:
    class Other(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.cumsum(1)

    class Undecided(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.sum() > 0 else -images

    for network in (Other(), Undecided(), nn.Sequential(nn.LSTM(3, 3))):
        with pytest.raises(ValueError, match=r"known|traced"):
            write(tmp_path / "x", network)
    assert not list(tmp_path.iterdir())


def test_a_missing_or_damaged_file_is_named(path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_network(path.with_name("nowhere"))
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], b"x" * 200, safetensors.torch.save({"a": torch.zeros(1)})):
        path.write_bytes(content)
        with pytest.raises(UserError, match=path.name):
            load_network(path)


@pytest.mark.parametrize(
    "step",
    [
        ["x", "function", "os.system", ["touch canary"], {}],
        ["x", "function", "getattr", [{"value": "images"}, "__class__"], {}],
        ["x", "method", "__reduce__", [{"value": "images"}], {}],
        ["x", "method", "numpy", [{"value": "images"}], {}],
        ["x", "tensor", "__class__", [], {}],
        ["x", "eval", "1", [], {}],
        ["x", "function", ["add"], [], {}],
        ["x", "module", "nowhere", [{"value": "images"}], {}],
    ],
)
def test_a_file_that_names_anything_else_is_refused_and_runs_nothing(
    step: list[Any], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rewrite(path, lambda about: about["program"]["steps"].insert(1, step))
    with pytest.raises(UserError, match=path.name):
        load_network(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("architecture", ["timm:hf_hub:someone/something", "timm:local-dir:/tmp", "timm:no_such_model"])
def test_a_file_cannot_name_a_model_of_elsewhere(architecture: str, path: Path) -> None:
    pytest.importorskip("timm")
    rewrite(path, lambda about: about.update(program=None, architecture=architecture))
    with pytest.raises(UserError):
        load_network(path)


def rewrite(path: Path, change: Any) -> None:
    """Changes what a file says of its network."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["about"])
    change(about)
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, {**metadata, "about": json.dumps(about)}))
