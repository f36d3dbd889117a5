"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from core.errors import UserError
from projects.detection.annotations import Picture
from projects.detection.export import export
from projects.detection.synthetic import CLASSES, draw_scenes
from tests.conftest import ROOT, Program
from tests.projects.detection.conftest import Smoke, summary
from tests.refusals import assert_refused


def test_training_says_where_everything_is_and_what_to_run_next(smoke: Smoke) -> None:
    run_dir, said = smoke.run_dir, smoke.trained
    assert f"run folder     {run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.detection.export {run_dir}")
    assert "test AP50" in said
    assert "Traceback" not in smoke.warned
    assert "Warning" not in smoke.warned


def test_a_run_folder_holds_settings_metrics_summary_pictures_and_checkpoints(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["project"] == "detection"
    assert run["facts"]["classes"] == list(CLASSES)
    assert run["facts"]["canvas"] == [96, 128]
    steps = [folder.name for folder in sorted((smoke.run_dir / "checkpoints").iterdir())]
    assert f"step-{summary(smoke.run_dir)['best_step']:08d}" in steps
    for name in ("curves", "precision_recall", "boxes"):
        with Image.open(smoke.run_dir / "plots" / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200


def test_the_loss_fell_and_things_were_found(smoke: Smoke) -> None:
    lines = [json.loads(line) for line in (smoke.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert summary(smoke.run_dir)["test_ap50"] > 0.03


def test_export_writes_a_file_that_says_what_it_is_and_a_parity_report(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.detection.infer {path}" in smoke.exported
    told = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert json.loads(told["classes"]) == list(CLASSES)
    assert json.loads(told["threshold"]) == summary(smoke.run_dir)["threshold"]
    assert json.loads(told["metrics"])["test_map"] == summary(smoke.run_dir)["test_map"]
    assert (told["project"], told["task"]) == ("detection", "object detection")
    assert int(told["step"]) == summary(smoke.run_dir)["best_step"]
    assert str(smoke.run_dir) not in path.read_bytes().decode("latin-1")
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert len(report["checks"]) >= 7
    assert all(row["matched"] >= 0.98 * row["boxes"] for row in report["checks"])
    assert sum(row["boxes"] for row in report["checks"]) > 0
    assert not list(smoke.run_dir.glob(".tmp-*"))


def test_the_file_without_torch_has_the_map_of_pytorch(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    config = json.loads((smoke.run_dir / "run.json").read_text())["config"]
    write_as_coco(tmp_path / "data", config["num_synthetic"] // 6, config["seed"])
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = [smoke.run_dir / "model.onnx", "--data", "data", "--split", "train", "--output", "out"]
    done = program("projects.detection.infer", *arguments, env={"PYTHONPATH": f"{blocked}:{ROOT}"})
    assert done.returncode == 0, done.stderr
    measured, said = json.loads((tmp_path / "out" / "metrics.json").read_text()), summary(smoke.run_dir)
    assert measured["num"] == said["num_test"]
    for name in ("map", "ap50", "ap75"):
        assert abs(measured[name] - said[f"test_{name}"]) <= 0.002
    assert f"ap50 {measured['ap50']:.4f}" in done.stderr
    assert len(list((tmp_path / "out").glob("*.jpg"))) == said["num_test"]


def write_as_coco(root: Path, num: int, seed: int) -> None:
    """The test scenes of a synthetic run as a folder in COCO form."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    body: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    body["categories"] = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    for number, scene in enumerate(draw_scenes(num, seed), 1):
        picture: Picture = scene.picture
        Image.fromarray(scene.pixels).save(root / "images" / f"{number}.png")
        size = {"width": picture.width, "height": picture.height}
        body["images"].append({"id": number, "file_name": f"{number}.png", **size})
        for box, label, uncounted in zip(picture.boxes, picture.labels, picture.uncounted, strict=True):
            x1, y1, x2, y2 = (float(edge) for edge in box)
            entry = {"image_id": number, "category_id": int(label) + 1, "iscrowd": int(uncounted)}
            body["annotations"].append(
                {"id": len(body["annotations"]) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], **entry}
            )
    (root / "annotations" / "instances_train.json").write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("choice", "words"),
    [("999999", "step-00999999"), ("newest", "--checkpoint newest"), ("-1", "--checkpoint -1")],
)
def test_a_checkpoint_that_is_not_there_is_named(smoke: Smoke, choice: str, words: str, tmp_path: Path) -> None:
    assert_refused(lambda: export(smoke.run_dir, choice, tmp_path / "model.onnx"), words, tmp_path)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"format": 1, "project": "gan"}'])
def test_a_folder_that_is_no_run_of_this_project_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert_refused(lambda: export(tmp_path, "best", None), str(tmp_path), tmp_path)


def test_export_into_a_folder_that_is_not_there_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        export(smoke.run_dir, "best", tmp_path / "nowhere" / "model.onnx")
