"""What only this project refuses, with nothing created; the summary is of the best step; any model trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.accelerator import Accelerator
from core.errors import UserError
from core.program import parse_training
from projects.detection import metrics
from projects.detection.config import Config
from projects.detection.data import load_data
from projects.detection.deploy import Deployed
from projects.detection.loaders import EvaluationLoader
from projects.detection.model import Small
from projects.detection.nms import Rule
from projects.detection.train import detect, evaluate, train
from tests.forked import summary
from tests.projects.detection.conftest import MakeFolder
from tests.refusals import assert_refused

TINY = ["--num-synthetic", 24, "--image-size", 64, "--batch-size", 8, "--epochs", 2, "--device", "cpu", "--lr", 0.002]
TINY += ["--precision", "fp32", "--log-every", 1, "--seed", 0]
SSDLITE = ["--model", "ssdlite320_mobilenet_v3_large"]


def parsed(*arguments: object) -> Config:
    return parse_training(Config, [str(value) for value in arguments]).config


def run(*arguments: object) -> None:
    train(parse_training(Config, [str(value) for value in arguments]))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--data", "nowhere"),
        ("--data", ""),
        ("--weights", "gone.pth"),
        ("--weights", "."),
        ("--weights", "cat.jpg"),
        ("--weights", "coco"),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_named_and_nothing_is_created(
    flag: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = "--model small" if value == "coco" else f"{flag} {value}".strip()
    assert_refused(lambda: parsed(flag, value), named, tmp_path)


@pytest.mark.parametrize(
    ("argv", "rate"),
    [([], 0.003), (["--model", "fcos_resnet50_fpn", "--weights", "coco"], 0.0003), (["--lr", "0.01"], 0.01)],
)
def test_fine_tuning_begins_with_a_lower_rate(argv: list[str], rate: float) -> None:
    assert parsed(*argv).peak_lr == rate


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--batch-size", "25"], "--batch-size 25"),
        (["--data", "."], "."),
        ([*SSDLITE, "--batch-size", "1"], "--batch-size 1"),  # a norm over one value
    ],
)
def test_what_only_data_or_network_can_refuse_is_refused_with_nothing_created(
    argv: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        run(*TINY, *argv, "--run-dir", tmp_path / "run")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_summary_is_of_the_step_that_was_best_in_validation(narrow: None, tmp_path: Path) -> None:
    run(*TINY, "--ema", 0.5, "--run-dir", tmp_path / "run")
    numbers, lines = summary(tmp_path / "run"), read_metrics(tmp_path / "run")
    maps = {line["step"]: line["val/map"] for line in lines if "val/map" in line}
    assert numbers["steps"] == max(maps) == 6
    assert numbers["best_val_map"] == max(maps.values()) == maps[numbers["best_step"]]
    assert numbers["num_test"] == 4
    assert 0 < numbers["threshold"] < 1
    assert {"test_map", "test_ap50", "test_ap75"} <= set(numbers)
    parts = [line for line in lines if "train/loss" in line]
    assert len(parts) == 6
    for line in parts:
        total = sum(line[f"train/{name}"] for name in ("class", "box", "fit"))
        assert line["train/loss"] == pytest.approx(total, rel=1e-5)


def test_a_model_of_torchvision_trains_by_the_same_program(
    make_coco: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_coco(train=8, val=3)
    named = [*SSDLITE, "--data", folder, "--batch-size", 4, "--epochs", 1]
    named += ["--image-size", 64]  # whose last maps are a single pixel
    run(*TINY, *named, "--precision", "bf16", "--run-dir", tmp_path / "run")
    said = capsys.readouterr().out
    assert "8 images" in said
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["facts"]
    assert facts["mean"] == facts["std"] == [0.5, 0.5, 0.5]
    numbers = summary(tmp_path / "run")
    assert numbers["num_val"] == 3
    assert "test_map" not in numbers
    names = set(read_metrics(tmp_path / "run")[0])
    assert {"train/loss", "train/bbox_regression", "train/classification"} <= names


def test_faults_that_are_skipped_are_said(
    narrow: None, make_voc: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_voc(train=9, val=2)
    (folder / "JPEGImages" / "p003.jpg").unlink()
    run(*TINY, "--data", folder, "--on-fault", "skip", "--max-steps", 1, "--run-dir", tmp_path / "run")
    said = capsys.readouterr().out
    assert any(line.startswith("faulty, not used: ") and "p003" in line for line in said.splitlines())


def test_evaluation_on_canvases_and_on_whole_images_agree() -> None:
    config = parsed(*TINY)
    data, accelerator, rule = load_data(config), Accelerator(device="cpu", precision="fp32"), Rule(0.001, 0.6, 100)
    network = Small(len(data.classes), (8, 8, 16, 16, 16), features=16, depth=1)
    scores = evaluate(EvaluationLoader(data.train, data, config, accelerator), network, rule, accelerator)
    deployed = Deployed(network, data.canvas, data.mean, data.std, rule)
    predictions = detect(data.train, deployed, accelerator.device)
    whole = metrics.evaluate(data.train.images, predictions, len(data.classes))
    assert np.abs(whole.precision - scores.precision).mean() < 0.01
    assert network.training


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
