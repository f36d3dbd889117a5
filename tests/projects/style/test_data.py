"""Photographs and styles: how they are split, cropped, resized, counted and refused; what a resumed run recognizes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core import checkpoint
from core.accelerator import Accelerator
from core.errors import UserError
from core.program import parse_training
from core.stored_run import load_run
from projects.style.config import Config, Facts
from projects.style.data import crops, load_data, load_styles
from projects.style.train import train
from tests import forked
from tests.projects.style.conftest import TINY

CPU = Accelerator(device="cpu", precision="fp32")
OPTIMIZE = ["--method", "optimize"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--data", "nowhere"], "--data nowhere"),
        (["--data", ""], "--data"),
        ([*OPTIMIZE, "--data", "."], "--data ."),
        (["--style", "nowhere.jpg", "elsewhere.jpg"], "--style nowhere.jpg"),
        (["--style", ""], "--style"),
        ([*OPTIMIZE, "--style", "a", "b"], "--style a b"),
        ([*OPTIMIZE, "--style", "."], "--style ."),
        (["--style", "fifo"], "--style fifo"),
        (["--weights", "vgg.pth"], "--weights vgg.pth"),
        ([*OPTIMIZE, "--compare", "1"], "--compare 1"),
        (["--crop-size", "300"], "--crop-size 300"),
        (["--content-weight", "0", "--style-weight", "0"], "--style-weight 0"),
    ],
)
def test_settings_that_do_not_fit_together_or_name_nothing_are_refused(
    argv: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(UserError) as caught:
        parse_training(Config, argv)
    assert named in str(caught.value)


def config_of(photographs: Path, **settings: object) -> Config:
    sizes = {"image_size": 40, "crop_size": 32, "eval_size": 32, "style_size": 40, "num_held_out": 3}
    return Config(**{"data": str(photographs), **sizes, **settings})  # type: ignore[arg-type]


def test_folders_for_training_and_validation_are_kept_apart(photographs: Path) -> None:
    data = load_data(config_of(photographs), CPU)
    assert (data.num_train, len(data.held_out)) == (9, 3)
    assert data.held_out.shape == (3, 3, 32, 32)
    (photographs / "more").rename(photographs / "Validation")
    (photographs / "train").mkdir()
    for path in photographs.glob("[01]*"):
        path.rename(photographs / "train" / path.name)
    data = load_data(config_of(photographs), CPU)
    assert (data.num_train, len(data.held_out)) == (8, 3)
    with pytest.raises(UserError, match="num-held-out"):
        load_data(config_of(photographs / "Validation", num_held_out=4), CPU)


def test_what_is_not_used_is_counted_and_copies_are_named(photographs: Path) -> None:
    (photographs / ".hidden.png").write_bytes(b"")
    (photographs / "__MACOSX").mkdir()
    for number in range(12):
        source = next(photographs.rglob(f"{number:02}.*"))
        source.with_stem(f"copy-{number}").write_bytes(source.read_bytes())
    notes = "\n".join(load_data(config_of(photographs), CPU).notes)
    assert "2 hidden" in notes
    assert "1 .txt" in notes
    assert "3 of 3 held-out photographs are trained on too" in notes


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def write_floats(path: Path) -> None:
    Image.fromarray(np.ones((40, 40), np.float32)).save(path, "TIFF")


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(path.read_bytes()[:200]), make_fifo, write_floats],
    ids=["cut", "fifo", "F"],
)
@pytest.mark.parametrize("resident", ["yes", "no"])
def test_a_broken_photograph_is_named_before_work_begins_or_left_out(
    damage: Callable[[Path], object], resident: str, photographs: Path, tmp_path: Path
) -> None:
    damage(photographs / "08.jpg")
    argv = [*TINY, "--data", str(photographs), "--resident", resident, "--run-dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=r"08\.jpg"):
        train(parse_training(Config, argv))
    assert not (tmp_path / "run").exists()
    data = load_data(config_of(photographs, on_fault="skip", resident=resident), CPU)
    assert data.num_train + len(data.held_out) == 11
    assert [note for note in data.notes if "08.jpg" in note]


@pytest.mark.parametrize("broken", ["text", "twice"])
def test_styles_that_cannot_be_are_refused_with_nothing_created(
    broken: str, photographs: Path, style_image: Path, tmp_path: Path
) -> None:
    styles = {"text": [photographs / "notes.txt"], "twice": [style_image, style_image]}[broken]
    argv = [*TINY, "--style", *map(str, styles), "--run-dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match="notes" if broken == "text" else "two styles of one name: .*stripes"):
        train(parse_training(Config, argv))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--style", "--data"])
def test_an_image_of_extreme_sides_is_refused_before_it_is_resized(flag: str, tmp_path: Path) -> None:
    Image.new("L", (60_000, 1)).save(tmp_path / "long.png")
    argv = [*TINY, *OPTIMIZE, flag, str(tmp_path / "long.png"), "--run-dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=r"long\.png"):
        train(parse_training(Config, argv))
    assert not (tmp_path / "run").exists()


def test_a_style_is_resized_to_the_size_of_its_strokes(style_image: Path) -> None:
    (style,) = load_styles(Config(style=(str(style_image),), style_size=32), CPU.device)
    assert style.name == "stripes"
    assert style.image.shape == (1, 3, 32, 45)


def test_crops_are_parts_of_the_photograph_mirrored_or_not() -> None:
    pixels = torch.arange(2 * 6 * 6 * 3, dtype=torch.uint8).view(2, 6, 6, 3)
    rows = torch.tensor([1, 0])
    result = crops(pixels, rows, torch.tensor([2, 0]), torch.tensor([1, 3]), torch.tensor([0, 1]), 3)
    assert result.shape == (2, 3, 3, 3)
    images = pixels.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(result[0], images[1, :, 2:5, 1:4])
    torch.testing.assert_close(result[1], images[0, :, 0:3, 3:6].flip(2))


def test_every_batch_has_all_styles_and_an_epoch_new_crops() -> None:
    config = Config(**{**Config.smoke, "batch_size": 6})
    loader = load_data(config, CPU).loader
    first, second = (list(loader.batches(epoch)) for epoch in (0, 1))
    assert len(first) == len(loader) == 24 * config.crops // 6
    for images, styles in first:
        assert images.shape == (6, 3, 64, 64)
        assert torch.bincount(styles, minlength=3).tolist() == [2, 2, 2]
    assert not torch.equal(first[0][0], second[0][0])
    again = list(loader.batches(1, start=3))
    assert torch.equal(again[0][0], second[3][0])
    assert torch.equal(again[0][1], second[3][1])


def test_streamed_photographs_give_the_batches_of_resident_ones(photographs: Path) -> None:
    batches = [
        list(load_data(config_of(photographs, resident=resident), CPU).loader.batches(1)) for resident in ("yes", "no")
    ]
    for (images, styles), (others, other_styles) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(styles, other_styles)


@pytest.mark.parametrize("flag", ["--style", "--data"])
def test_a_moved_image_is_recognized_on_resume_and_another_one_is_refused(
    flag: str, style_image: Path, tmp_path: Path
) -> None:
    def run(*argv: object) -> None:
        train(parse_training(Config, list(map(str, argv))))

    run_dir, moved = tmp_path / "run", tmp_path / "moved" / "stripes.png"
    run("--run-dir", run_dir, *TINY, *OPTIMIZE, flag, style_image, "--max-steps", 1)
    moved.parent.mkdir()
    style_image.rename(moved)
    assert load_run(run_dir, "last", Config, Facts).step == 1  # export needs neither
    run("--resume", run_dir, flag, moved, "--max-steps", 2)
    with Image.open(moved) as image:
        image.rotate(180).save(moved)
    before = forked.contents(run_dir)
    with pytest.raises(UserError, match="the data is not"):
        run("--resume", run_dir, "--max-steps", 3)
    assert forked.contents(run_dir) == before


def test_the_features_are_in_no_checkpoint_and_known_by_their_weights(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(parse_training(Config, ["--run-dir", str(run_dir), *TINY, "--ema", "0.9", "--max-steps", "1"]))
    saved = checkpoint.load_newest(run_dir)[1]
    assert set(saved["model"]) == set(saved["ema"]["module"])
    assert not [name for name in saved["model"] if "feature" in name or "colors" in name or "bands" in name]
    assert len(json.loads((run_dir / "run.json").read_text())["facts"]["features_sha256"]) == 64
