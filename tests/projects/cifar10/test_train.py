"""Settings that cannot be are refused with nothing created; a train step learns; the numbers are what they say."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.learner import Learner
from core.program import parse_training
from projects.cifar10.config import Config
from projects.cifar10.model import build_model
from projects.cifar10.synthetic import draw_images
from projects.cifar10.train import build_optimizer, build_schedule, evaluate, train, train_step
from tests.conftest import Program
from tests.forked import summary
from tests.refusals import assert_left_with_2, assert_refused

TINY = ["--data", "synthetic", "--num-synthetic", "120", "--image-size", "16", "--batch-size", "20", "--lr", "0.1"]
TINY += ["--epochs", "2", "--val-fraction", "0.2", "--device", "cpu", "--precision", "fp32", "--log-every", "2"]


def main(*argv: object) -> None:
    train(parse_training(Config, [*TINY, *map(str, argv)]))


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--model", "resnet99"], "--model resnet99"),
        (["--model", "timm:"], "--model timm:"),
        (["--data", "nowhere"], "--data nowhere"),
        (["--data", "."], "--data ."),
        (["--data", "cifar10", "--image-size", "31"], "--image-size 31"),
        (["--batch-size", "200"], "--batch-size 200"),
        (["--model", "timm:no_such_model"], "timm:no_such_model"),
        (["--model", "timm:vit_tiny_patch16_224"], "give --image-size 224"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_or_the_data_is_refused_with_nothing_created(
    argv: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(partial(main, *argv, "--run-dir", tmp_path / "run"), named, tmp_path)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("require", "error: no compiled cpu kernels, and ATELIER_EXT=require: no C++ compiler (no-such-compiler)"),
        ("requires", "error: unknown value: ATELIER_EXT=requires; choose from auto, require, off"),
    ],
)
def test_kernels_that_are_asked_for_and_cannot_be_had_end_it_before_anything_is_created(
    wish: str, said: str, program: Program, tmp_path: Path
) -> None:
    told = {"ATELIER_EXT": wish, "CXX": "no-such-compiler", "ATELIER_CACHE": str(tmp_path / "cache")}
    assert_left_with_2(program("projects.cifar10.train", *TINY, env=told), said, tmp_path)


RECIPES = [
    ["sgd", "one-cycle", "resnet20"],
    ["adamw", "cosine", "fast"],
    ["adam", "step", "lenet"],
    ["muon", "one-cycle", "mlp"],
]


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_every_recipe_runs_to_the_end_with_falling_rate(recipe: list[str], tmp_path: Path) -> None:
    optimizer, schedule, model = recipe
    argv = ["--optimizer", optimizer, "--schedule", schedule, "--model", model, "--lr", "0.002"]
    main(*argv, "--warmup", "0.2", "--ema", "0", "--run-dir", tmp_path / "run")
    rates = [line["lr"] for line in read_metrics(tmp_path / "run") if "lr" in line]
    assert 0 <= rates[-1] < max(rates) <= 0.002


@pytest.mark.parametrize("few", [10, 500])
def test_the_summary_is_of_the_step_that_was_best_in_validation_or_of_the_last_where_that_is_small(
    few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projects.cifar10.train._FEW_IMAGES", few)
    main("--model", "fast", "--ema", "0.5", "--epochs", 4, "--lr", 2, "--run-dir", tmp_path / "run")
    numbers = summary(tmp_path / "run")
    accuracies = {line["step"]: line["val/accuracy"] for line in read_metrics(tmp_path / "run") if "val/loss" in line}
    assert numbers["steps"] == max(accuracies)
    assert numbers["best_val_accuracy"] == accuracies[numbers["best_step"]]
    if few == 10:
        assert numbers["best_val_accuracy"] == max(accuracies.values())
    else:
        assert numbers["best_step"] == numbers["steps"]
    assert numbers["num_test"] == 20
    assert round(20 * numbers["test_accuracy"], 6).is_integer()


def test_one_batch_is_learned() -> None:
    losses = [float(loss) for loss in steps(80, label_smoothing=0.0)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.2


def test_smoothed_labels_cannot_be_learned_below_their_entropy() -> None:
    smoothing, num_classes = 0.2, 10
    right, wrong = 1 - smoothing + smoothing / num_classes, smoothing / num_classes
    entropy = -right * math.log(right) - (num_classes - 1) * wrong * math.log(wrong)
    losses = [float(loss) for loss in steps(80, label_smoothing=smoothing)]
    assert entropy < min(losses)
    assert losses[-1] < entropy + 0.2


def steps(num: int, label_smoothing: float) -> Iterator[Tensor]:
    """The losses of train steps on the same 20 images."""
    torch.manual_seed(0)
    accelerator = Accelerator(device="cpu", precision="fp32")
    pixels, labels = draw_images(20, seed=0, size=16)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    network = build_model("fast", 10)
    argv = [*TINY, "--optimizer", "adamw", "--lr", "0.01", "--schedule", "cosine", "--warmup", "0"]
    config = parse_training(Config, argv).config
    learner = Learner(network, build_optimizer(network, config), build_schedule(config, 10_000), accelerator)
    for _ in range(num):
        metrics = train_step((images, torch.from_numpy(labels)), learner=learner, label_smoothing=label_smoothing)
        assert not metrics["loss"].requires_grad
        yield metrics["loss"]


class Sums(nn.Module):
    """Two logits: 0, and the sum of a image's left half less that of its right half."""

    def forward(self, images: Tensor) -> Tensor:
        left, right = (half.sum((1, 2, 3)) for half in images.chunk(2, dim=3))
        return torch.stack([torch.zeros_like(left), left - right], dim=1)


class Batches:
    """Seven images in uneven batches."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(7, 3, 4, 4, generator=generator)
        self.labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split([5, 2]), self.labels.split([5, 2]), strict=True)


def test_evaluation_weighs_every_image_alike() -> None:
    loader, network = Batches(), Sums()
    result = evaluate(loader, network, Accelerator(device="cpu", precision="fp32"), test_flip=False)
    logits = network(loader.images)
    assert result["accuracy"] == pytest.approx(float((logits.argmax(1) == loader.labels).float().mean()))
    assert result["loss"] == pytest.approx(float(F.cross_entropy(logits, loader.labels)), rel=1e-5)


def test_with_test_flip_an_image_and_its_mirror_image_count_alike() -> None:
    result = evaluate(Batches(), Sums(), Accelerator(device="cpu", precision="fp32"), test_flip=True)
    assert result["loss"] == pytest.approx(math.log(2), rel=1e-5)  # the two sides of Sums cancel


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
