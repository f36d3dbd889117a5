"""An exported file is measured on labeled data without torch, and its numbers are those of its training."""

import json
from pathlib import Path

import pytest
from PIL import Image

from core.vision.classification_evaluate import Cut, cut_off, data_sha256, folder_sets, part_of
from core.vision.decoding import center_square
from core.vision.folders import list_classes
from core.vision.image_set import from_listing, hold_out, hold_out_by_class, sha256_of
from tests import forked
from tests.conftest import Program
from tests.projects.sample_data import CLASSES, write_images
from tests.refusals import assert_left_with_2
from tests.smoke import Smoke

# Trainings compute in bfloat16 where the processor does, files in float32.
TOLERANCES = {"accuracy": 0.02, "map": 0.01, "ap50": 0.02, "mse": 0.01, "gray": 1.0, "copies": 0.05}


@pytest.fixture
def evaluate(project: str) -> str:
    """The project's program."""
    return f"projects.{project}.evaluate"


def test_the_numbers_on_the_test_split_are_those_of_the_training(
    smoke: Smoke, evaluate: str, program: Program, tmp_path: Path
) -> None:
    model, output = smoke.run_dir / "model.onnx", tmp_path / "measured"
    done = program(evaluate, model, "synthetic", "--output", output, torch=False)
    assert done.returncode == 0, done.stderr
    found, trained = json.loads((output / "metrics.json").read_text()), forked.summary(smoke.run_dir)
    trained |= {f"test_{name}": value for name, value in trained.items()}
    common = [name for name in found if isinstance(found[name], float) and isinstance(trained.get(name), float)]
    assert common
    for name in common:
        allowed = next((value for word, value in TOLERANCES.items() if word in name), 0.01)
        assert found[name] == pytest.approx(trained[name], abs=allowed, rel=0.01), name
        assert found["training"][name] == trained[name]
        assert name in done.stdout
    plots = list(output.rglob("*.png"))
    assert plots
    for path in plots:
        with Image.open(path) as image:
            image.load()


def test_data_without_anything_in_it_is_refused_by_its_name(
    smoke: Smoke, evaluate: str, program: Program, tmp_path: Path
) -> None:
    (work := tmp_path / "work").mkdir()
    (tmp_path / "empty").mkdir()
    done = program(evaluate, smoke.run_dir / "model.onnx", tmp_path / "empty", "--output", "out", cwd=work)
    assert_left_with_2(done, "error: ", work)
    assert "empty" in done.stderr


def test_a_folder_has_its_own_parts_and_a_missing_one_is_cut_off_as_in_training(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", {"train": 9, "val": 2})
    sets = folder_sets(root, CLASSES)
    assert {name: len(images.labels) for name, images in sets.items()} == {"train": 27, "val": 6}
    assert set(folder_sets(root, CLASSES, val_is_test=True)) == {"train", "test"}
    assert len(part_of(sets, "all", "").labels) == 33
    listings = {name: list_classes(root / name, CLASSES) for name in sets}
    loaded = {name: from_listing(listing, 16, resident=True)[0] for name, listing in listings.items()}
    assert data_sha256(sets, CLASSES) == sha256_of(loaded, CLASSES)
    trained = loaded["train"]
    for hold_out_images, cut in ((hold_out, Cut("test", 0.3)), (hold_out_by_class, Cut("test", 0.3, by_class=True))):
        kept, off = hold_out_images(trained, 0.3, seed=5)
        parts = cut_off(sets, [cut], seed=5)
        for images, part in ((kept, parts["train"]), (off, parts["test"])):
            assert part.labels.tolist() == images.labels.tolist()
            assert (center_square(part.load(1), 16) == images.load([1])[0]).all()
