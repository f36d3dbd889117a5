"""Wrong settings are refused in one line with nothing created; both methods learn; crops and splits are as promised."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from core.accelerator import Accelerator
from core.errors import UserError
from projects.style.config import SMOKE, Config, join_styles
from projects.style.data import crops, load_data, load_styles, split, training_loader
from projects.style.train import parse_arguments, train
from tests.conftest import Program
from tests.projects.style.conftest import TINY, summary
from tests.refusals import assert_left_with_2, assert_refused

OPTIMIZE = ["--method", "optimize"]
WRONG = {
    "--data": [["--data", "nowhere"], ["--data", ""], [*OPTIMIZE, "--data", "."]],
    "--style": [
        ["--style", "nowhere.jpg"],
        ["--style", ""],
        [*OPTIMIZE, "--style", "a,b"],
        [*OPTIMIZE, "--style", "."],
    ],
    "--features": [["--features", "resnet"], ["--features", ""]],
    "--weights": [["--weights", "vgg.pth"]],
    "--method": [["--method", "optimize"]],
    "--compare": [[*OPTIMIZE, "--compare", "1"], ["--compare", "-1"]],
    "--crop-size": [["--crop-size", "300"], ["--crop-size", "31"]],
    "nothing to learn": [["--content-weight", "0", "--style-weight", "0"]],
    "--style-weight": [["--style-weight", "-1"], ["--style-weight", "nan"]],
    "--width": [["--width", "3"], ["--width", "129"]],
    "--blocks": [["--blocks", "0"]],
    "--lr": [["--lr", "-1"]],
    "--frobnicate": [["--frobnicate"]],
}
CASES = [(named, argv) for named, cases in WRONG.items() for argv in cases]


@pytest.mark.parametrize(("named", "argv"), CASES, ids=[" ".join(argv) for _, argv in CASES])
def test_a_wrong_flag_is_named_in_one_line_and_nothing_is_created(
    named: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    assert_refused(lambda: parse_arguments(argv), named, tmp_path)


def test_the_program_leaves_with_2_and_one_line(program: Program, tmp_path: Path) -> None:
    done = program("projects.style.train", "--style", "nowhere.jpg", "elsewhere.jpg", "--run-dir", "r")
    assert_left_with_2(done, "error: no such style picture: --style nowhere.jpg", tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--style", "a", "b", "c", "--lr", "1"], ["--style", "a,b,c", "--lr", "1"]),
        (["--lr", "1", "--style", "a"], ["--lr", "1", "--style", "a"]),
        (["--style", "a,b", "c"], ["--style", "a,b,c"]),
        (["--smoke", "--style"], ["--smoke", "--style"]),
    ],
)
def test_styles_may_stand_one_after_the_other(given: list[str], meant: list[str]) -> None:
    assert join_styles(given) == meant


def test_a_picture_that_is_none_and_names_that_are_twice_are_refused_with_nothing_created(
    photographs: Path, style_picture: Path, tmp_path: Path
) -> None:
    text, run_dir = photographs / "notes.txt", tmp_path / "run"
    with pytest.raises(UserError, match="notes"):
        train(parse_arguments(["--style", str(text), *TINY, "--run-dir", str(run_dir)]))
    with pytest.raises(UserError, match="two styles of one name"):
        train(parse_arguments(["--style", str(style_picture), str(style_picture), *TINY, "--run-dir", str(run_dir)]))
    (photographs / "08.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match="08"):
        train(parse_arguments(["--data", str(photographs), *TINY, "--run-dir", str(run_dir)]))
    assert not run_dir.exists()


def test_optimize_brings_the_loss_far_down_and_leaves_the_picture(style_picture: Path, tmp_path: Path) -> None:
    argv = [*OPTIMIZE, "--style", str(style_picture), *TINY, "--image-size", "48", "--style-size", "48"]
    train(parse_arguments([*argv, "--run-dir", str(tmp_path / "run"), "--max-steps", "60", "--epochs", "5"]))
    content = load_content_loss(tmp_path / "run")
    assert content[-1] < 0.4 * content[0]
    assert summary(tmp_path / "run")["features"] == "random multi-scale filters (not pretrained)"
    with Image.open(tmp_path / "run" / "result.png") as result:
        assert result.size == (48, 48)


def load_content_loss(run_dir: Path) -> list[float]:
    """The losses of train steps, as they were logged."""
    import json

    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_folders_named_train_and_val_are_kept_apart(photographs: Path, tmp_path: Path) -> None:
    config = Config(num_held_out=3, image_size=40, eval_size=32)
    paths, held_out = split(photographs, config)
    assert (len(paths), len(held_out)) == (9, 3)
    assert not set(paths) & set(held_out)
    assert split(photographs, config) == (paths, held_out)
    (photographs / "more").rename(photographs / "val")
    (photographs / "train").mkdir()
    for path in photographs.glob("0*"):
        path.rename(photographs / "train" / path.name)
    paths, held_out = split(photographs, config)
    assert {path.parent.name for path in paths} == {"train"}
    assert {path.parent.name for path in held_out} == {"val"}
    with pytest.raises(UserError, match="num-held-out"):
        split(photographs / "val", Config(num_held_out=4))


def test_crops_are_parts_of_the_photograph_mirrored_or_not() -> None:
    pixels = torch.arange(2 * 6 * 6 * 3, dtype=torch.uint8).view(2, 6, 6, 3)
    one = torch.tensor([1, 0])
    found = crops(pixels, one, torch.tensor([2, 0]), torch.tensor([1, 3]), torch.tensor([0, 1]), 3)
    assert found.shape == (2, 3, 3, 3)
    expected = pixels.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(found[0], expected[1, :, 2:5, 1:4])
    torch.testing.assert_close(found[1], expected[0, :, 0:3, 3:6].flip(2))


def test_every_batch_has_all_styles_and_an_epoch_new_crops() -> None:
    config = Config(**{**SMOKE, "batch_size": 6})  # type: ignore[arg-type]
    accelerator = Accelerator(device="cpu", precision="fp32")
    loader = training_loader(load_data(config, accelerator.device), config, accelerator)
    first, second = (list(loader.batches(epoch)) for epoch in (0, 1))
    assert len(first) == len(loader) == 24 * config.crops // 6
    for images, styles in first:
        assert images.shape == (6, 3, 64, 64)
        assert torch.bincount(styles, minlength=3).tolist() == [2, 2, 2]
    assert not torch.equal(first[0][0], second[0][0])
    again = list(loader.batches(1, start=3))
    assert torch.equal(again[0][0], second[3][0])
    assert torch.equal(again[0][1], second[3][1])


def test_a_style_is_brought_to_the_size_of_its_strokes(style_picture: Path) -> None:
    style = load_styles(Config(style=str(style_picture), style_size=32))[0]
    assert style.name == "stripes"
    assert style.image.shape == (1, 3, 32, 45)
