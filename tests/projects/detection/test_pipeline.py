"""The exported file has the mAP that training measured, and the facts that inference needs."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from core.inference import OnnxModel
from projects.detection.config import TASK, ModelFacts
from projects.detection.synthetic import CLASSES, draw_scenes
from tests.conftest import Program
from tests.forked import summary
from tests.smoke import Smoke


def test_objects_were_found_and_the_file_knows_canvas_and_threshold(smoke: Smoke) -> None:
    numbers = summary(smoke.run_dir)
    facts = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, facts=ModelFacts).facts
    assert numbers["test_ap50"] > 0.03
    assert (facts.classes, facts.canvas, facts.threshold) == (CLASSES, (96, 128), numbers["threshold"])
    assert {path.name for path in (smoke.run_dir / "plots").iterdir()} >= {"precision_recall.png", "boxes.png"}


def test_the_file_has_the_map_of_pytorch(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    config = json.loads((smoke.run_dir / "run.json").read_text())["config"]
    write_as_coco(tmp_path / "data", config["num_synthetic"] // 6, config["seed"])
    arguments = [smoke.run_dir / "model.onnx", "--data", "data", "--split", "train", "--output", "out"]
    done = program("projects.detection.infer", *arguments)
    assert done.returncode == 0, done.stderr
    measured, numbers = json.loads((tmp_path / "out" / "metrics.json").read_text()), summary(smoke.run_dir)
    assert measured["num"] == numbers["num_test"]
    for name in ("map", "ap50", "ap75"):
        assert abs(measured[name] - numbers[f"test_{name}"]) <= 0.002
    assert f"ap50 {measured['ap50']:.4f}" in done.stderr
    assert len(list((tmp_path / "out").glob("*.jpg"))) == numbers["num_test"]


def write_as_coco(root: Path, num: int, seed: int) -> None:
    """The test scenes of a synthetic run as a folder in COCO form."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    body: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    body["categories"] = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    for number, (pixels, image) in enumerate(draw_scenes(num, seed), 1):
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        size = {"width": image.width, "height": image.height}
        body["images"].append({"id": number, "file_name": f"{number}.png", **size})
        for box, label, ignored in zip(image.boxes, image.labels, image.ignored, strict=True):
            x1, y1, x2, y2 = (float(edge) for edge in box)
            entry = {"image_id": number, "category_id": int(label) + 1, "iscrowd": int(ignored)}
            row = {"id": len(body["annotations"]) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], **entry}
            body["annotations"].append(row)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(body))
