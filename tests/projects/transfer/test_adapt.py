"""Norm statistics are taken from the target's images and from nothing else, and the change is told."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from core.vision.decoding import load_squares
from projects.transfer import adapt as program
from projects.transfer.adapt import adapt, changes, load_adapted, load_target, norm_statistics
from projects.transfer.augment import Preprocessing
from projects.transfer.config import Config
from projects.transfer.model import Classifier
from tests.forked import summary
from tests.projects.transfer import conftest
from tests.projects.transfer.conftest import CLASSES, TINY, MakeFolder, main

PREPROCESSING = Preprocessing.of(16, 1.0, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
ACCELERATOR = ["--device", "cpu", "--precision", "fp32"]


class Plain(nn.Module):
    """A norm of the image itself, and its means as features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images)).mean((2, 3))
        return features


def settings(target: object, *more: object) -> Config:
    return conftest.settings("--adapt", "adabn", "--target", target, "--batch-size", 6, *ACCELERATOR, *more)


def run(network: Classifier, config: Config, run_dir: Path) -> dict[str, float]:
    accelerator = Accelerator(device="cpu", precision="fp32")
    target = load_target(config, CLASSES, PREPROCESSING.side, accelerator.device)
    return adapt(network, target, run_dir, 7, PREPROCESSING, config, accelerator)


def test_the_new_statistics_are_those_of_the_target_and_the_network_itself_does_not_change(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    target, network = make_folder(root=4), Classifier(Plain(), 3, 3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    numbers = run(network, settings(target), tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    load_adapted(network, tmp_path, step=7)
    changed = {name for name, t in network.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"backbone.norm.running_mean", "backbone.norm.running_var"}
    pixels = load_squares(sorted(target.rglob("*.*g")), 16)
    inputs = (pixels / 255 - np.asarray(PREPROCESSING.mean)) / np.asarray(PREPROCESSING.std)
    expected = inputs.reshape(2, -1, 3).mean(1).mean(0)
    np.testing.assert_allclose(network.backbone.get_buffer("norm.running_mean"), expected, atol=1e-4)
    assert numbers["adapted_mean_shift"] == pytest.approx(float(np.abs(expected).mean()), rel=1e-3)
    report = json.loads((tmp_path / "adapted.json").read_text())
    assert (report["step"], report["num_images"]) == (7, 12)
    assert report["norms"][0]["norm"] == "backbone.norm"


def test_where_folders_name_classes_the_accuracy_is_told_before_and_after(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    labeled = run(Classifier(Plain(), 3, 3), settings(make_folder(root=4)), tmp_path)
    assert {"target_accuracy_before", "target_accuracy_after"} <= labeled.keys()
    for number, name in enumerate(CLASSES):
        (tmp_path / "images" / name).rename(tmp_path / "images" / str(number))
    unlabeled = run(Classifier(Plain(), 3, 3), settings(tmp_path / "images"), tmp_path)
    assert "target_accuracy_before" not in unlabeled
    assert unlabeled["adapted_mean_shift"] == labeled["adapted_mean_shift"]


def test_shifts_are_in_deviations_of_before_and_ratios_of_deviations() -> None:
    before = {"n.running_mean": torch.zeros(2), "n.running_var": torch.tensor([4.0, 1.0])}
    after = {"n.running_mean": torch.tensor([2.0, -3.0]), "n.running_var": torch.tensor([1.0, 4.0])}
    assert changes(before, after) == [{"norm": "n", "mean_shift": 2.0, "deviation_ratio": 1.25}]


def test_a_network_without_batch_norms_and_an_empty_folder_are_refused(tmp_path: Path, make_folder: MakeFolder) -> None:
    with pytest.raises(UserError, match="no batch norms"):
        norm_statistics(nn.Linear(2, 2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        run(Classifier(Plain(), 3, 3), settings(tmp_path / "empty"), tmp_path)
    folder = make_folder(root=2)
    (folder / "blue" / "00.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"blue/00\.png"):
        run(Classifier(Plain(), 3, 3), settings(folder), tmp_path)
    numbers = run(Classifier(Plain(), 3, 3), settings(folder, "--on-fault", "skip"), tmp_path)
    assert np.isfinite(list(numbers.values())).all()
    assert json.loads((tmp_path / "adapted.json").read_text())["num_images"] == 5


def test_statistics_of_another_checkpoint_or_with_a_flipped_bit_are_refused(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    network = Classifier(Plain(), 3, 3)
    with pytest.raises(UserError, match="not adapted"):
        load_adapted(network, tmp_path, step=7)
    run(network, settings(make_folder(root=4)), tmp_path)
    with pytest.raises(UserError, match="of step 7, not 8"):
        load_adapted(network, tmp_path, step=8)
    path = tmp_path / "adapted.safetensors"
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == json.loads((tmp_path / "adapted.json").read_text())["sha256"]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="digest mismatch"):
        load_adapted(network, tmp_path, step=7)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("strategy", ["full", "head"])
def test_training_adapts_at_the_end_and_sums_it_up(
    strategy: str, make_folder: MakeFolder, source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(train=10, test=3)
    target = make_folder("elsewhere", root=3)
    given = ["--data", folder, *TINY, "--backbone", f"run:{source_run}", "--strategy", strategy, "--epochs", 1]
    main([*given, "--adapt", "adabn", "--target", target, "--run-dir", tmp_path / "run"])
    numbers = summary(tmp_path / "run")
    assert numbers["adapted_mean_shift"] > 0
    assert {"target_accuracy_before", "target_accuracy_after"} <= numbers.keys()
    said = capsys.readouterr().out
    assert "adapted        6 norms to 9 images" in said
    assert "labeled images" in said


@pytest.mark.usefixtures("_quick")
def test_a_run_can_be_adapted_afterwards(
    make_folder: MakeFolder,
    source_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--data", make_folder(train=10, test=3), *TINY, "--backbone", f"run:{source_run}", "--max-steps", 2]
    main([*given, "--run-dir", tmp_path / "run"])
    target = make_folder("elsewhere", root=3)
    monkeypatch.setattr("sys.argv", ["adapt", str(tmp_path / "run"), "--target", str(target)])
    program.main()
    assert f"python -m projects.transfer.export {tmp_path / 'run'} --adapted" in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "adapted.json").read_text())
    assert report["step"] == summary(tmp_path / "run")["best_step"]
    monkeypatch.setattr("sys.argv", ["adapt", str(tmp_path / "run"), "--target", "nowhere"])
    with pytest.raises(UserError, match="no such folder: --target nowhere"):
        program.main()
