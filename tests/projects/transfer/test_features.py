"""Features that are computed once give the very training that computing them every time gives."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from core import checkpoint
from core.accelerator import Accelerator
from projects.transfer import features
from projects.transfer.data import class_weights
from tests.forked import summary
from tests.projects.transfer.conftest import TINY, MakeFolder, main

pytestmark = pytest.mark.usefixtures("_quick")


def run(
    folder: Path, source: Path, run_dir: Path, *argv: object
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Trains the head alone; its last weights and the metrics."""
    given = ["--data", folder, *TINY, "--backbone", f"run:{source}", "--strategy", "head", "--run-dir", run_dir]
    main([*given, "--epochs", 3, *argv])
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return checkpoint.load(checkpoint.folders(run_dir)[-1])["model"], lines


@pytest.mark.parametrize(
    "argv",
    [["--augment", "none"], ["--augment", "crop", "--views", 2], ["--views", 2, "--balance", "sampler", "--ema", 0]],
    ids=lambda argv: " ".join(map(str, argv)),
)
def test_the_cache_changes_nothing_but_the_time(
    argv: list[object], make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    folder = make_folder(train=(12, 6, 9), test=2)
    cached, cached_lines = run(folder, source_run, tmp_path / "yes", *argv, "--cache", "yes")
    plain, plain_lines = run(folder, source_run, tmp_path / "no", *argv, "--cache", "no")
    assert cached.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(cached[name], plain[name], rtol=0, atol=1e-6)
    for one, other in zip(cached_lines, plain_lines, strict=True):
        for key in ("step", "train/loss", "val/loss", "val/accuracy"):
            assert one.get(key) == pytest.approx(other.get(key), abs=1e-6)
    assert summary(tmp_path / "yes")["test_accuracy"] == summary(tmp_path / "no")["test_accuracy"]


def test_the_backbone_runs_once_for_each_view_and_not_again_in_any_epoch(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    inner = features._features_of

    def counted(backbone: nn.Module, images: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
        seen.append(len(images))
        return inner(backbone, images, accelerator)

    monkeypatch.setattr(features, "_features_of", counted)
    argv = ["--views", 3, "--epochs", 7, "--no-test-flip"]
    run(make_folder(train=10, val=4, test=2), source_run, tmp_path / "run", *argv)
    assert sum(seen) == 3 * 30 + 12


@pytest.mark.parametrize("argv", [["--mixup", 0.3], ["--views", 0], ["--strategy", "full"]], ids=str)
def test_where_images_or_features_change_nothing_is_cached(
    argv: list[object], make_folder: MakeFolder, source_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_features_of", lambda *_: pytest.fail("a feature was cached"))
    run(make_folder(train=10, test=2), source_run, tmp_path / "run", *argv, "--max-steps", 2)


def test_class_weights_of_the_loss_reach_cached_training_too(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    folder = make_folder(train=(16, 4, 4), test=2)
    plain, lines = run(folder, source_run, tmp_path / "none", "--balance", "none")
    weighed, weighed_lines = run(folder, source_run, tmp_path / "weights", "--balance", "weights")
    assert not torch.equal(plain["1.bias"], weighed["1.bias"])
    assert "val/balanced_accuracy" in weighed_lines[-1]
    assert "val/balanced_accuracy" not in lines[-1]
    assert class_weights(torch.tensor([0, 0, 1]).numpy(), 2).tolist() == [0.75, 1.5]
