"""A run of either method, killed at random instants and resumed, ends bit for bit as the unbroken one."""

from pathlib import Path

import pytest
from PIL import Image

from core import checkpoint
from projects.style import train as program
from tests import forked
from tests.projects.style.conftest import TINY, summary

DRAWN = ["--num-synthetic", "16", *TINY, "--checkpoint-every", "2", "--lr", "0.01"]
SETTINGS = {
    "feedforward": ["--ema", "0.9", "--precision", "bf16", "--accumulate", "2"],
    "optimize": ["--method", "optimize", "--precision", "fp32", "--max-steps", "20"],
}


def main(argv: list[str]) -> None:
    program.train(program.parse_arguments(argv))


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", *DRAWN, "--max-steps", 2])


def ending(run_dir: Path) -> object:
    """What the end of a run is: weights, all states, metrics, summary, and the pictures of progress."""
    shown = {path.name: path.read_bytes() for path in run_dir.glob("plots/progress/*")}
    return forked.ending(run_dir), summary(run_dir), shown


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_taken_up_it_ends_as_the_unbroken_run(name: str, tmp_path: Path) -> None:
    forked.assert_killed_runs_end_alike(main, [*DRAWN, *SETTINGS[name]], tmp_path, ending)


def test_photographs_from_workers_make_the_same_run_and_it_is_taken_up_in_the_middle_of_an_epoch(
    photographs: Path, style_picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["--data", photographs, "--style", style_picture, *TINY]
    assert forked.run(main, ["--run-dir", tmp_path / "resident", *settings]) == 0
    monkeypatch.setattr("projects.style.data.RESIDENT_BYTES", 0)
    assert forked.run(forked.stopping_at(3, program), ["--run-dir", tmp_path / "s", *settings, "--workers", 1]) == 143
    assert forked.run(main, ["--resume", tmp_path / "s", "--workers", 0]) == 0
    assert summary(tmp_path / "s") == summary(tmp_path / "resident")
    assert forked.metrics(tmp_path / "s") == forked.metrics(tmp_path / "resident")


def test_the_features_are_in_no_checkpoint(tmp_path: Path) -> None:
    assert forked.run(main, ["--run-dir", tmp_path / "run", *DRAWN, "--max-steps", 1]) == 0
    saved = checkpoint.load(checkpoint.newest_good(tmp_path / "run"))
    assert set(saved) == {"model", "optimizer", "scheduler", "ema", "accelerator", "loop", "ranks"}
    assert set(saved["model"]) == set(saved["ema"]["module"])
    assert not [name for name in saved["model"] if "feature" in name or "colors" in name or "bands" in name]


def test_another_photograph_is_refused_and_no_file_changes(style_picture: Path, tmp_path: Path) -> None:
    run_dir, photograph = tmp_path / "run", tmp_path / "photograph.png"
    photograph.write_bytes(style_picture.read_bytes())
    settings = ["--method", "optimize", "--data", photograph, *TINY, "--max-steps", 1]
    assert forked.run(main, ["--run-dir", run_dir, *settings]) == 0
    with Image.open(photograph) as picture:
        picture.rotate(180).save(photograph)
    before = forked.contents(run_dir)
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before


def test_another_style_or_setting_is_refused_and_no_file_changes(style_picture: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *DRAWN, "--style", style_picture, "--max-steps", 1]) == 0
    with Image.open(style_picture) as picture:
        picture.rotate(180).save(style_picture)
    before = forked.contents(run_dir)
    for setting in (["--max-steps", 2], ["--style-weight", 3], ["--method", "optimize"], ["--style", "synthetic"]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
        assert forked.contents(run_dir) == before
