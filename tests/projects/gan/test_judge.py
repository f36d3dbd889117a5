"""The judge: learned, taken from a run of another project, and the same one after a resume."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core import checkpoint
from core.accelerator import Accelerator
from core.errors import UserError
from core.optim import Ema
from projects.gan.config import Config
from projects.gan.data import Data, Pictures
from projects.gan.judge import Judge, SmallClassifier, find_judge, from_run, keep, kept, knows
from projects.gan.synthetic import CLASSES, draw_pictures

QUICK = {"image_size": 8, "judge_steps": 40}


def accelerator() -> Accelerator:
    return Accelerator(device="cpu", precision="fp32")


def shapes(num: int = 400, *, gray: bool = False, size: int = 8) -> Data:
    pixels, labels = (torch.from_numpy(array) for array in draw_pictures(num, 0, size))
    pictures = Pictures(pixels[..., :1].contiguous() if gray else pixels, labels)
    return Data(CLASSES, pictures.take(torch.arange(num // 2)), pictures.take(torch.arange(num // 2, num)))


def test_it_learns_the_classes_of_the_pictures_and_says_how_well() -> None:
    data = shapes()
    judge = find_judge(Config(**QUICK), data, accelerator(), None)
    features, labels = judge.look(data.held_out.pixels, accelerator())
    right = float((labels == data.held_out.labels).float().mean())
    assert right > 0.6
    assert f"training pictures' classes ({right:.0%} of held-out" in judge.title
    assert (features.dtype, features.shape) == (torch.float32, (200, 64))
    assert knows(judge, CLASSES)


def test_it_is_the_same_one_each_time() -> None:
    first, second = (find_judge(Config(image_size=8, judge_steps=3), shapes(), accelerator(), None) for _ in range(2))
    assert first.facts() == second.facts()


def test_features_are_what_the_last_layer_takes() -> None:
    torch.manual_seed(0)
    data, network = shapes(), SmallClassifier(3, 4)
    judge = Judge(network, "small", CLASSES, [0.2] * 3, [0.5] * 3, 8, "test")
    features, labels = judge.look(data.held_out.pixels, accelerator())
    with torch.no_grad():
        assert torch.equal(network.head(features).argmax(1), labels)
        assert network.training  # it was in evaluation mode for as long as it looked
        expected = network.eval()((data.held_out.pixels.permute(0, 3, 1, 2) / 255 - 0.2) / 0.5).argmax(1)
    assert torch.equal(expected, labels)


def test_pictures_without_classes_are_judged_by_one_of_drawn_shapes() -> None:
    pictures = shapes()
    unlabeled = Data([], pictures.train, pictures.held_out)
    judge = find_judge(Config(**QUICK, num_synthetic=200), unlabeled, accelerator(), None)
    assert "drawn shapes" in judge.title
    assert not knows(judge, unlabeled.classes)
    gray = shapes(gray=True)
    assert judge.look(gray.held_out.pixels, accelerator())[0].shape == (200, 64)  # three channels from one


def test_the_judge_of_a_run_is_the_same_after_a_resume(tmp_path: Path) -> None:
    data = shapes()
    judge = find_judge(Config(image_size=8, judge_steps=3), data, accelerator(), None)
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "project": "gan", "facts": {"judge": judge.facts()}}))
    assert kept(tmp_path) is None  # stopped before it was kept
    keep(judge, tmp_path)
    again = find_judge(Config(image_size=8, judge_steps=99), data, accelerator(), tmp_path)
    assert again.facts() == judge.facts()
    seen = [each.look(data.held_out.pixels, accelerator())[0] for each in (judge, again)]
    assert torch.equal(*seen)
    (tmp_path / "judge.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"judge\.safetensors"):
        kept(tmp_path)


def classifier_run(run_dir: Path, **facts: Any) -> nn.Module:
    """A run folder as cifar10 leaves one behind, with random weights."""
    from projects.cifar10.model import build_model

    torch.manual_seed(0)
    network = build_model("resnet20", 3)
    run_dir.mkdir()
    described = {"model": "resnet20", "classes": ["a", "b", "c"], "mean": [0.4] * 3, "std": [0.2] * 3, **facts}
    body = {"format": 1, "project": "cifar10", "config": {"image_size": 16}, "facts": described}
    (run_dir / "run.json").write_text(json.dumps(body))
    average = Ema(network, 0.5)
    nn.init.ones_(network.head.weight)  # type: ignore[union-attr, arg-type]
    state = {"model": network.state_dict(), "ema": average.state_dict(), "loop": {"best_step": 7}}
    checkpoint.save(run_dir, 7, state, project="cifar10")
    checkpoint.save(run_dir, 9, {**state, "ema": {}}, project="cifar10")
    return average.module


def test_a_run_of_cifar10_judges_with_its_best_averaged_weights(tmp_path: Path) -> None:
    network = classifier_run(tmp_path / "run")
    judge = from_run(tmp_path / "run")
    assert judge.title == "features of projects.cifar10's resnet20, step 7"
    pixels = shapes(size=16).held_out.pixels
    features, labels = judge.look(pixels, accelerator())
    with torch.inference_mode():
        expected = network((pixels.permute(0, 3, 1, 2) / 255 - 0.4) / 0.2).argmax(1)
    assert torch.equal(labels, expected)
    assert features.shape == (200, 64)
    assert judge.look(shapes(size=8).held_out.pixels, accelerator())[0].shape == (200, 64)  # brought to its size
    assert knows(judge, ["a", "b", "c"])
    assert not knows(judge, ["a", "c", "b"])


@pytest.mark.parametrize("facts", [{"mean": None}, {"classes": ["a", "b"]}], ids=str)
def test_a_run_that_is_no_such_classifier_is_named(facts: dict[str, Any], tmp_path: Path) -> None:
    classifier_run(tmp_path / "run", **facts)
    with pytest.raises(UserError) as caught:
        from_run(tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        from_run(tmp_path)
