"""The detector's run, killed at random instants and resumed, ends bit for bit as the unbroken one: mosaics, workers,
averaged weights and ragged batches included."""

from pathlib import Path
from typing import Any

import pytest

from projects.detection import model
from projects.detection import train as program
from tests import forked
from tests.projects.detection.conftest import NARROW, MakeFolder, summary

TINY = ["--num-synthetic", 48, "--image-size", 64, "--batch-size", 8, "--epochs", 2, "--lr", 0.002, "--log-every", 4]
TINY += ["--checkpoint-every", 2, "--keep", 2, "--device", "cpu", "--mosaic", 0.5, "--mosaic-until", 0.5]
SETTINGS = {
    "averaged": ["--ema", 0.9, "--precision", "bf16"],
    "accumulating": ["--ema", 0, "--precision", "fp32", "--accumulate", 2],
}


def main(argv: list[str]) -> None:
    program.train(program.parse_arguments(argv))


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A narrow network in place of the small one, no plots, and everything imported before the first fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.Small.__init__, "__defaults__", NARROW)
        patch.setattr(program, "draw", lambda *_: None)
        forked.warm_up(main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", *TINY, "--max-steps", 2])
        yield


def ending(run_dir: Path) -> object:
    """What the end of a run is: weights, all states, metrics, and the summary with the test scores."""
    return forked.ending(run_dir), summary(run_dir)


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_taken_up_it_ends_as_the_unbroken_run(name: str, tmp_path: Path) -> None:
    forked.assert_killed_runs_end_alike(main, [*TINY, *SETTINGS[name]], tmp_path, ending)


def test_a_streamed_folder_is_taken_up_in_the_middle_of_an_epoch_with_other_workers(
    make_voc: MakeFolder, tmp_path: Path
) -> None:
    settings = [*TINY, "--data", make_voc(train=24, val=3), "--resident", "no"]
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings, "--workers", 0]) == 0
    stopped = forked.stopping_at(4, program)
    assert forked.run(stopped, ["--run-dir", tmp_path / "broken", *settings, "--workers", 1]) == 143
    assert forked.run(main, ["--resume", tmp_path / "broken", "--workers", 0]) == 0
    assert ending(tmp_path / "broken") == ending(tmp_path / "whole")


def test_another_structural_setting_or_other_boxes_are_refused_and_no_file_changes(
    make_voc: MakeFolder, tmp_path: Path
) -> None:
    data, run_dir = make_voc(train=10, val=2), tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *TINY, "--data", data, "--max-steps", 1]) == 0
    before = forked.contents(run_dir)
    for setting in (["--image-size", 96], ["--mosaic", 0], ["--overlap", 0.4], ["--model", "fcos_resnet50_fpn"]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
    file = next(path for path in sorted((data / "Annotations").iterdir()) if "amber" in path.read_text())
    file.write_text(file.read_text().replace("amber", "blue", 1))
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before
