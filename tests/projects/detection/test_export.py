"""The ONNX file gives the boxes of PyTorch at any size and batch, of every kind of detector, also where there are none;
a file that does not is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from core.errors import RunError
from core.export import ExportSpec, export_onnx, open_session
from projects.detection.deploy import Deployed
from projects.detection.export import agreement, compare, matches, pictures, spec_of
from projects.detection.model import Detector, Small
from projects.detection.selection import Rule
from tests.projects.detection.test_torchvision import KINDS, tiny

CANVAS = (64, 96)
RULE = Rule(0.3, 0.5, 20)


def small() -> Small:
    """The small network with weights that tell many scores apart."""
    torch.manual_seed(0)
    network = Small(3, (8, 16, 16, 16, 16), features=16, depth=1)
    nn.init.normal_(network.class_output.weight, std=0.3)
    nn.init.constant_(network.class_output.bias, -3.0)  # type: ignore[arg-type]
    nn.init.normal_(network.box_output.weight, std=0.05)
    return network.eval()


def module(detector: Detector, rule: Rule = RULE) -> Deployed:
    return Deployed(detector, CANVAS, [128 / 255] * 3, [0.25] * 3, rule).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any], Deployed]]:
    """Each kind's file, parity report and module, made when it is first asked for."""
    made: dict[str, tuple[Path, dict[str, Any], Deployed]] = {}

    def make(kind: str) -> tuple[Path, dict[str, Any], Deployed]:
        if kind not in made:
            deployed = module(small() if kind == "small" else tiny(kind))
            path = tmp_path_factory.mktemp(kind) / "model.onnx"
            made[kind] = path, export_onnx(spec_of(deployed, {"task": "object detection"}), path, compare), deployed
        return made[kind]

    return make


@pytest.mark.parametrize("kind", ["small", *KINDS])
def test_the_file_finds_the_same_boxes_at_every_size_and_in_every_batch(kind: str, exported: Any) -> None:
    path, report, deployed = exported(kind)
    assert len(report["checks"]) >= 7
    assert len({tuple(row["input_shapes"][0]) for row in report["checks"]}) >= 7
    assert sum(row["boxes"] for row in report["checks"]) >= 50
    assert json.loads((path.parent / "model.parity.json").read_text()) == report
    session = open_session(path, threads=1)
    for shape in [(1, 480, 640), (4, 64, 96), (2, 33, 200), (1, 400, 300), (1, 9, 7)]:
        (image,) = pictures(*shape)
        with torch.inference_mode():
            expected = [part.numpy() for part in deployed(image)]
        found = session.run(None, {"image": image.numpy()})
        assert [part.shape for part in found] == [part.shape for part in expected]
        assert [part.dtype for part in found] == [part.dtype for part in expected]
        numbers = agreement(found, expected, max(shape[1:]))
        assert numbers["matched"] >= 0.98 * numbers["boxes"]
        assert numbers["max_box_difference"] < 0.1


@pytest.mark.parametrize("kind", ["small", "fasterrcnn"])
def test_the_file_uses_only_operators_that_every_runtime_has(kind: str, exported: Any) -> None:
    model = onnx.load(str(exported(kind)[0]))
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [entry.name for entry in model.graph.output] == ["boxes", "scores", "labels", "num"]
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param for size in sizes[:3]] == ["batch", "height", "width"]
    assert not model.functions
    assert "/work" not in path_text(exported(kind)[0])
    assert str(Path(__file__).parents[3]) not in path_text(exported(kind)[0])


def path_text(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def test_where_nothing_is_found_the_file_says_so_without_an_error(exported: Any) -> None:
    path, report, _ = exported("small")
    gray = next(row for row in report["checks"] if row["input_shapes"] == [[2, 131, 97, 3]])
    assert gray["boxes"] == gray["matched"] == 0
    for shape in [(1, 64, 96, 3), (3, 130, 77, 3)]:
        image = np.full(shape, 128, dtype=np.uint8)
        boxes, scores, labels, num = open_session(path).run(None, {"image": image})
        assert num.tolist() == [0] * shape[0]
        assert (labels == -1).all()
        assert not boxes.any()
        assert not scores.any()


def test_a_file_that_finds_other_boxes_is_refused_and_nothing_is_written(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, deployed = exported("small")
    other = small()
    nn.init.constant_(other.box_output.bias[:4], 1.2)  # type: ignore[index]
    monkeypatch.setattr("core.export.save_graph", lambda spec, target: shutil.copy(path, target))
    with pytest.raises(RunError, match=r"does not equal .* boxes are in both"):
        export_onnx(spec_of(module(other), {}), tmp_path / "model.onnx", compare)
    assert not list(tmp_path.iterdir())
    export_onnx(spec_of(deployed, {}), tmp_path / "model.onnx", compare)
    assert (tmp_path / "model.onnx").exists()


def test_an_earlier_file_stays_when_a_later_export_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(spec: ExportSpec, target: Path) -> None:
        target.write_bytes(b"half a file")
        raise OSError(28, "No space left on device", str(target))

    path = tmp_path / "model.onnx"
    path.write_bytes(b"the earlier one")
    monkeypatch.setattr("core.export.save_graph", fail)
    with pytest.raises(OSError, match="No space"):
        export_onnx(spec_of(module(small()), {}), path, compare)
    assert path.read_bytes() == b"the earlier one"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx"]


def rows(*detections: tuple[float, float, int]) -> list[np.ndarray[Any, Any]]:
    """Detections as (left edge, score, label)."""
    boxes = np.array([[left, 0, left + 9, 9] for left, _, _ in detections], np.float32).reshape(-1, 4)
    return [boxes, np.array([s for _, s, _ in detections]), np.array([label for _, _, label in detections])]


def test_boxes_in_another_order_are_the_same_boxes() -> None:
    a, b = rows((0, 0.9, 1), (20, 0.5, 0), (40, 0.5, 0)), rows((0, 0.9, 1), (40, 0.5, 0), (20, 0.5, 0))
    assert len(matches(a, b, 0.05)) == 3


@pytest.mark.parametrize("other", [(0.2, 0.9, 1), (0, 0.89, 1), (0, 0.9, 0)], ids=["moved", "score", "label"])
def test_another_place_score_or_label_is_another_box(other: tuple[float, float, int]) -> None:
    assert matches(rows((0, 0.9, 1)), rows(other), 0.05) == []


def test_one_box_is_not_two() -> None:
    assert len(matches(rows((0, 0.9, 1)), rows((0, 0.9, 1), (0, 0.9, 1)), 0.05)) == 1
    assert matches(rows(), rows((0, 0.9, 1)), 0.05) == []
    assert matches(rows((0, 0.9, 1)), rows(), 0.05) == []


def test_the_report_counts_the_side_with_more_boxes() -> None:
    def padded(detections: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        return [*(part[None] for part in detections), np.array([len(detections[1])])]

    numbers = agreement(padded(rows((0, 0.9, 1), (30, 0.8, 0))), padded(rows((0, 0.9, 1))), 100)
    assert (numbers["boxes"], numbers["matched"]) == (2, 1)


def test_a_spec_names_every_dimension_that_is_free() -> None:
    spec = spec_of(module(small()), {})
    assert isinstance(spec, ExportSpec)
    assert spec.output_shapes == [["batch", 20, 4], ["batch", 20], ["batch", 20], ["batch"]]
    assert spec.dynamic_shapes == ({0: "batch", 1: "height", 2: "width"},)
