"""A fine-tuning, killed at random instants and resumed, ends bit for bit as the unbroken one, from its folder alone."""

import shutil
from pathlib import Path

import pytest

from projects.transfer import train as program
from tests import forked
from tests.projects.transfer.conftest import TINY, MakeFolder, leave_out, main, summary

SETTINGS = {
    "full": ["--augment", "crop", "--mixup", 0.3, "--cutmix", 1, "--precision", "bf16", "--dropout", 0.2],
    "gradual": ["--strategy", "gradual", "--accumulate", 2, "--clip-norm", 1, "--balance", "sampler", "--ema", 0],
    "head": ["--strategy", "head", "--augment", "light", "--views", 2],
}

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture(scope="module", autouse=True)
def _warm(source_run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("warm")
    given = ["--num-synthetic", 60, *TINY, "--backbone", f"run:{source_run}", "--max-steps", 2]
    with pytest.MonkeyPatch.context() as patch:
        leave_out(patch)
        forked.warm_up(main, [*given, "--run-dir", folder / "run"])


def given(source_run: Path, *more: object) -> list[object]:
    return ["--num-synthetic", 100, *TINY, "--backbone", f"run:{source_run}", "--checkpoint-every", 2, *more]


def ending(run_dir: Path) -> object:
    """What the end of a run is: weights, all states, metrics, and the summary with the test accuracy."""
    return forked.ending(run_dir), summary(run_dir)


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_taken_up_it_ends_as_the_unbroken_run(name: str, source_run: Path, tmp_path: Path) -> None:
    forked.assert_killed_runs_end_alike(main, given(source_run, *SETTINGS[name]), tmp_path, ending)


def test_a_streamed_folder_is_taken_up_within_an_epoch_with_other_workers_and_without_its_source(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(source_run, source)
    folder = make_folder(train=14, val=2, test=2)
    settings = given(source, "--data", folder, "--resident", "no", "--strategy", "gradual", "--thaw", 1)
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings, "--workers", 0]) == 0
    stopped = forked.stopping_at(3, program)
    assert forked.run(stopped, ["--run-dir", tmp_path / "broken", *settings, "--workers", 1]) == 143
    shutil.rmtree(source)
    assert forked.run(main, ["--resume", tmp_path / "broken", "--workers", 0]) == 0
    assert ending(tmp_path / "broken") == ending(tmp_path / "whole")


def test_a_complete_run_says_so_with_no_file_changed_and_goes_on_when_more_epochs_are_asked_for(
    source_run: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *given(source_run, "--epochs", 1)]) == 0
    before = forked.contents(run_dir)
    assert forked.said(main, ["--resume", run_dir], tmp_path) == f"already complete: {run_dir}\n"
    assert forked.contents(run_dir) == before
    assert forked.run(main, ["--resume", run_dir, "--epochs", 2]) == 0
    assert summary(run_dir)["steps"] == 20


def test_another_structural_setting_is_refused_and_no_file_changes(source_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *given(source_run, "--max-steps", 1)]) == 0
    before = forked.contents(run_dir)
    for setting in (["--strategy", "head"], ["--lr", 0.5], ["--image-size", 20], ["--mixup", 1]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
        assert forked.contents(run_dir) == before


def test_other_pictures_or_a_changed_backbone_are_refused_and_no_file_changes(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    data, run_dir = make_folder(train=10, val=2), tmp_path / "run"
    settings = given(source_run, "--data", data, "--strategy", "head", "--max-steps", 1)
    assert forked.run(main, ["--run-dir", run_dir, *settings]) == 0
    path = run_dir / "backbone.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = forked.contents(run_dir)
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before
    path.write_bytes(content)
    next((data / "train").glob("*/*.png")).unlink()
    before = forked.contents(run_dir)
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before
