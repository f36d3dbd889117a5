"""Wrong settings are refused in one line with nothing created; the summary is of the best step; any model trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.accelerator import Accelerator
from core.errors import UserError
from projects.detection import metrics
from projects.detection.data import EvaluationLoader, load_data
from projects.detection.deploy import Deployed
from projects.detection.model import Small
from projects.detection.selection import Rule
from projects.detection.train import detect, evaluate, parse_arguments, train
from tests.conftest import Program
from tests.projects.detection.conftest import MakeFolder, summary
from tests.refusals import assert_left_with_2, assert_refused

TINY = ["--num-synthetic", 24, "--image-size", 64, "--batch-size", 8, "--epochs", 2, "--device", "cpu", "--lr", 0.002]
TINY += ["--precision", "fp32", "--log-every", 1, "--seed", 0]
WRONG = {
    "--model": [["--model", "yolo"], ["--model", ""]],
    "--data": [["--data", "nowhere"], ["--data", ""]],
    "--weights": [["--weights", "gone.pth"], ["--weights", "."], ["--weights", "cat.jpg"]],
    "--model small": [["--weights", "coco"]],
    "--resume": [["--resume", "r", "--run-dir", "q"], ["--resume", "r", "--smoke"]],
    "not a run folder": [["--resume", "."]],
    "--epochs": [["--epochs", "0"], ["--epoch", "1"]],
    "--batch-size": [["--batch-size", "0"]],
    "--lr": [["--lr", "-1"], ["--lr", "nan"]],
    "--weight-decay": [["--weight-decay", "-1"]],
    "--image-size": [["--image-size", "63"], ["--image-size", "2049"]],
    "--warmup": [["--warmup", "1"]],
    "--ema": [["--ema", "1"]],
    "--repeats": [["--repeats", "0"]],
    "--mosaic": [["--mosaic", "1.1"]],
    "--mosaic-until": [["--mosaic-until", "-0.1"]],
    "--zoom": [["--zoom", "0.5"]],
    "--color": [["--color", "2"]],
    "--score-threshold": [["--score-threshold", "0"], ["--score-threshold", "1"]],
    "--overlap": [["--overlap", "0"]],
    "--max-boxes": [["--max-boxes", "0"]],
    "--val-fraction": [["--val-fraction", "1"]],
    "--on-fault": [["--on-fault", "ignore"]],
    "--num-synthetic": [["--num-synthetic", "19"]],
    "--resident": [["--resident", "maybe"]],
    "--frobnicate": [["--frobnicate"]],
}
CASES = [(named, argv) for named, cases in WRONG.items() for argv in cases]


def run(*arguments: object) -> None:
    train(parse_arguments([str(value) for value in arguments]))


@pytest.mark.parametrize(("named", "argv"), CASES, ids=[" ".join(argv) for _, argv in CASES])
def test_a_wrong_flag_is_named_in_one_line_and_nothing_is_created(
    named: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: parse_arguments(argv), named, tmp_path)


def test_the_program_leaves_with_2_and_one_line(program: Program, tmp_path: Path) -> None:
    done = program("projects.detection.train", "--data", "nowhere", "--run-dir", "r")
    assert_left_with_2(done, "error: unknown data: --data nowhere; ", tmp_path)


@pytest.mark.parametrize(
    ("argv", "rate"),
    [([], 0.003), (["--model", "fcos_resnet50_fpn", "--weights", "coco"], 0.0003), (["--lr", "0.01"], 0.01)],
)
def test_fine_tuning_begins_with_a_lower_rate(argv: list[str], rate: float) -> None:
    assert parse_arguments(argv).config.peak_lr == rate


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faster_coco_eval" else name)
    with pytest.raises(UserError, match=r"a package is missing: faster_coco_eval; .*\[detection\]"):
        parse_arguments([])


@pytest.mark.parametrize("argv", [["--batch-size", "25"], ["--data", "."]], ids=" ".join)
def test_what_only_the_data_can_refuse_is_refused_with_nothing_created(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        run(*TINY, *argv, "--run-dir", tmp_path / "run")
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
    json.dumps(numbers, allow_nan=False)


def test_a_model_of_torchvision_trains_by_the_same_program(make_coco: MakeFolder, tmp_path: Path) -> None:
    folder = make_coco(train=8, val=3)
    named = ["--model", "ssdlite320_mobilenet_v3_large", "--data", folder, "--batch-size", 4, "--epochs", 1]
    named += ["--image-size", 64]  # whose last maps are a single pixel
    run(*TINY, *named, "--precision", "bf16", "--run-dir", tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["facts"]
    assert facts["mean"] == facts["std"] == [0.5, 0.5, 0.5]
    numbers = summary(tmp_path / "run")
    assert numbers["num_val"] == 3
    assert "test_map" not in numbers
    names = set(read_metrics(tmp_path / "run")[0])
    assert {"train/loss", "train/bbox_regression", "train/classification"} <= names


def test_evaluation_on_canvases_and_on_whole_pictures_agree() -> None:
    config = parse_arguments([str(value) for value in TINY]).config
    data, accelerator, rule = load_data(config), Accelerator(device="cpu", precision="fp32"), Rule(0.001, 0.6, 100)
    network = Small(len(data.classes), (8, 8, 16, 16, 16), features=16, depth=1)
    scores = evaluate(EvaluationLoader(data.train, data, config, accelerator), network, rule, accelerator)
    found = detect(data.train, Deployed(network, data.canvas, data.mean, data.std, rule), accelerator.device)
    whole = metrics.evaluate(data.train.pictures, found, len(data.classes))
    assert np.abs(whole.precision - scores.precision).mean() < 0.01
    assert network.training


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
