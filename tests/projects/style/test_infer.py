"""Inference writes where it is told, never over a photograph, and names in one line what it cannot take."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from projects.style.infer import blend_of, parse_arguments, targets
from tests.conftest import Program

MODULE = "projects.style.infer"


def test_a_photograph_becomes_the_file_that_was_asked_for(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    source = photographs / "01.png"
    before = source.read_bytes()
    done = program(MODULE, model_path, source, "--output", "out.jpg", "--style", "strokes", "--keep-colors")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{source} → out.jpg  42×59, ")
    with Image.open(source) as photograph, Image.open(tmp_path / "out.jpg") as painted:
        assert painted.size == photograph.size
        assert np.abs(np.asarray(painted, int) - np.asarray(photograph, int)).mean() > 5
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jpg", "photographs"]


def test_a_broken_photograph_is_named_before_any_is_painted(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    (photographs / "11.png").write_bytes(b"broken")
    done = program(MODULE, model_path, photographs, "--output", "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: not a readable picture: {photographs / '11.png'}")
    assert not (tmp_path / "out").exists()


def test_inputs_that_cannot_be_are_refused_in_one_line_and_nothing_is_written(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    picture, text = photographs / "01.png", photographs / "notes.txt"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    cases: list[tuple[list[object], str]] = [
        (["missing.onnx", picture, "--output", "o.png"], "missing.onnx"),
        ([text, picture, "--output", "o.png"], str(text)),
        ([model_path, text, "--output", "o.png"], str(text)),
        ([model_path, picture, "--output", "o.png", "--style", "candy"], "--style candy"),
        ([model_path, picture, "--output", "o.png", "--tile", 100], "--tile 100"),
        ([model_path, picture, "--output", picture], str(picture)),
    ]
    for arguments, named in cases:
        done = program(MODULE, *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert named in done.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["m.onnx", "--output", "o.png"], "INPUT"),
        (["m.onnx", "a.png"], "--output"),
        (["m.onnx", "a.png", "--output", "o", "--size", "0"], "--size 0"),
        (["m.onnx", "a.png", "--output", "o", "--keep-colors", "2"], "--keep-colors 2"),
        (["m.onnx", "a.png", "--output", "o", "--outptu", "x"], "--output"),
    ],
)
def test_a_wrong_flag_is_named(argv: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse_arguments(argv)


@pytest.mark.parametrize(
    ("inputs", "output", "named"),
    [
        (["nowhere.png"], "o.png", "nowhere.png"),
        (["more/00.jpg", "01.png"], "o.png", "one output"),
        (["more/00.jpg"], "o.gif", "o.gif"),
        (["more/00.jpg"], "notes", "not a folder"),
        (["."], ".", "replaced"),
        (["01.png", "more/../01.png"], "o", "two paintings"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_read(
    inputs: list[str], output: str, named: str, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photographs)
    (photographs / "notes.txt").rename(photographs / "notes")
    with pytest.raises(UserError, match=named):
        targets([Path(path) for path in inputs], Path(output))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, [1, 0, 0]),
        (["b"], [0, 1, 0]),
        (["a", "c"], [0.5, 0, 0.5]),
        (["a=3", "b=1"], [0.75, 0.25, 0]),
        (["x=y=2"], [0, 0, 1]),
    ],
)
def test_weights_of_styles_sum_to_1(given: list[str] | None, meant: list[float]) -> None:
    names = ["a", "b", "x=y" if given == ["x=y=2"] else "c"]
    assert blend_of(given, names) == pytest.approx(meant)


@pytest.mark.parametrize("word", ["d", "a=", "a=x", "a=-1", "a=0", "=1", "a=nan"])
def test_a_weight_that_is_none_is_named(word: str) -> None:
    with pytest.raises(UserError) as caught:
        blend_of([word], ["a", "b"])
    assert f"--style {word}" in str(caught.value)
