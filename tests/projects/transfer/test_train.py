"""Settings that do not fit together are refused; every strategy runs; what is kept is what changes."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import checkpoint
from core.accelerator import Accelerator
from core.errors import UserError
from core.learner import Learner
from projects.transfer import train as program
from projects.transfer.config import FEW_IMAGES
from projects.transfer.data import class_weights
from projects.transfer.model import Classifier, SmallNet
from projects.transfer.optimizer import build_learner
from projects.transfer.train import evaluate, train_step
from tests import forked
from tests.forked import summary
from tests.projects.transfer.conftest import TINY, MakeFolder, main, settings
from tests.refusals import assert_refused

DO_NOT_FIT = {
    "--backbone": [
        ["--backbone", "resnet18"],
        ["--backbone", "timm:"],
        ["--backbone", "run:nowhere"],
        ["--backbone", "package:"],
    ],
    "--data": [["--data", "nowhere"], ["--data", ""]],
    "--weights": [
        ["--backbone", "timm:resnet18", "--weights", "w.safetensors"],
        ["--weights", "w.pkl"],
        ["--backbone", "package:efficientnet_lite0", "--weights", "w.safetensors"],
    ],
    "--from-scratch": [
        ["--from-scratch", "--strategy", "head"],
        ["--from-scratch", "--strategy", "gradual"],
        ["--from-scratch", "--norms", "keep"],
    ],
    "--strategy": [["--cache", "yes", "--strategy", "full"]],
    "--cache": [["--strategy", "head", "--cache", "yes", "--mixup", "1"]],
    "--views": [["--strategy", "head", "--cache", "yes", "--views", "0"]],
    "--adapt": [["--target", "."], ["--adapt", "coral", "--target", ".", "--strategy", "head"]],
    "--target": [["--adapt", "adabn"], ["--adapt", "adabn", "--target", "nowhere"]],
}
CASES = [(named, argv) for named, cases in DO_NOT_FIT.items() for argv in cases]


@pytest.mark.parametrize(("named", "argv"), CASES, ids=[" ".join(argv) for _, argv in CASES])
def test_settings_that_do_not_fit_and_names_that_are_not_there_are_refused(
    named: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: settings(*argv), named, tmp_path)


@pytest.mark.parametrize(
    "argv", [["--backbone", "timm:resnet18"], ["--backbone", "torchvision:resnet18"], ["--augment", "rand"]], ids=str
)
def test_a_library_that_is_missing_is_named(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from projects.transfer import config

    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a library is missing: (timm|torchvision)"):
        settings(*argv)
    assert settings().backbone == "auto"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--batch-size", 60], "--batch-size 60"),
        (["--image-size", 1], "--image-size 1"),
        (["--batch-size", 1, "--image-size", 32, "--backbone", "timm:test_resnet", "--from-scratch"], "--batch-size 1"),
    ],
)
def test_what_only_images_or_backbone_can_refuse_is_refused_with_nothing_created(
    argv: list[object], named: str, make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    given = ["--data", make_folder(train=10), *TINY, "--backbone", f"run:{source_run}", *argv]
    with pytest.raises(UserError, match=named):
        main([*given, "--run-dir", tmp_path / "run"])
    assert not (tmp_path / "run").exists()


RECIPES = {
    "full": ["--strategy", "full", "--layer-decay", 0.5, "--augment", "crop"],
    "sgd": ["--optimizer", "sgd", "--augment", "light", "--balance", "weights", "--mixup", 0.2],
    "gradual": ["--strategy", "gradual", "--epochs", 3, "--ema", 0],
    "head": ["--strategy", "head", "--dropout", 0.2, "--label-smoothing", 0],
    "scratch": ["--from-scratch", "--patience", 1, "--epochs", 4, "--ema", 0],
}


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("name", RECIPES)
def test_a_checkpoint_holds_what_training_changes_and_nothing_else(
    name: str, make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    given = ["--data", make_folder(train=12, test=3), *TINY, "--backbone", f"run:{source_run}", *RECIPES[name]]
    main([*given, "--run-dir", run_dir])
    state = checkpoint.load(checkpoint.folders(run_dir)[-1])
    head = {"1.weight", "1.bias"}
    if name == "head":
        assert state["model"].keys() == head == state["ema"]["module"].keys()
    else:
        assert {key for key in state["model"] if key.startswith("head.")} == {f"head.{key}" for key in head}
        assert "backbone.stages.2.norm2.running_var" in state["model"]
    assert (run_dir / "backbone.safetensors").exists()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert 0 <= rates[-1] <= max(rates) <= 0.01
    numbers = summary(run_dir)
    losses = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    assert numbers["best_val_loss"] == min(losses.values()) == losses[numbers["best_step"]]
    assert numbers["num_test"] == 9
    assert round(9 * numbers["test_accuracy"], 6).is_integer()
    facts = json.loads((run_dir / "run.json").read_text())["facts"]
    assert facts["model"] == "run:fast"
    assert facts["weights"] == ("random" if name == "scratch" else "run of projects.cifar10")


@pytest.mark.usefixtures("_quick")
def test_a_run_can_be_fine_tuned_further_whatever_its_strategy_was(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    folder = make_folder(train=12, test=3)
    for strategy in ("head", "full"):
        first, second = tmp_path / strategy, tmp_path / f"{strategy}-2"
        given = ["--data", folder, *TINY, "--epochs", 1]
        main([*given, "--backbone", f"run:{source_run}", "--strategy", strategy, "--run-dir", first])
        main([*given, "--backbone", f"run:{first}", "--strategy", "head", "--run-dir", second])
        facts = json.loads((second / "run.json").read_text())["facts"]
        assert (facts["model"], facts["num_source_classes"]) == ("run:fast", 10)
        one, other = (json.loads((run / "run.json").read_text())["facts"]["weights_sha256"] for run in (first, second))
        assert (one == other) == (strategy == "head")


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("strategy", ["auto", "gradual"])  # auto: head, of so few images
def test_stopped_and_resumed_without_its_source_it_ends_as_the_unbroken_run(
    strategy: str, source_run: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(source_run, source)
    given = ["--num-synthetic", 100, *TINY, "--backbone", f"run:{source}", "--strategy", strategy, "--thaw", 1]
    assert forked.run(main, [*given, "--run-dir", tmp_path / "whole"]) == 0
    assert forked.run(forked.stopping_at(3, program), [*given, "--run-dir", tmp_path / "broken"]) == 143
    shutil.rmtree(source)
    assert forked.run(main, ["--resume", tmp_path / "broken"]) == 0
    assert forked.ending(tmp_path / "broken") == forked.ending(tmp_path / "whole")
    assert summary(tmp_path / "broken") == summary(tmp_path / "whole")
    stored = json.loads((tmp_path / "broken" / "run.json").read_text())["config"]["strategy"]
    assert stored == strategy.replace("auto", "head")


def test_auto_trains_the_head_of_few_images_and_everything_where_it_can_pay() -> None:
    few, many = FEW_IMAGES - 1, FEW_IMAGES
    assert settings().resolved(few).strategy == "full", "the generated images are of another domain"
    assert settings("--data", ".").resolved(few).strategy == "head"
    assert settings("--data", ".").resolved(many).strategy == "full"
    for needs_all in (["--from-scratch"], ["--adapt", "dann", "--target", "."]):
        assert settings("--data", ".", *needs_all).resolved(few).strategy == "full"
    assert settings("--data", ".", "--strategy", "gradual").resolved(few).strategy == "gradual"


@pytest.mark.usefixtures("_quick")
def test_a_changed_backbone_is_refused_and_no_file_changes(source_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    given = ["--num-synthetic", 100, *TINY, "--backbone", f"run:{source_run}", "--strategy", "head", "--max-steps", 1]
    main([*given, "--run-dir", run_dir])
    path = run_dir / "backbone.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = forked.contents(run_dir)
    with pytest.raises(UserError, match="digest mismatch"):
        main(["--resume", run_dir, "--max-steps", 2])
    assert forked.contents(run_dir) == before


@pytest.mark.usefixtures("_quick")
def test_skipped_images_are_counted_and_listed(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(train=12, test=3)
    (folder / "train" / "blue" / "02.png").write_bytes(b"")
    given = ["--data", folder, *TINY, "--backbone", f"run:{source_run}", "--strategy", "head", "--epochs", 1]
    with pytest.raises(UserError, match=r"blue/02\.png"):
        main([*given, "--run-dir", tmp_path / "run"])
    main([*given, "--on-fault", "skip", "--run-dir", tmp_path / "run"])
    assert summary(tmp_path / "run")["num_skipped"] == 1
    listed = (tmp_path / "run" / "skipped.txt").read_text().rstrip()
    assert listed.startswith("train/blue/02.png (")
    assert listed in capsys.readouterr().out


def steps(num: int, *argv: object, class_weights: Tensor | None = None) -> Iterator[Tensor]:
    """The losses of train steps on the same 12 images of 3 classes."""
    torch.manual_seed(0)
    accelerator = Accelerator(device="cpu", precision="fp32")
    config = settings("--lr", 0.01, "--backbone-lr", 1, "--warmup", 0, "--ema", 0, *argv)
    backbone = SmallNet(5)
    backbone.head = nn.Identity()  # type: ignore[assignment]
    network = Classifier(backbone, 96, 3)
    learner: Learner[nn.Module] = build_learner(network, config, 10_000, accelerator)
    images, targets = torch.randn(12, 3, 16, 16), F.one_hot(torch.arange(12) % 3).float()
    for _ in range(num):
        metrics = train_step(
            (images, targets),
            learner=learner,
            network=network,
            config=config,
            class_weights=class_weights,
            steps=10_000,
        )
        assert not metrics["loss"].requires_grad
        yield metrics["loss"]


def test_one_batch_is_learned() -> None:
    losses = [float(loss) for loss in steps(40, "--label-smoothing", 0)]
    assert losses[0] > 0.8
    assert losses[-1] < 0.05


def test_smoothed_labels_cannot_be_learned_below_their_entropy() -> None:
    right, wrong = 0.8 + 0.2 / 3, 0.2 / 3
    entropy = -right * math.log(right) - 2 * wrong * math.log(wrong)
    losses = [float(loss) for loss in steps(40, "--label-smoothing", 0.2)]
    assert entropy < min(losses)
    assert losses[-1] < entropy + 0.1


def test_class_weights_weigh_the_loss() -> None:
    plain = float(next(steps(1, "--label-smoothing", 0)))
    doubled = float(next(steps(1, "--label-smoothing", 0, class_weights=torch.full((3,), 2.0))))
    assert doubled == pytest.approx(2 * plain, rel=1e-6)


class Logits(nn.Module):
    """Gives its input, which a test takes for logits."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits


class Batches:
    """Seven images in uneven batches, each with two views."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.views = [torch.randn(7, 3, generator=generator) for _ in range(2)]
        self.labels = torch.tensor([0, 1, 0, 2, 0, 0, 1])

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Sequence[Tensor], Tensor]]:
        for part in (slice(0, 5), slice(5, 7)):
            yield [view[part] for view in self.views], self.labels[part]


def test_evaluation_averages_a_images_views_and_weighs_every_image_alike() -> None:
    loader = Batches()
    result = evaluate(loader, Logits(), Accelerator(device="cpu", precision="fp32"))
    probabilities = sum(view.softmax(1) for view in loader.views) / 2
    assert isinstance(probabilities, Tensor)
    assert result.keys() == {"accuracy", "loss"}
    assert result["accuracy"] == pytest.approx(float((probabilities.argmax(1) == loader.labels).float().mean()))
    assert result["loss"] == pytest.approx(float(F.nll_loss(probabilities.log(), loader.labels)), rel=1e-5)


def test_balanced_accuracy_is_the_mean_of_the_classes_accuracies() -> None:
    loader = Batches()
    weights = class_weights(loader.labels.numpy(), 3)
    result = evaluate(loader, Logits(), Accelerator(device="cpu", precision="fp32"), weights)
    probabilities = sum(view.softmax(1) for view in loader.views)
    assert isinstance(probabilities, Tensor)
    right = (probabilities.argmax(1) == loader.labels).numpy()
    expected = np.mean([right[loader.labels.numpy() == label].mean() for label in range(3)])
    assert result["balanced_accuracy"] == pytest.approx(float(expected))
