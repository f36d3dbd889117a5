"""Wrong settings are refused in one line with nothing created; a train step learns; the numbers are what they say."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from projects.cifar10.model import build_model
from projects.cifar10.synthetic import draw_pictures
from projects.cifar10.train import build_optimizer, build_schedule, evaluate, parse_arguments, train, train_step
from tests.conftest import Program
from tests.refusals import assert_left_with_2, assert_refused

TINY = ["--data", "synthetic", "--num-synthetic", "120", "--image-size", "16", "--batch-size", "20", "--lr", "0.1"]
TINY += ["--epochs", "2", "--val-fraction", "0.2", "--device", "cpu", "--precision", "fp32", "--log-every", "2"]
WRONG = {
    "--model": [["--model", "resnet99"], ["--model", "timm:"], ["--model", ""]],
    "--data": [["--data", "nowhere"], ["--data", "."], ["--data", ""]],
    "--image-size": [["--data", "cifar10", "--image-size", "31"], ["--image-size", "15"], ["--image-size", "513"]],
    "--resume": [["--resume", "r", "--run-dir", "q"], ["--resume", "r", "--smoke"]],
    "not a run folder": [["--resume", "."], ["--resume", "nowhere"]],
    "--epochs": [["--epochs", "0"], ["--epochs", "1.5"], ["--epoch", "1"]],
    "--batch-size": [["--batch-size", "0"], ["--batch-size", "1_000"]],
    "--lr": [["--lr", "0"], ["--lr", "nan"], ["--lr", "-1"]],
    "--momentum": [["--momentum", "1"], ["--momentum", "-0.1"]],
    "--weight-decay": [["--weight-decay", "-1"]],
    "--warmup": [["--warmup", "1"]],
    "--label-smoothing": [["--label-smoothing", "1"]],
    "--crop-padding": [["--crop-padding", "16"], ["--crop-padding", "-1"]],
    "--cutout": [["--cutout", "65"]],
    "--ema": [["--ema", "1"]],
    "--val-fraction": [["--val-fraction", "0"], ["--val-fraction", "1"]],
    "--num-synthetic": [["--num-synthetic", "99"]],
    "--seed": [["--seed", "-1"]],
    "--optimizer": [["--optimizer", "adam"]],
    "--schedule": [["--schedule", "linear"]],
    "--resident": [["--resident", "maybe"]],
    "--precision": [["--precision", "int8"]],
    "--frobnicate": [["--frobnicate"]],
}
CASES = [(named, argv) for named, cases in WRONG.items() for argv in cases]


@pytest.mark.parametrize(("named", "argv"), CASES, ids=[" ".join(argv) for _, argv in CASES])
def test_a_wrong_flag_is_named_in_one_line_and_nothing_is_created(
    named: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: parse_arguments(argv), named, tmp_path)


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
    done = program("projects.cifar10.train", *TINY, env=told)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv", [["--model", "resnet99"], ["--data", "nowhere", "--run-dir", "r"]], ids=" ".join)
def test_the_program_leaves_with_2_and_one_line(argv: list[str], program: Program, tmp_path: Path) -> None:
    done = program("projects.cifar10.train", *argv)
    assert_left_with_2(done, "error: ", tmp_path)


@pytest.mark.parametrize(
    ("argv", "named"),
    [(["--batch-size", "200"], "--batch-size 200"), (["--model", "timm:no_such_model"], "timm:no_such_model")],
)
def test_what_only_data_or_timm_can_refuse_is_refused_with_nothing_created(
    argv: list[str], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=named):
        train(parse_arguments([*TINY, *argv, "--run-dir", str(tmp_path / "run")]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", [["sgd", "one-cycle", "resnet20"], ["adamw", "cosine", "fast"]], ids=" ".join)
def test_every_recipe_runs_to_the_end_with_falling_rate(recipe: list[str], tmp_path: Path) -> None:
    optimizer, schedule, model = recipe
    argv = [*TINY, "--optimizer", optimizer, "--schedule", schedule, "--model", model, "--lr", "0.002"]
    train(parse_arguments([*argv, "--warmup", "0.2", "--ema", "0", "--run-dir", str(tmp_path / "run")]))
    rates = [line["lr"] for line in read_metrics(tmp_path / "run") if "lr" in line]
    assert 0 <= rates[-1] < max(rates) <= 0.002


def test_the_summary_is_of_the_step_that_was_best_in_validation(tmp_path: Path) -> None:
    train(parse_arguments([*TINY, "--model", "fast", "--ema", "0.5", "--run-dir", str(tmp_path / "run")]))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    accuracies = {line["step"]: line["val/accuracy"] for line in read_metrics(tmp_path / "run") if "val/loss" in line}
    assert summary["steps"] == max(accuracies)
    assert summary["best_val_accuracy"] == max(accuracies.values()) == accuracies[summary["best_step"]]
    assert summary["num_test"] == 20
    assert round(20 * summary["test_accuracy"], 6).is_integer()


def test_one_batch_is_learned_by_heart() -> None:
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
    """The losses of train steps on the same 20 pictures."""
    torch.manual_seed(0)
    accelerator = Accelerator(device="cpu", precision="fp32")
    pixels, labels = draw_pictures(20, seed=0, size=16)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    network = build_model("fast", 10)
    config = parse_arguments(
        [*TINY, "--optimizer", "adamw", "--lr", "0.01", "--schedule", "cosine", "--warmup", "0"]
    ).config
    optimizer = build_optimizer(network, config)
    scheduler = build_schedule(optimizer, config, 10_000)
    for _ in range(num):
        accelerator.micro_batch(0, 1)
        metrics = train_step(
            (images, torch.from_numpy(labels)),
            forward=network,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=None,
            accelerator=accelerator,
            label_smoothing=label_smoothing,
        )
        assert not metrics["loss"].requires_grad
        yield metrics["loss"]


class Sums(nn.Module):
    """Two logits: 0, and the sum of a picture's left half less that of its right half."""

    def forward(self, images: Tensor) -> Tensor:
        left, right = (half.sum((1, 2, 3)) for half in images.chunk(2, dim=3))
        return torch.stack([torch.zeros_like(left), left - right], dim=1)


class Batches:
    """Seven pictures in uneven batches."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(7, 3, 4, 4, generator=generator)
        self.labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split([5, 2]), self.labels.split([5, 2]), strict=True)


def test_evaluation_weighs_every_picture_alike() -> None:
    loader, network = Batches(), Sums()
    found = evaluate(loader, network, Accelerator(device="cpu", precision="fp32"), test_flip=False)
    logits = network(loader.images)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == loader.labels).float().mean()))
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, loader.labels)), rel=1e-5)


def test_with_test_flip_a_picture_and_its_mirror_image_count_alike() -> None:
    found = evaluate(Batches(), Sums(), Accelerator(device="cpu", precision="fp32"), test_flip=True)
    assert found["loss"] == pytest.approx(math.log(2), rel=1e-5)  # the two sides of Sums cancel


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
