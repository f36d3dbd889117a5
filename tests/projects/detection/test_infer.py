"""Inference takes images of any kind and size, writes drawings and COCO JSON all or not at all, and names in one line
what it cannot take."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from core.errors import run_command
from core.vision.video import Video
from projects.detection import infer
from projects.detection.synthetic import CLASSES, draw_scenes
from tests.projects.detection.conftest import MakeFolder
from tests.smoke import Smoke
from tests.videos import make_video


class Done(NamedTuple):
    """What a program left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program on the smoke run's file, here and in an empty folder, with its exit code and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        given = (smoke.run_dir / "model.onnx", *arguments)
        monkeypatch.setattr(sys, "argv", ["infer", *(str(argument) for argument in given)])
        with pytest.raises(SystemExit) as left:
            run_command(infer.main)
        written = capsys.readouterr()
        return Done(int(left.value.code or 0), written.out, written.err)

    return call


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder, and one below it, with scenes, odd sizes, gray, transparent, two of one name, and a text file."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    scenes = [scene.pixels for scene in draw_scenes(3, seed=9)]
    Image.fromarray(scenes[0]).save(folder / "a scene.jpg")
    Image.fromarray(scenes[1]).save(folder / "b.png")
    Image.fromarray(scenes[2]).convert("L").save(folder / "b.bmp")
    Image.fromarray(scenes[0][:7, :90]).save(folder / "flat.png")
    Image.fromarray(scenes[0][:1, :1]).save(folder / "pixel.PNG")
    Image.fromarray(scenes[1]).convert("RGBA").save(folder / "more" / "clear.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_goes_in_and_a_folder_of_drawings_and_coco_json_comes_out(run: Run, images: Path) -> None:
    done = run(images, "--json", "--output", "out", "--threshold", 0.1)
    assert done.code == 0, done.err
    assert "1 .txt" in done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    names = [Path(line["path"]).name for line in lines]
    assert names == ["a scene.jpg", "b.bmp", "b.png", "flat.png", "clear.png", "pixel.PNG"]
    drawn = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.jpg"))
    assert drawn == ["a scene.jpg", "b-2.jpg", "b.jpg", "flat.jpg", "more/clear.jpg", "pixel.jpg"]
    coco = json.loads(Path("out/detections.json").read_text())
    assert [entry["name"] for entry in coco["categories"]] == list(CLASSES)
    assert [entry["file_name"] for entry in coco["images"]] == [line["path"] for line in lines]
    assert len(coco["annotations"]) == sum(len(line["detections"]) for line in lines) > 0
    assert [entry["id"] for entry in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    for line in lines:
        with Image.open(line["path"]) as opened:
            assert (line["width"], line["height"]) == opened.size
        for each in line["detections"]:
            x1, y1, x2, y2 = each["box"]
            assert 0 <= x1 < x2 <= line["width"]
            assert 0 <= y1 < y2 <= line["height"]
            assert each["label"] in CLASSES
            assert 0.1 <= each["score"] <= 1
    with Image.open("out/a scene.jpg") as image:
        assert np.abs(np.asarray(image, int) - np.asarray(Image.open(images / "a scene.jpg"), int)).max() > 60
    assert not list(Path().glob(".tmp-*"))


def test_a_table_has_a_row_a_box(run: Run, images: Path) -> None:
    done = run(images, "--json", "--output", "out", "--format", "csv", "--threshold", 0.1)
    assert done.code == 0, done.err
    found = [each for line in done.out.splitlines() for each in json.loads(line)["detections"]]
    with Path("out/detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], float(row["score"])) for row in rows] == [(one["label"], one["score"]) for one in found]
    assert [[float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] for row in rows] == [one["box"] for one in found]
    assert len(json.loads(Path("out/detections.json").read_text())["annotations"]) == len(rows)
    again = run(images, "--output", "out", "--format", "csv")
    assert (again.code, again.out) == (2, "")
    assert_one_line(again.err, "detections.csv")


def test_a_video_comes_out_with_all_frames_and_boxes_and_a_record_for_each_that_was_looked_at(
    run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    make_video(tmp_path / "clip.mp4", num=10)
    done = run("clip.mp4", "--every", 3, "--json", "--output", "out", "--threshold", 0)
    assert done.code == 0, done.err
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(each["frame"], each["time_seconds"]) for each in records] == [(0, 0.0), (3, 0.12), (6, 0.24), (9, 0.36)]
    assert Path("out/detections.jsonl").read_text() == done.out
    with Video(tmp_path / "clip.mp4") as before, Video(Path("out/clip.mp4")) as after:
        changes = [
            int(np.abs(old.pixels.astype(int) - new.pixels).max())
            for old, new in zip(before.frames(), after.frames(), strict=True)
        ]
    assert len(changes) == 10
    assert min(changes) > 40  # boxes are drawn on those between, too
    assert run("clip.mp4", "--output", "clip.mp4").code == 2
    done = run("clip.mp4", "--output", "new.mp4")
    assert (done.code, done.err) == (0, "new.mp4: 10 frames\n")


def test_without_json_a_line_is_for_people_and_nothing_is_written(run: Run, images: Path) -> None:
    before = sorted(images.parent.rglob("*"))
    done = run(images / "b.png", images / "flat.png", "--threshold", 1)
    assert done.code == 0, done.err
    assert done.out == f"{images}/b.png  nothing\n{images}/flat.png  nothing\n"
    done = run(images / "b.png", "--threshold", 0)
    assert any(name in done.out for name in CLASSES)
    assert sorted(images.parent.rglob("*")) == before


def test_a_higher_threshold_gives_fewer_boxes_and_the_best_ones(run: Run, images: Path) -> None:
    low, high = (json.loads(run(images / "a scene.jpg", "--json", "--threshold", x).out) for x in (0.06, 0.25))
    assert len(low["detections"]) > len(high["detections"])
    assert low["detections"][: len(high["detections"])] == high["detections"]


def test_an_image_alone_gives_what_it_gives_in_a_batch(run: Run, tmp_path: Path) -> None:
    pixels = draw_scenes(1, seed=3)[0].pixels
    for name in ("one", "two", "three"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    together = run("one.png", "two.png", "three.png", "--json", "--threshold", 0.06)
    alone = run("one.png", "--json", "--threshold", 0.06)
    expected = json.loads(alone.out)["detections"]
    for line in together.out.splitlines():
        detections = json.loads(line)["detections"]
        assert [each["label"] for each in detections] == [each["label"] for each in expected]
        for a, b in zip(detections, expected, strict=True):
            assert np.abs(np.subtract(a["box"], b["box"])).max() < 0.05


def test_a_broken_image_is_named_and_the_others_go_on(run: Run, images: Path) -> None:
    broken = images / "flat.png"
    broken.write_bytes(broken.read_bytes()[:-300])
    done = run(images, "--json", "--output", "out")
    assert done.code == 0
    assert len(done.out.splitlines()) == 5
    assert str(broken) in done.err
    assert "1 of 6" in done.err
    assert not Path("out/flat.jpg").exists()
    done = run(images, "--json", "--output", "other", "--on-fault", "stop")
    assert (done.code, Path("other").exists(), list(Path().glob(".tmp-*"))) == (2, False, [])
    assert str(broken) in done.err
    done = run(broken, "--output", "other")
    assert (done.code, Path("other").exists()) == (2, False)


def test_an_earlier_output_is_replaced_image_by_image(run: Run, images: Path) -> None:
    Path("out").mkdir()
    Path("out/kept.txt").write_text("mine")
    Path("out/b.jpg").write_text("old")
    assert run(images / "b.png", "--output", "out").code == 0
    assert Path("out/kept.txt").read_text() == "mine"
    with Image.open("out/b.jpg") as image:
        image.load()


def test_inputs_that_cannot_be_are_refused_in_one_line(run: Run, images: Path) -> None:
    image, text = images / "b.png", images / "notes.txt"
    Path("empty").mkdir()
    Path("taken").write_text("a file")
    cases: list[tuple[list[object], str]] = [
        ([], "INPUT"),
        ([image, "--data", "."], "--data"),
        (["--data", "empty"], "empty"),
        ([image, "--threshold", 1.5], "--threshold 1.5"),
        (["no-such.png"], "no-such.png"),
        (["empty"], "empty"),
        ([text], str(text)),
        ([image, "--output", "taken"], "taken"),
        ([images / "a scene.jpg", "--output", images], "a scene.jpg"),
    ]
    before = {path: path.stat().st_mtime_ns for path in images.parent.rglob("*")}
    for arguments, named in cases:
        done = run(*arguments)
        assert done.code == 2, arguments
        assert_one_line(done.err, named)
        assert done.out == ""
    assert {path: path.stat().st_mtime_ns for path in images.parent.rglob("*")} == before


def test_a_folder_with_true_boxes_is_measured(run: Run, make_voc: MakeFolder) -> None:
    folder = make_voc(train=4, test=3)
    done = run("--data", folder)
    assert done.code == 2
    assert_one_line(done.err, "amber")  # the model knows other classes
    for file in (folder / "Annotations").iterdir():
        file.write_text(file.read_text().replace("amber", "star").replace("blue", "disc"))
    done = run("--data", folder, "--split", "val")
    assert_one_line(done.err, "--split val")
    done = run("--data", folder, "--json", "--threshold", 1, "--output", "out")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 3
    assert done.err.startswith("map ")
    assert "on 3 images" in done.err
    numbers = json.loads(Path("out/metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert numbers["num"] == 3
    assert numbers["ap50_by_class"]["square"] is None


def test_a_folder_without_a_true_box_is_measured_without_nan(run: Run, make_voc: MakeFolder) -> None:
    folder = make_voc(train=4, test=1)
    for file in (folder / "Annotations").iterdir():
        file.write_text(file.read_text().replace("amber", "star").replace("blue", "disc"))
    text = (folder / "Annotations" / "p005.xml").read_text()
    (folder / "Annotations" / "p005.xml").write_text(text.replace("<difficult>0", "<difficult>1"))
    done = run("--data", folder, "--output", "out")
    assert done.code == 0, done.err
    numbers = json.loads(Path("out/metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert numbers["map"] is None


def assert_one_line(text: str, named: str) -> None:
    """Standard error is one line, an error that names something."""
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert named in text


def test_any_program_can_read_the_file(smoke: Smoke) -> None:
    """What the README shows: three lines without this project."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(smoke.run_dir / "model.onnx"))
    image = np.asarray(draw_scenes(1, seed=9)[0].pixels)
    boxes, scores, labels, num = session.run(None, {"image": image[None]})
    assert boxes.shape == (1, 100, 4)
    assert (np.diff(scores[0, : num[0]]) <= 0).all()
    assert set(labels[0, : num[0]].tolist()) <= set(range(len(CLASSES)))
