"""Inference takes pictures of any kind and size, and names in one line what it cannot take."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.cifar10.synthetic import CLASSES
from tests.conftest import Program
from tests.smoke import Smoke

MODULE = "projects.cifar10.infer"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder, and one below it, with pictures of odd sizes, gray, transparent, and a text file."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (301, 97, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "a tall one.jpg")
    Image.fromarray(values[:7, :90]).save(folder / "b-flat.png")
    Image.fromarray(values[:1, :1]).save(folder / "c-pixel.PNG")
    Image.fromarray(values[:64, :64]).convert("L").save(folder / "d-gray.png")
    Image.fromarray(values[:40, :50]).convert("RGBA").save(folder / "more" / "e-clear.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_of_all_kinds_are_named_with_probabilities(smoke: Smoke, program: Program, pictures: Path) -> None:
    done = program(MODULE, smoke.run_dir / "model.onnx", pictures, pictures / "b-flat.png", "--json", "--top", 20)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    names = [Path(line["path"]).name for line in lines]
    assert names == ["a tall one.jpg", "b-flat.png", "c-pixel.PNG", "d-gray.png", "e-clear.png", "b-flat.png"]
    assert lines[1] == lines[-1]
    for line in lines:
        probabilities = [entry["probability"] for entry in line["top"]]
        assert sorted(entry["label"] for entry in line["top"]) == sorted(CLASSES)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert probabilities == sorted(probabilities, reverse=True)
        assert (line["label"], line["probability"]) == (line["top"][0]["label"], probabilities[0])
    assert "accuracy" not in done.stderr  # no folder is named like a class


def test_without_json_a_line_is_for_people(smoke: Smoke, program: Program, pictures: Path) -> None:
    done = program(MODULE, smoke.run_dir / "model.onnx", "pictures/d-gray.png", "--top", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pictures/d-gray.png  ")
    assert done.stdout.count("%") == 2
    assert done.stdout.count("\n") == 1
    assert sorted(path.name for path in pictures.parent.iterdir()) == ["pictures"]


def test_the_8_bit_copy_answers_too(smoke: Smoke, program: Program, pictures: Path) -> None:
    done = program(MODULE, smoke.run_dir / "model.int8.onnx", pictures / "d-gray.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] in CLASSES


def test_a_broken_picture_is_named_and_nothing_is_written(smoke: Smoke, program: Program, pictures: Path) -> None:
    broken = pictures / "d-gray.png"
    broken.write_bytes(broken.read_bytes()[:80])
    done = program(MODULE, smoke.run_dir / "model.onnx", pictures, "--json", "--output", "out")
    assert done.returncode == 2
    assert_one_line(done.stderr, str(broken))
    assert all(json.loads(line)["label"] in CLASSES for line in done.stdout.splitlines())
    assert not (pictures.parent / "out").exists()


def test_inputs_that_cannot_be_are_refused_in_one_line(smoke: Smoke, program: Program, pictures: Path) -> None:
    model, picture = smoke.run_dir / "model.onnx", pictures / "d-gray.png"
    (pictures.parent / "empty").mkdir()
    (pictures.parent / "taken").write_text("a file")
    text = pictures / "notes.txt"
    cases: list[tuple[list[object], str]] = [
        (["missing.onnx", picture], "missing.onnx"),
        ([text, picture], str(text)),
        ([model], "INPUT"),
        ([model, picture, "--top", 0], "--top 0"),
        ([model, picture, "--top", "many"], "--top"),
        ([model, "no-such.png"], "no-such.png"),
        ([model, "empty"], "empty"),
        ([model, text], str(text)),
        ([model, picture, "--output", "taken"], "taken"),
        ([model, picture, "--outptu", "x"], "--output"),
    ]
    before = sorted(pictures.parent.rglob("*"))
    codes = []
    for arguments, named in cases:
        done = program(MODULE, *arguments)
        codes.append((named, done.returncode))
        assert_one_line(done.stderr, named)
        assert done.stdout == "" or named == "taken"
    assert codes == [(named, 2) for _, named in cases]
    assert sorted(pictures.parent.rglob("*")) == before


def assert_one_line(text: str, named: str) -> None:
    """Standard error is one line, an error that names something."""
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert named in text
