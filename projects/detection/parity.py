"""Compares an exported detector with PyTorch, and tells a defect from a tie.

Two runtimes round differently. Where two scores are all but equal, or an IoU lies at the limit, one may keep another
box than the other, and nothing is wrong. So what is continuous is compared within a tolerance: boxes and scores before
each non-maximum suppression (NMS). Each decision of the file, which boxes an NMS keeps, is checked against the rule of
the NMS. Then PyTorch runs with the file's decisions in place of its own, and the final outputs have to be equal.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.errors import RunError
from core.export_spec import ExportSpec
from core.parity import DEFECT, Arrays, run_both
from projects.detection.nms import Detections, keeping_all

_BOX_TOLERANCE = 2e-4  # of the longer side of the canvas, or of the image
_SCORE_TOLERANCE = 1e-3
_IOU_TOLERANCE = 1e-4
_SIDE_LIMITS_PIXELS = (0.5, 1e-2, 1e-3)  # of deploy.py and torchvision_models.py: boxes with shorter sides are dropped


class _Suppression(NamedTuple):
    """One NMS: boxes [N, M, 4], scores [N, C, M] that go in, the limits, and the scores [N, C, M] of what it keeps."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    overlap: float
    score_threshold: float
    kept: NDArray[np.float32]


def compare(spec: ExportSpec, path: Path) -> dict[str, Any]:
    """Compares file and module on the example and all parity inputs.

    Returns the report: for each input the number of boxes and the largest differences. Raises RunError, naming input
    and reason, where they differ by more than rounding explains.
    """
    session, names = _instrumented(path)
    rows: list[dict[str, Any]] = []
    for (image,), results, expected in run_both(spec, path):
        shape = list(image.shape)
        every = session.run(None, {"image": image.numpy()})
        outputs, arrays = every[: len(expected)], dict(zip(names, every[len(expected) :], strict=True))
        kept = [arrays[name] for name in names[2::3]]
        with torch.inference_mode(), _Forced(kept) as forced:
            forced_outputs = [part.numpy() for part in spec.module(image)]
        with torch.inference_mode(), keeping_all(), _Forced(kept) as complete:
            spec.module(image)
        faults, scores_apart = [], 0.0
        for number, (ours, all_scores) in enumerate(zip(forced.calls, complete.calls, strict=True)):
            boxes, scores, stays = (arrays[name] for name in names[3 * number : 3 * number + 3])
            theirs = _Suppression(boxes, scores, ours.overlap, ours.score_threshold, stays)
            faults += [*_input_faults(theirs, ours, all_scores.scores), *_decision_faults(theirs)]
            scores_apart = max(scores_apart, float(_both(scores, ours.scores).max(initial=0.0)))
        boxes_apart = float(np.abs(outputs[0] - forced_outputs[0]).max(initial=0.0))
        faults += _output_faults(outputs, forced_outputs, max(shape[1:3]))
        faults += [
            f"{name} is {a.dtype} {list(a.shape)}, it should be {b.dtype} {list(b.shape)}"
            for name, a, b in zip(spec.outputs, results, expected, strict=True)
            if (a.dtype, a.shape) != (b.dtype, b.shape)
        ]
        if faults:
            what = f"input shape {shape}: {faults[0]}"
            raise RunError("the ONNX file does not equal the PyTorch network", what, DEFECT)
        differences = {"max_box_difference": boxes_apart, "max_score_difference": scores_apart}
        rows.append({"input_shapes": [shape], "boxes": int(outputs[3].sum()), **differences})
    num, worst = sum(row["boxes"] for row in rows), max(row["max_box_difference"] for row in rows)
    tolerance = {"boxes": _BOX_TOLERANCE, "scores": _SCORE_TOLERANCE, "iou": _IOU_TOLERANCE}
    return {"tolerance": tolerance, "checks": rows, "summary": f"{num:,} boxes, at most {worst:.1e} pixels apart"}


def _instrumented(path: Path) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session of the file's graph that also gives boxes, scores and kept scores of each NMS; the names of these."""
    model = onnx.load(str(path))
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    names: list[str] = []
    for node in model.graph.node:
        if node.op_type == "NonMaxSuppression":
            scattered = [user for user in consumers.get(node.output[0], []) if user.op_type == "ScatterND"]
            if len(scattered) != 1:
                raise RunError("the ONNX file is not as expected", f"the use of {node.output[0]}", DEFECT)
            names += [node.input[0], node.input[1], scattered[0].output[0]]
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in present)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), names


class _Forced(TorchDispatchMode):
    """While it lasts, each NMS keeps the given boxes, and equal scores are sorted by index, as ONNX does it."""

    def __init__(self, kept: Sequence[NDArray[np.float32]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept, self.calls = kept, list[_Suppression]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.atelier_detection.suppress.default:
            kept = self.kept[len(self.calls)]
            boxes, scores, overlap, threshold = args
            self.calls.append(_Suppression(boxes.numpy(), scores.numpy(), overlap, threshold, kept))
            return torch.from_numpy(kept.copy())
        if func is torch.ops.aten.topk.default:
            values, index = _sorted(args[0], args[2] if len(args) > 2 else -1)
            return values.narrow(-1, 0, args[1]), index.narrow(-1, 0, args[1])
        return func(*args, **(kwargs or {}))


def _sorted(scores: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Values in falling order, equal ones in the order of their indices, and the indices; along the last dimension."""
    assert dim in (-1, scores.ndim - 1)
    values, index = scores.sort(dim=dim, descending=True, stable=True)
    return values, index


def _input_faults(theirs: _Suppression, ours: _Suppression, all_scores: NDArray[np.float32]) -> list[str]:
    """Differences of boxes and scores before an NMS that rounding does not explain.

    all_scores: ours before keep_best. A score is 0 on one side alone where it is all but equal to the best score that
    was left out, or where a side of the box is all but equal to the limit under which boxes are dropped.
    """
    longer = max(1.0, float(np.abs(ours.boxes).max(initial=0.0)))
    apart = float(np.abs(theirs.boxes - ours.boxes).max(initial=0.0))
    if not apart <= _BOX_TOLERANCE * longer:
        return [f"boxes before NMS differ by {apart:.3g} pixels"]
    both = float(_both(theirs.scores, ours.scores).max(initial=0.0))
    if not both <= _SCORE_TOLERANCE:
        return [f"scores before NMS differ by {both:.3g}"]
    sides = np.minimum(ours.boxes[..., 2] - ours.boxes[..., 0], ours.boxes[..., 3] - ours.boxes[..., 1])
    at_limit = sides < max(_SIDE_LIMITS_PIXELS) + _BOX_TOLERANCE * longer
    left_out = np.where(ours.scores == 0, all_scores, 0).max(axis=(1, 2), initial=0.0)[:, None, None]
    only_ours = (ours.scores > 0) & (theirs.scores == 0) & (ours.scores > left_out + _SCORE_TOLERANCE)
    only_theirs = (theirs.scores > 0) & (ours.scores == 0) & (np.abs(theirs.scores - all_scores) > _SCORE_TOLERANCE)
    num = int(((only_ours | only_theirs) & ~at_limit[:, None]).sum())
    return [f"{num} candidates before NMS are on one side alone"] if num else []


def _both(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Absolute differences of the scores that are above 0 on both sides."""
    result: NDArray[np.float32] = np.abs(a - b)[(a > 0) & (b > 0)]
    return result


def _decision_faults(nms: _Suppression) -> list[str]:
    """What an NMS kept or dropped against its rule, by more than rounding explains."""
    faults = []
    for image, label in np.argwhere((nms.scores > nms.score_threshold).any(axis=2) | (nms.kept > 0).any(axis=2)):
        scores, kept = nms.scores[image, label], nms.kept[image, label]
        candidates, chosen = np.flatnonzero(scores > nms.score_threshold), np.flatnonzero(kept > 0)
        if not np.isin(chosen, candidates).all() or (kept[chosen] != scores[chosen]).any():
            faults.append("NMS kept boxes that are no candidates")
            continue
        overlaps = _ious(nms.boxes[image, candidates], nms.boxes[image, chosen])
        own = candidates[:, None] == chosen[None]
        better = scores[chosen][None] >= scores[candidates][:, None]
        suppressed = (better & ~own & (overlaps > nms.overlap - _IOU_TOLERANCE)).any(axis=1)
        is_kept = own.any(axis=1)
        if (~is_kept & ~suppressed).any():
            faults.append(f"NMS dropped {int((~is_kept & ~suppressed).sum())} boxes without a better one over them")
        if ((overlaps > nms.overlap + _IOU_TOLERANCE) & ~own)[is_kept].any():
            faults.append("NMS kept two boxes that overlap too much")
    return faults


def _ious(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of each box of a [A, 4] with each of b [B, 4]: [A, B]; 0 where both have no area."""
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = sides.clip(min=0).prod(axis=2)
    areas = [(each[..., 2:] - each[..., :2]).prod(axis=2) for each in (first, second)]
    result: NDArray[np.float64] = common / np.maximum(areas[0] + areas[1] - common, 1e-12)
    return result


def _output_faults(results: Arrays, expected: Arrays, longer_side: int) -> list[str]:
    """Differences of the final outputs, where PyTorch kept the same boxes. longer_side: of the image, in pixels."""
    limits = {"boxes": max(0.05, _BOX_TOLERANCE * longer_side), "scores": _SCORE_TOLERANCE, "labels": 0, "num": 0}
    faults = []
    for name, result, wanted in zip(Detections._fields, results, expected, strict=True):
        if result.shape != wanted.shape:
            return [f"{name} has the shape {list(result.shape)}, it should be {list(wanted.shape)}"]
        apart = np.abs(result.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
        if not apart <= limits[name]:
            faults.append(f"{name} differ by {apart:.3g}, allowed are {limits[name]:g}")
    return faults
