"""Weights files are taken whole or not at all; a download that cannot be is asked for by name."""

import hashlib
import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from core.errors import UserError
from core.program import parse_training
from projects.detection import weights
from projects.detection.config import Config, Model
from projects.detection.detector import Detector
from projects.detection.detectors import build_model
from projects.detection.model import Small
from projects.detection.train import train
from projects.detection.weights import CLASS_LAYERS, load_weights

SSDLITE: Model = "ssdlite320_mobilenet_v3_large"


def coco_weights(model: Model = SSDLITE) -> dict[str, Tensor]:
    """A file's content as torchvision publishes it: names, shapes, the 91 classes of COCO."""
    torch.manual_seed(1)
    network = getattr(torchvision.models.detection, model)(weights=None, weights_backbone=None, num_classes=91)
    state: dict[str, Tensor] = network.state_dict()
    return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in state.items()}


def load(path: Path, model: Model = SSDLITE, num_classes: int = 3) -> Detector:
    config = Config(model=model, weights=str(path))
    detector = build_model(config, num_classes, initial_weights=False)
    load_weights(detector, config)
    return detector


Save = Callable[[dict[str, Any], str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes tensors as torch or safetensors write them."""

    def write(tensors: dict[str, Any], name: str) -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(tensors, path)
        else:
            torch.save(tensors, path)
        return path

    return write


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_everything_but_the_class_layers_is_the_files(name: str, save: Save) -> None:
    tensors = coco_weights()
    live = load(save(tensors, name)).get_submodule("model").state_dict()
    same = [key for key, tensor in live.items() if torch.equal(tensor, tensors[key])]
    other = sorted(set(live) - set(same))
    assert other
    assert all(key.startswith(CLASS_LAYERS[SSDLITE]) for key in other)
    assert not [key for key in same if key.startswith(CLASS_LAYERS[SSDLITE])]


def test_a_file_for_as_many_classes_gives_its_class_layers_too(save: Save) -> None:
    torch.manual_seed(0)
    mine = Small(3, (8, 8, 8, 8, 8), features=8, depth=1)
    other = Small(3, (8, 8, 8, 8, 8), features=8, depth=1)
    path = save(other.state_dict(), "small.safetensors")
    weights.fill(mine, weights.read_tensors(path), CLASS_LAYERS["small"], path)
    assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True))


def test_what_training_programs_wrap_weights_in_is_unwrapped(save: Save) -> None:
    tensors = coco_weights()
    path = save({"model": tensors, "epoch": 3}, "checkpoint.pth")
    live = load(path).get_submodule("model").state_dict()
    assert torch.equal(live["backbone.features.0.0.0.weight"], tensors["backbone.features.0.0.0.weight"])


def drop(tensors: dict[str, Tensor]) -> str:
    name = sorted(tensors)[10]
    del tensors[name]
    return f"{name} is missing from it"


def add(tensors: dict[str, Tensor]) -> str:
    tensors["a.stranger"] = torch.zeros(1)
    return "the network has no a.stranger"


def reshape(tensors: dict[str, Tensor]) -> str:
    tensors["backbone.features.0.0.0.weight"] = torch.zeros(16, 3, 5, 5)
    return "backbone.features.0.0.0.weight is [16, 3, 5, 5], the network has [16, 3, 3, 3]"


def poison(tensors: dict[str, Tensor]) -> str:
    tensors["backbone.features.0.0.0.weight"][0, 0, 0, 0] = float("nan")
    return "not finite"


@pytest.mark.parametrize("act", [drop, add, reshape, poison], ids=lambda act: act.__name__)
def test_a_file_of_another_network_is_refused_by_the_first_name_and_changes_nothing(act: Any, save: Save) -> None:
    tensors = coco_weights()
    named = act(tensors)
    path = save(tensors, "other.safetensors")
    config = Config(model=SSDLITE, weights=str(path))
    detector = build_model(config, 3, initial_weights=False)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(detector, config)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit(7)",)


CONTENTS = {"empty": b"", "text": b"no weights", "number": b"\x80\x04K\x01.", "evil": Evil()}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_file_is_named_and_runs_no_code(content: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": content}, path)
    with pytest.raises(UserError) as caught:
        load(path, "small")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_coco_weights_are_taken_from_torchvisions_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    made = tmp_path / "made.pth"
    tensors = coco_weights()
    torch.save(tensors, made)
    digits = hashlib.sha256(made.read_bytes()).hexdigest()[:8]
    published = torchvision.models.get_model_weights(SSDLITE).DEFAULT
    address = f"https://download.pytorch.org/models/ssdlite_coco-{digits}.pth"
    monkeypatch.setattr(published, "_value_", type(published.value)(address, **rest_of(published.value)))
    made.rename(folder / f"ssdlite_coco-{digits}.pth")
    config = Config(model=SSDLITE, weights="coco")
    detector = build_model(config, 3, initial_weights=True)
    result = detector.get_submodule("model").state_dict()["backbone.features.0.0.0.weight"]
    assert torch.equal(result, tensors["backbone.features.0.0.0.weight"])
    (folder / f"ssdlite_coco-{digits}.pth").write_bytes(b"changed")
    with pytest.raises(UserError, match="a downloaded file was changed"):
        build_model(config, 3, initial_weights=True)


def rest_of(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in ("transforms", "meta")}


@pytest.mark.parametrize("model", [name for name in CLASS_LAYERS if name != "small"])
def test_without_network_one_line_says_what_file_to_put_where(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("core.weights.content_length", refuse)
    with pytest.raises(UserError) as caught:
        weights.coco_file(model)
    message = str(caught.value)
    for part in (model, "https://download.pytorch.org/models/", str(tmp_path / "cache" / "hub" / "checkpoints")):
        assert part in message
    assert "no route to host" in message
    assert "\n" not in message


def test_the_class_layers_are_all_that_differs_between_numbers_of_classes() -> None:
    for name, prefixes in CLASS_LAYERS.items():
        one, two = (shapes(build_model(Config(model=name), num, initial_weights=False)) for num in (2, 5))  # type: ignore[arg-type]
        differing = {key.removeprefix("model.") for key in one if one[key] != two[key]}
        assert differing, name
        assert all(key.startswith(prefixes) for key in differing), differing


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def test_a_run_begins_with_a_files_weights_and_an_earlier_runs_checkpoint_is_such_a_file(
    narrow: None, tmp_path: Path
) -> None:
    tiny = ["--num-synthetic", "24", "--image-size", "64", "--batch-size", "8", "--epochs", "1", "--max-steps", "1"]
    tiny += ["--device", "cpu", "--precision", "fp32", "--mosaic", "0", "--lr", "1e-9", "--seed", "1"]
    train(parse_training(Config, [*tiny, "--run-dir", str(tmp_path / "first")]))
    checkpoint = tmp_path / "first" / "checkpoints" / "step-00000001"
    for part in ("model", "ema"):
        file, run = checkpoint / f"{part}.safetensors", tmp_path / part
        train(parse_training(Config, [*tiny, "--weights", str(file), "--lr", "1e-12", "--run-dir", str(run)]))
        new = safetensors.torch.load_file(run / "checkpoints" / "step-00000001" / "model.safetensors")
        old = weights.read_tensors(file)
        difference = max(float((new[key] - old[key]).abs().max()) for key in new if key.endswith("0.weight"))
        assert difference < 1e-4
        assert json.loads((run / "run.json").read_text())["config"]["weights"] == str(file)
