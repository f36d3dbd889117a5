"""Inference writes where it is told, never over a photograph, and names in one line what it cannot take."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from core.errors import UserError
from core.vision.video import Video
from projects.style.infer import blend_of, main, parse_arguments
from projects.style.output_paths import targets
from tests.conftest import Program
from tests.videos import make_video

MODULE = "projects.style.infer"


def test_a_photograph_becomes_the_file_that_was_asked_for(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    source = photographs / "01.png"
    before = source.read_bytes()
    arguments = [MODULE, model_path, source, "--output", "out.jpg", "--style", "strokes", "--keep-colors"]
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"{source} → out.jpg  42×59, " in done.stdout
    with Image.open(source) as photograph, Image.open(tmp_path / "out.jpg") as painted:
        assert painted.size == photograph.size
        assert np.abs(np.asarray(painted, int) - np.asarray(photograph, int)).mean() > 5
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jpg", "photographs"]
    assert "out.jpg (replaced)" in program(*arguments).stdout


def test_a_folder_with_broken_and_extreme_photographs_is_painted_as_far_as_it_goes(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    (photographs / "11.png").write_bytes(b"broken")
    os.mkfifo(photographs / "12.png")
    Image.new("RGB", (20_000, 1), "red").save(photographs / "13\x1b.png")
    arguments = [model_path, photographs, "--output", "painted", "--style", "mosaic=3", "dots=1", "--size", 50]
    done = program(MODULE, *arguments)
    assert done.returncode == 0, done.stderr
    assert [name for name in ("11.png", "12.png", "1 .txt", "skipped 2 of 14") if name not in done.stderr] == []
    assert "\x1b" not in done.stdout + done.stderr
    painted = sorted((tmp_path / "painted").rglob("*.png"))
    assert len(painted) == 12 + 1
    for path in painted:
        with Image.open(path) as image:
            assert max(image.size) == 50 or path.name == "grid.png"
    done = program(MODULE, *arguments[:2], "--output", "others", "--on-fault", "stop")
    assert done.returncode == 2
    assert "11.png" in done.stderr
    assert not (tmp_path / "others").exists()


def test_inputs_that_cannot_be_are_refused_in_one_line_and_nothing_is_written(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    image, text = photographs / "01.png", photographs / "notes.txt"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    cases: list[tuple[list[object], str]] = [
        ([model_path, text, "--output", "o.png"], str(text)),
        ([model_path, image, "--output", "o.png", "--style", "candy"], "--style candy"),
        ([model_path, image, "--output", "o.png", "--tile", 100], "--tile 100"),
        ([model_path, image, "--output", image], str(image)),
    ]
    for arguments, named in cases:
        done = program(MODULE, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert named in done.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_video_is_painted_frame_by_frame(
    model_path: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.chdir(tmp_path)
    make_video(Path("clip.mp4"), num=4)
    inputs = ["clip.mp4", str(photographs / "0[15].png")]
    monkeypatch.setattr("sys.argv", ["infer", str(model_path), *inputs, "--output", "out"])
    main()
    assert sorted(path.name for path in Path("out").iterdir()) == ["01.png", "05.png", "clip.mp4", "grid.png"]
    with Video(Path("clip.mp4")) as before, Video(Path("out/clip.mp4")) as after:
        assert (after.rate, after.audio is None) == (before.rate, False)
        for old, new in zip(before.frames(), after.frames(), strict=True):
            assert (new.seconds, new.pixels.shape) == (old.seconds, old.pixels.shape)
            assert np.abs(old.pixels.astype(int) - new.pixels).max() > 20


@pytest.mark.parametrize(
    "facts", [{"stride": 0}, {"channels": -1}, {"styles": []}, {"styles": 3}, {"min_side": 10**9}, {"margin": 10**12}]
)
def test_a_file_with_facts_that_cannot_be_is_refused(
    facts: dict[str, object], model_path: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(str(model_path))
    for entry in model.metadata_props:
        if entry.key == "facts":
            entry.value = json.dumps({**json.loads(entry.value), **facts})
    onnx.save(model, str(tmp_path / "m.onnx"))
    argv = ["infer", str(tmp_path / "m.onnx"), str(photographs / "01.png"), "--output", str(tmp_path / "o.png")]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(UserError):
        main()
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["m.onnx", "--output", "o.png"], "INPUT"),
        (["m.onnx", "a.png"], "--output"),
        (["m.onnx", "a.png", "--output", "o", "--size", "0"], "--size"),
        (["m.onnx", "a.png", "--output", "o", "--keep-colors", "2"], "--keep-colors"),
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
        (["clip.mp4"], "clip.png", "clip.png"),
        (["clip.mp4"], ".", "clip.mp4"),
        (["01.png", "more/../01.png"], "o", "two paintings"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_read(
    inputs: list[str], output: str, named: str, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photographs)
    (photographs / "notes.txt").rename(photographs / "notes")
    (photographs / "clip.mp4").touch()
    with pytest.raises(UserError, match=named):
        targets([Path(path) for path in inputs], Path(output))


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        (None, [1, 0, 0]),
        (["b"], [0, 1, 0]),
        (["a", "c"], [0.5, 0, 0.5]),
        (["a=3", "b=1"], [0.75, 0.25, 0]),
        (["x=y=2"], [0, 0, 1]),
    ],
)
def test_weights_of_styles_sum_to_1(given: list[str] | None, weights: list[float]) -> None:
    names = ["a", "b", "x=y" if given == ["x=y=2"] else "c"]
    assert blend_of(given, names) == pytest.approx(weights)


@pytest.mark.parametrize("word", ["d", "a=", "a=x", "a=-1", "a=0", "=1", "a=nan"])
def test_a_weight_that_is_none_is_named(word: str) -> None:
    with pytest.raises(UserError) as caught:
        blend_of([word], ["a", "b"])
    assert f"--style {word}" in str(caught.value)
