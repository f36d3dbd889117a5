"""Wrong settings are refused in one line with nothing created; every strategy runs; what is kept is what changes."""

import json
import math
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
from projects.transfer.model import Classifier, SmallNet
from projects.transfer.train import build_optimizer, build_schedule, evaluate, parse_arguments, train_step
from tests.conftest import Program
from tests.projects.transfer.conftest import TINY, MakeFolder, main, summary
from tests.refusals import assert_left_with_2, assert_refused

WRONG = {
    "--backbone": [["--backbone", "resnet18"], ["--backbone", "timm:"], ["--backbone", "run:nowhere"]],
    "--data": [["--data", "nowhere"], ["--data", ""]],
    "--weights": [["--backbone", "timm:resnet18", "--weights", "w.safetensors"], ["--weights", "w.pkl"]],
    "--from-scratch": [["--from-scratch", "--strategy", "head"], ["--from-scratch", "--strategy", "gradual"]],
    "--strategy": [["--strategy", "tail"], ["--cache", "yes", "--strategy", "full"]],
    "--cache": [["--strategy", "head", "--cache", "yes", "--mixup", "1"], ["--cache", "perhaps"]],
    "--views": [["--strategy", "head", "--cache", "yes", "--views", "0"], ["--views", "-1"]],
    "--adapt": [["--target", "."], ["--adapt", "all"]],
    "--target": [["--adapt", "adabn"], ["--adapt", "adabn", "--target", "nowhere"]],
    "--thaw": [["--thaw", "0"], ["--thaw", "1.1"]],
    "--lr": [["--lr", "0"], ["--lr", "nan"]],
    "--backbone-lr": [["--backbone-lr", "0"], ["--backbone-lr", "11"]],
    "--layer-decay": [["--layer-decay", "0"], ["--layer-decay", "1.5"]],
    "--dropout": [["--dropout", "1"]],
    "--balance": [["--balance", "both"]],
    "--image-size": [["--image-size", "-1"], ["--image-size", "1025"]],
    "--crop": [["--crop", "0.4"], ["--crop", "1.1"]],
    "--augment": [["--augment", "all"]],
    "--rand-ops": [["--rand-ops", "0"]],
    "--rand-magnitude": [["--rand-magnitude", "31"]],
    "--mixup": [["--mixup", "-1"]],
    "--cutmix": [["--cutmix", "11"]],
    "--val-fraction": [["--val-fraction", "0"], ["--val-fraction", "0.6"]],
    "--on-bad-image": [["--on-bad-image", "ignore"]],
    "--patience": [["--patience", "-1"]],
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
    "argv", [["--backbone", "timm:resnet18"], ["--backbone", "torchvision:resnet18"], ["--augment", "rand"]], ids=str
)
def test_a_library_that_is_missing_is_named(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from projects.transfer import config

    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a library is missing: (timm|torchvision)"):
        parse_arguments(argv)
    assert parse_arguments([]).config.backbone == "auto"


def test_the_program_leaves_with_2_and_one_line(program: Program, tmp_path: Path) -> None:
    done = program("projects.transfer.train", "--data", "nowhere", "--run-dir", "r")
    assert_left_with_2(done, "error: no such folder: --data nowhere", tmp_path)


@pytest.mark.parametrize(
    ("argv", "named"), [(["--batch-size", 60], "--batch-size 60"), (["--image-size", 1], "--image-size 1")]
)
def test_what_only_pictures_or_backbone_can_refuse_is_refused_with_nothing_created(
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
    assert (run_dir / "backbone.safetensors").exists() == (name != "scratch")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert 0 <= rates[-1] <= max(rates) <= 0.01
    numbers = summary(run_dir)
    losses = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    assert numbers["best_val_loss"] == min(losses.values()) == losses[numbers["best_step"]]
    assert numbers["num_test"] == 9
    assert round(9 * numbers["test_accuracy"], 6).is_integer()
    facts = json.loads((run_dir / "run.json").read_text())["facts"]
    assert facts["model"] == "cifar10:fast"
    assert facts["weights"] == ("random" if name == "scratch" else "run of projects.cifar10, step 2")


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
        assert (facts["model"], facts["num_source_classes"]) == ("cifar10:fast", 10)
        one, other = (json.loads((run / "run.json").read_text())["facts"]["weights_sha256"] for run in (first, second))
        assert (one == other) == (strategy == "head")


def test_from_scratch_the_fixed_filters_come_from_the_new_pictures(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    from projects.transfer.parts import Parts

    given = ["--data", make_folder(train=12, test=3), *TINY, "--backbone", f"run:{source_run}"]
    accelerator = Accelerator(device="cpu", precision="fp32")
    tuned, scratch = (
        Parts.of(parse_arguments([str(word) for word in [*given, *more]]), accelerator)
        for more in ([], ["--from-scratch"])
    )
    assert tuned.look.mean != scratch.look.mean == scratch.data.statistics()[0]
    kept, new = (parts.network.backbone.get_parameter("whitening.weight") for parts in (tuned, scratch))
    assert torch.equal(new[12:], -new[:12])
    assert not torch.allclose(new, kept)
    assert all(tuned.network.state_dict()[name].shape == t.shape for name, t in scratch.network.state_dict().items())


@pytest.mark.usefixtures("_quick")
def test_skipped_pictures_are_counted_and_listed(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(train=12, test=3)
    (folder / "train" / "blue" / "02.png").write_bytes(b"")
    given = ["--data", folder, *TINY, "--backbone", f"run:{source_run}", "--strategy", "head", "--epochs", 1]
    with pytest.raises(UserError, match=r"blue/02\.png"):
        main([*given, "--run-dir", tmp_path / "run"])
    main([*given, "--on-bad-image", "skip", "--run-dir", tmp_path / "run"])
    assert summary(tmp_path / "run")["num_skipped"] == 1
    (listed,) = json.loads((tmp_path / "run" / "run.json").read_text())["facts"]["skipped"]
    assert listed.startswith("train/blue/02.png (")
    assert f"skipped 1 broken pictures, listed in run.json; first: {listed}" in capsys.readouterr().out


def steps(num: int, *argv: object, class_weights: Tensor | None = None) -> Iterator[Tensor]:
    """The losses of train steps on the same 12 pictures of 3 classes."""
    torch.manual_seed(0)
    accelerator = Accelerator(device="cpu", precision="fp32")
    config = parse_arguments([str(word) for word in ("--lr", 0.01, "--backbone-lr", 1, "--warmup", 0, *argv)]).config
    backbone = SmallNet(5)
    backbone.head = nn.Identity()  # type: ignore[assignment]
    network = Classifier(backbone, 96, 3)
    optimizer = build_optimizer(network, config)
    scheduler = build_schedule(optimizer, config, 10_000)
    images, targets = torch.randn(12, 3, 16, 16), F.one_hot(torch.arange(12) % 3).float()
    for _ in range(num):
        accelerator.micro_batch(0, 1)
        metrics = train_step(
            (images, targets),
            network=network,
            forward=network,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=None,
            accelerator=accelerator,
            config=config,
            class_weights=class_weights,
            steps=10_000,
        )
        assert not metrics["loss"].requires_grad
        yield metrics["loss"]


def test_one_batch_is_learned_by_heart() -> None:
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
    """Seven pictures in uneven batches, each with two views."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.views = [torch.randn(7, 3, generator=generator) for _ in range(2)]
        self.labels = torch.tensor([0, 1, 0, 2, 0, 0, 1])

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Sequence[Tensor], Tensor]]:
        for part in (slice(0, 5), slice(5, 7)):
            yield [view[part] for view in self.views], self.labels[part]


def test_evaluation_averages_a_pictures_views_and_weighs_every_picture_alike() -> None:
    loader = Batches()
    found = evaluate(loader, Logits(), Accelerator(device="cpu", precision="fp32"))
    probabilities = sum(view.softmax(1) for view in loader.views) / 2
    assert isinstance(probabilities, Tensor)
    assert found.keys() == {"accuracy", "loss"}
    assert found["accuracy"] == pytest.approx(float((probabilities.argmax(1) == loader.labels).float().mean()))
    assert found["loss"] == pytest.approx(float(F.nll_loss(probabilities.log(), loader.labels)), rel=1e-5)


def test_balanced_accuracy_is_the_mean_of_the_classes_accuracies() -> None:
    from projects.transfer.data import class_weights

    loader = Batches()
    weights = class_weights(loader.labels.numpy(), 3)
    found = evaluate(loader, Logits(), Accelerator(device="cpu", precision="fp32"), weights)
    said = sum(view.softmax(1) for view in loader.views)
    assert isinstance(said, Tensor)
    right = (said.argmax(1) == loader.labels).numpy()
    expected = np.mean([right[loader.labels.numpy() == label].mean() for label in range(3)])
    assert found["balanced_accuracy"] == pytest.approx(float(expected))
