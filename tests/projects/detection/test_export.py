"""The ONNX file gives the boxes of PyTorch at any size and batch, of every kind of detector; a file that does not is
refused, and a tie between two boxes is not mistaken for a fault."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from core.errors import RunError
from core.export import save_graph
from core.export_spec import ExportSpec
from core.parity import open_session
from projects.detection import deploy
from projects.detection.config import ModelFacts
from projects.detection.deploy import Deployed
from projects.detection.detector import Detector
from projects.detection.export import soft_images, spec_of
from projects.detection.model import Small
from projects.detection.nms import Rule
from projects.detection.parity import compare
from tests.projects.detection.test_torchvision import KINDS, tiny

CANVAS = (64, 96)
RULE = Rule(0.3, 0.5, 20)
FACTS = ModelFacts(
    model="small",
    classes=("a", "b", "c"),
    canvas=CANVAS,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    num_train=1,
    data_sha256="",
    threshold=0.3,
)
Exported = Callable[[str], tuple[Path, dict[str, Any], ExportSpec]]


def small(*, trained: bool = True) -> Small:
    """The small network, fresh or with weights that tell many scores apart."""
    torch.manual_seed(0)
    network = Small(3, (8, 16, 16, 16, 16), features=16, depth=1)
    if trained:
        nn.init.normal_(network.class_output.weight, std=0.3)
        nn.init.constant_(network.class_output.bias, -3.0)  # type: ignore[arg-type]
        nn.init.normal_(network.box_output.weight, std=0.05)
    return network.eval()


def spec(detector: Detector, rule: Rule = RULE, canvas: tuple[int, int] = CANVAS) -> ExportSpec:
    return spec_of(Deployed(detector, canvas, FACTS.mean, FACTS.std, rule).eval(), FACTS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Each kind's file, parity report and spec, made when it is first asked for."""
    made: dict[str, tuple[Path, dict[str, Any], ExportSpec]] = {}

    def make(kind: str) -> tuple[Path, dict[str, Any], ExportSpec]:
        if kind not in made:
            one = spec(small() if kind == "small" else tiny(kind))
            path = tmp_path_factory.mktemp(kind) / "model.onnx"
            save_graph(one, path)
            made[kind] = path, compare(one, path), one
        return made[kind]

    return make


@pytest.mark.parametrize("kind", ["small", *KINDS])
def test_the_file_gives_the_same_boxes_at_every_size_and_in_every_batch(kind: str, exported: Exported) -> None:
    path, report, one = exported(kind)
    assert len(report["checks"]) >= 7
    assert sum(row["boxes"] for row in report["checks"]) > 50
    assert all(row["max_box_difference"] < 0.1 for row in report["checks"])
    session = open_session(path, threads=1)
    for shape in [(1, 480, 640), (4, 64, 96), (2, 33, 200), (1, 400, 300), (1, 9, 7)]:
        (image,) = soft_images(*shape)
        with torch.inference_mode():
            expected = [part.numpy() for part in one.module(image)]
        results = session.run(None, {"image": image.numpy()})
        assert [(part.shape, part.dtype) for part in results] == [(part.shape, part.dtype) for part in expected]
        assert np.array_equal(results[3], expected[3])
        assert np.abs(np.sort(results[1]) - np.sort(expected[1])).max() < 1e-4


@pytest.mark.parametrize("kind", ["small", "fasterrcnn"])
def test_the_file_uses_only_operators_that_every_runtime_has(kind: str, exported: Exported) -> None:
    model = onnx.load(str(exported(kind)[0]))
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [entry.name for entry in model.graph.output] == ["boxes", "scores", "labels", "num"]
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param for size in sizes[:3]] == ["batch", "height", "width"]
    assert not model.functions


def test_where_nothing_is_found_the_file_says_so_without_an_error(exported: Exported) -> None:
    for shape in [(1, 64, 96, 3), (3, 130, 77, 3)]:
        image = np.full(shape, 128, dtype=np.uint8)
        boxes, scores, labels, num = open_session(exported("small")[0]).run(None, {"image": image})
        assert num.tolist() == [0] * shape[0]
        assert (labels == -1).all()
        assert not boxes.any()
        assert not scores.any()


def test_an_untrained_network_exports_though_its_scores_are_all_but_equal(tmp_path: Path) -> None:
    """The canvas has more points than a class has candidates, so ties decide there too."""
    one = spec(small(trained=False), Rule(0.05, 0.6, 100), canvas=(256, 320))
    save_graph(one, tmp_path / "model.onnx")
    assert compare(one, tmp_path / "model.onnx")["checks"][-1]["boxes"] > 50  # of flat gray


def frozen_size(one: ExportSpec, patch: pytest.MonkeyPatch) -> None:
    """The image always gets the size on the canvas that the example has."""
    height, width = one.example[0].shape[1:3]
    size = deploy.traced_size(height, width, CANVAS)
    patch.setattr(deploy, "traced_size", lambda *_: size)


def frozen_batch(one: ExportSpec, patch: pytest.MonkeyPatch) -> None:
    """All images of a batch get the candidates of the first."""
    detector: Any = one.module.detector
    candidates = detector.candidates
    patch.setattr(detector, "candidates", lambda x: tuple(part[:1].expand_as(part) for part in candidates(x)))


@pytest.mark.parametrize("plant", [frozen_size, frozen_batch], ids=["size", "batch"])
def test_a_frozen_dimension_is_found(
    plant: Callable[[ExportSpec, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        one = spec(small())
        plant(one, patch)
        save_graph(one, tmp_path / "model.onnx")
    with pytest.raises(RunError, match="does not equal"):
        compare(spec(small()), tmp_path / "model.onnx")


@pytest.mark.parametrize(("larger", "rule"), [(0.001, RULE), (0.0, RULE._replace(overlap=0.6))], ids=["boxes", "rule"])
def test_another_network_and_another_rule_are_found(larger: float, rule: Rule, exported: Exported) -> None:
    other = small()
    with torch.no_grad():
        other.box_output.bias[:4] += larger  # type: ignore[index]
    with pytest.raises(RunError, match="does not equal"):
        compare(spec(other, rule), exported("small")[0])


def test_a_box_that_nms_drops_or_keeps_against_its_rule_is_found(exported: Exported, tmp_path: Path) -> None:
    """The file's NMS is told a limit of its own, while boxes and scores stay right."""
    path, _, one = exported("small")
    for position, value in ((3, 0.9), (3, 0.1), (4, 0.6)):
        changed = tmp_path / "model.onnx"
        shutil.copy(path, changed)
        model = onnx.load(str(changed))
        (nms,) = (node for node in model.graph.node if node.op_type == "NonMaxSuppression")
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value], np.float32), "planted"))
        nms.input[position] = "planted"
        onnx.save(model, str(changed))
        with pytest.raises(RunError, match="NMS"):
            compare(one, changed)


class TwoBoxes(Detector):
    """Two boxes of one class with scores that differ by less than two runtimes may, and that overlap."""

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.scores = (0.9, 0.9 + 1e-6) if swapped else (0.9 + 1e-6, 0.9)

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        boxes = self.scale * torch.tensor([[8.0, 12, 40, 36], [8, 12, 40, 38], [50, 30, 60, 50]])
        scores = self.scale * torch.tensor([[*self.scores, 0.5]])
        return boxes.expand(len(images), -1, -1) + 0 * images.mean(), scores.expand(len(images), -1, -1)


def test_another_box_of_a_tie_is_no_fault(tmp_path: Path) -> None:
    save_graph(spec(TwoBoxes(swapped=True)), tmp_path / "model.onnx")
    (image,) = soft_images(1, *CANVAS)
    one = spec(TwoBoxes(swapped=False))
    (kept,) = open_session(tmp_path / "model.onnx").run(["boxes"], {"image": image.numpy()})
    assert not np.allclose(kept, one.module(image).boxes.detach(), atol=1)
    compare(one, tmp_path / "model.onnx")
