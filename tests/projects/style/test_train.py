"""Both methods learn, and a run's numbers agree with each other."""

import json
from pathlib import Path

import pytest
from PIL import Image

from core.program import parse_training
from projects.style.config import Config
from projects.style.train import train
from tests.projects.style.conftest import TINY
from tests.smoke import Smoke


def test_optimize_brings_the_loss_far_down_and_leaves_the_image(
    style_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    argv = [*TINY, "--method", "optimize", "--style", str(style_image), "--image-size", "48", "--style-size", "48"]
    argv += ["--lr", "0", "--max-steps", "60", "--epochs", "5", "--run-dir", str(run_dir)]
    train(parse_training(Config, argv))
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.4 * losses[0]
    assert capsys.readouterr().out.rstrip().endswith(str(run_dir / "result.png"))
    with Image.open(run_dir / "result.png") as result:
        assert result.size == (48, 48)


def test_the_network_is_compared_with_300_steps_on_a_held_out_photograph(style_image: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    argv = [*TINY, "--style", str(style_image), "--max-steps", "2", "--compare", "1", "--run-dir", str(run_dir)]
    config = parse_training(Config, argv).config
    train(parse_training(Config, argv))
    numbers = json.loads((run_dir / "summary.json").read_text())
    parts = (getattr(config, f"{name}_weight") * numbers[f"held_out_{name}"] for name in ("content", "style", "tv"))
    assert numbers["held_out_loss"] == pytest.approx(sum(parts), rel=1e-4)
    assert numbers["num_compared"] == 1
    assert numbers["loss_ratio"] == pytest.approx(numbers["network_loss"] / numbers["optimized_loss"])
    assert numbers["optimized_loss"] < 0.5 * numbers["network_loss"]
    assert numbers["optimized_milliseconds"] > 10 * numbers["network_milliseconds"] > 0
    assert (run_dir / "plots" / "comparison.png").exists()


def test_reports_name_the_features_that_the_losses_compare(smoke: Smoke) -> None:
    name = "random multi-scale filters (not pretrained)"
    assert name in smoke.trained.stdout
    assert json.loads((smoke.run_dir / "summary.json").read_text())["features"] == name
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert report["milliseconds_per_megapixel"] > 0
