"""The infer program of image classifiers takes images of any kind and size, and names in one line what it cannot take.

The model is three nodes: it says which of red, green and blue an image has most of.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from core.inference import SCHEMA_VERSION
from core.vision.classification import TASK, infer
from tests.refusals import assert_refused
from tests.toy import Config

CLASSES = ("blue", "green", "red")
Infer = Callable[[list[str]], None]


@dataclass(frozen=True)
class Facts:
    classes: tuple[str, ...]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Infer:
    """The program, in a folder with model.onnx."""
    monkeypatch.chdir(tmp_path)
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["sorted"], axis=1),
        helper.make_node("Softmax", ["sorted"], ["probabilities"]),
    ]
    numbers = {"axes": [1, 2], "order": [2, 1, 0]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "colors", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entries = {"schema_version": SCHEMA_VERSION, "task": TASK, "facts": {"classes": CLASSES}}
    helper.set_model_props(model, {key: json.dumps(value) for key, value in entries.items()})
    onnx.save(model, "model.onnx")
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
    run(["model.onnx", "images/test", "images/d-gray.png", "--output", "out", "--top", "2"])
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
