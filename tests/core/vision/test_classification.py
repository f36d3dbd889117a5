"""The infer program of image classifiers takes images of any kind and size, and names in one line what it cannot take.

The model is three nodes: it says which of red, green and blue an image has most of.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from core.errors import describe
from core.inference import SCHEMA_VERSION
from core.vision.classification import TASK, infer
from core.vision.decoding import decode
from tests.refusals import assert_refused
from tests.toy import Config
from tests.videos import make_video

CLASSES = ("blue", "green", "red")
Infer = Callable[[list[str]], None]


@dataclass(frozen=True)
class Facts:
    classes: tuple[str, ...]


def save_model(path: str, classes: tuple[str, ...] = CLASSES, *, left_half: bool = False) -> None:
    """Writes the model. left_half: it looks at the left half of an image only."""
    nodes = [
        helper.make_node("Slice", ["image", "start", "stop", "width"], ["part"]),
        helper.make_node("Cast", ["part"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["sorted"], axis=1),
        helper.make_node("Softmax", ["sorted"], ["probabilities"]),
    ]
    numbers = {"axes": [1, 2], "order": [2, 1, 0], "start": [0], "stop": [4 if left_half else 9999], "width": [2]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "colors", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entries = {"schema_version": SCHEMA_VERSION, "task": TASK, "facts": {"classes": classes}}
    helper.set_model_props(model, {key: json.dumps(value) for key, value in entries.items()})
    onnx.save(model, path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Infer:
    """The program, in a folder with model.onnx."""
    monkeypatch.chdir(tmp_path)
    save_model("model.onnx")
    return partial(infer, Config, Facts)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder, and one below it, with images of odd sizes, gray, transparent, and a text file."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (301, 97, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "a tall one.jpg")
    Image.fromarray(values[:7, :90]).save(folder / "b-flat.png")
    Image.fromarray(values[:1, :1]).save(folder / "c-pixel.PNG")
    Image.fromarray(values[:64, :64]).convert("L").save(folder / "d-gray.png")
    Image.fromarray(values[:40, :50]).convert("RGBA").save(folder / "more" / "e-clear.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_of_all_kinds_get_labels_with_probabilities(
    run: Infer, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["model.onnx", "images", "images/b-flat.png", "--json", "--top", "20"])
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    names = [Path(line["path"]).name for line in lines]
    assert names == ["a tall one.jpg", "b-flat.png", "c-pixel.PNG", "d-gray.png", "e-clear.png", "b-flat.png"]
    assert lines[1] == lines[-1]
    for line in lines:
        probabilities = [entry["probability"] for entry in line["top"]]
        assert sorted(entry["label"] for entry in line["top"]) == list(CLASSES)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert probabilities == sorted(probabilities, reverse=True)
        assert (line["label"], line["probability"]) == (line["top"][0]["label"], probabilities[0])
    assert "accuracy" not in printed.err  # no folder is named like a class


def test_the_accuracy_counts_images_in_folders_that_are_named_like_a_class_and_results_are_written(
    run: Infer, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, color in (("red", (200, 0, 0)), ("red", (0, 0, 200)), ("blue", (0, 0, 99)), ("blue", (0, 0, 98))):
        folder = images / "test" / name / "more"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), color).save(folder / f"{sum(color)}-{color[0]}.png")
    run(["model.onnx", "--output", "out", "--top", "2", "images/test", "images/d-gray.png"])
    printed = capsys.readouterr()
    assert "accuracy 0.7500 of 4 images" in printed.err
    assert printed.out.count("%") == 2 * 5
    written = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert [each["label"] for each in written][:4] == ["blue", "blue", "blue", "red"]
    with Image.open("out/grid.png") as grid:
        assert min(grid.size) > 100


def test_a_broken_image_is_named_and_left_out_or_ends_the_program(
    run: Infer, images: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = images / "d-gray.png"
    broken.write_bytes(broken.read_bytes()[:80])
    run(["model.onnx", "images", "--json"])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert "images/d-gray.png" in printed.err
    for argv in (["images", "--on-fault", "stop", "--output", "out"], ["images/d-gray.png"]):
        assert_refused(partial(run, ["model.onnx", *argv]), "images/d-gray.png", tmp_path)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["images/notes.txt", "images"], "images/notes.txt"),
        (["model.onnx"], "INPUT"),
        (["model.onnx", "images", "--top", "0"], "--top"),
        (["model.onnx", "images", "--top", "many"], "--top"),
        (["model.onnx", "no-such.png"], "no-such.png"),
        (["model.onnx", "empty"], "empty"),
        (["model.onnx", "images/notes.txt"], "images/notes.txt"),
        (["model.onnx", "images", "--output", "images/notes.txt"], "--output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_inputs_that_cannot_be_are_refused_in_one_line(
    argv: list[str], named: str, run: Infer, images: Path, tmp_path: Path
) -> None:
    Path("empty").mkdir()
    assert_refused(partial(run, argv), named, images.parent)


def write_halves(path: Path, left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    """An image of 8×8 pixels with halves of two colors."""
    pixels = np.empty((8, 8, 3), dtype=np.uint8)
    pixels[:, :4], pixels[:, 4:] = left, right
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_probabilities_of_files_and_of_mirror_images_are_averaged_and_each_ones_accuracy_is_said(
    run: Infer, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model("left.onnx", left_half=True)
    write_halves(Path("d/red/0.png"), (2, 0, 0), (0, 0, 9))
    write_halves(Path("d/blue/0.png"), (0, 0, 2), (0, 0, 1))

    def results(*argv: str) -> tuple[list[dict[str, float]], str]:
        run([*argv, "--json", "--top", "3"])
        printed = capsys.readouterr()
        records = [json.loads(line)["top"] for line in printed.out.splitlines()]
        return [{each["label"]: each["probability"] for each in record} for record in records], printed.err

    (whole, _), (left, said_left) = results("model.onnx", "d"), results("left.onnx", "d")
    together, said = results("model.onnx", "left.onnx", "d")
    for one, other, both in zip(whole, left, together, strict=True):
        assert both == pytest.approx({name: (one[name] + other[name]) / 2 for name in one}, abs=2e-6)
    assert "accuracy 1.0000 of 2" in said_left
    assert "accuracy 0.5000 of 2" in said
    assert "alone: model.onnx 0.5000, left.onnx 1.0000" in said
    flipped, said = results("left.onnx", "d", "--tta", "flip")
    write_halves(Path("d/red/0.png"), (0, 0, 9), (2, 0, 0))
    write_halves(Path("d/blue/0.png"), (0, 0, 1), (0, 0, 2))
    mirrored, _ = results("left.onnx", "d")
    for one, other, both in zip(left, mirrored, flipped, strict=True):
        assert both == pytest.approx({name: (one[name] + other[name]) / 2 for name in one}, abs=2e-6)
    assert "accuracy 0.5000 of 2" in said
    assert "without --tta flip 1.0000" in said
    assert "--tta flip changes nothing" in results("model.onnx", "d", "--tta", "flip")[1]


def test_files_of_unlike_classes_are_not_averaged(run: Infer, images: Path, tmp_path: Path) -> None:
    save_model("other.onnx", ("blue", "gray", "red"))
    save_model("turned.onnx", CLASSES[::-1])
    for name, named in (("other.onnx", "gray"), ("turned.onnx", "their order")):
        argv = ["model.onnx", name, "images", "--output", "out"]
        assert_refused(partial(run, argv), f"{named} in model.onnx and {name}", tmp_path)


@pytest.mark.parametrize(("output", "written"), [("out", "out/predictions.csv"), ("r.csv", "r.csv")])
def test_a_table_is_written_and_never_over_an_earlier_one(
    output: str, written: str, run: Infer, images: Path, tmp_path: Path
) -> None:
    flags = [] if output == "r.csv" else ["--format", "csv"]
    run(["model.onnx", "images", "--top", "2", "--output", output, *flags])
    with Path(written).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert list(rows[0]) == [
        *("path", "label", "probability"),
        *("top.1.label", "top.1.probability", "top.2.label", "top.2.probability"),
    ]
    assert (Path(output) / "grid.png").exists() == (output == "out")
    assert_refused(partial(run, ["model.onnx", "images", "--output", output, *flags]), written, tmp_path)


def test_a_stop_leaves_the_results_before(run: Infer, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_some(path: Path) -> NDArray[np.uint8]:
        if path.name == "d-gray.png":
            raise KeyboardInterrupt
        return decode(path)

    monkeypatch.setattr("core.vision.classification.decode", decode_some)
    monkeypatch.setattr("core.vision.classification._BATCH_SIZE", 1)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(["model.onnx", "images", "--output", "r.jsonl"])
    assert [json.loads(line)["path"] for line in Path("r.jsonl").read_text().splitlines()] == [
        *("images/a tall one.jpg", "images/b-flat.png", "images/c-pixel.PNG")
    ]
    assert describe(caught.value) == (130, "stopped; r.jsonl holds the first 3 results")


def test_every_nth_frame_of_a_video_has_a_record_with_its_time(
    run: Infer, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    make_video(Path("clip.mp4"))
    Path("broken.mp4").write_bytes(b"no video")
    Path("broken.png").write_bytes(b"no image")
    words = ["images/b-flat.png", "broken.mp4", "clip.mp4", "--every", "6", "--json"]
    run(["model.onnx", *words, "--output", "r.csv"])
    printed = capsys.readouterr()
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert [(each["path"], each.get("frame"), each.get("time_seconds")) for each in records] == [
        ("images/b-flat.png", None, None),
        *(("clip.mp4", 6 * k, pytest.approx(0.24 * k)) for k in range(4)),
    ]
    with Path("r.csv").open(newline="") as file:
        assert [row["frame"] for row in csv.DictReader(file)] == ["", "0", "6", "12", "18"]
    assert printed.err.count("skipped: ") == 1
    assert "broken.mp4" in printed.err
    run(["model.onnx", "broken.png", "clip.mp4", "--every", "15"])
    printed = capsys.readouterr()
    assert "broken.png" in printed.err
    assert printed.out.count("clip.mp4 ") == 2
