"""torchvision's detectors by name, with two changes: their input is the whole canvas, resized and normalized already,
and their boxes are chosen by nms.py, so that batches of any size can be exported with the suppression inside.

`candidates` follows, for each of the four, what torchvision does between its heads and its non-maximum suppression
(https://docs.pytorch.org/vision/stable/models.html#object-detection). SSDLite: Sandler et al. 2018 (arXiv 1801.04381);
Faster R-CNN: Ren et al. 2015 (arXiv 1506.01497); RetinaNet: Lin et al. 2017 (arXiv 1708.02002); FCOS: Tian et al. 2019
(arXiv 1904.01355). Label 0 is torchvision's background, so labels are shifted by one on the way in and out.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from projects.detection.config import Config
from projects.detection.detector import Detector, Targets, hide_ignored
from projects.detection.nms import keep_best, suppress

_MIN_PROPOSAL_PIXELS, _MIN_BOX_PIXELS = 1e-3, 1e-2  # boxes with a shorter side are left out, as in torchvision
# Parts of a backbone that keep the weights they are given: torchvision's defaults for fine-tuning.
FROZEN = {
    "ssdlite320_mobilenet_v3_large": (),
    "fasterrcnn_mobilenet_v3_large_320_fpn": tuple(f"body.{block}." for block in range(7)),
    "retinanet_resnet50_fpn_v2": ("body.conv1.", "body.layer1."),
    "fcos_resnet50_fpn": ("body.conv1.", "body.layer1."),
}


def build_torchvision(config: Config, num_classes: int) -> Detector:
    """The network of that name; with --weights, its first layers and its norms are frozen."""
    prefix = "box_" if config.model.startswith("fasterrcnn") else ""
    limits = {
        f"{prefix}score_thresh": config.score_threshold,
        f"{prefix}nms_thresh": config.overlap,
        f"{prefix}detections_per_img": config.max_boxes,
    }
    build = getattr(torchvision.models.detection, config.model)
    model = build(weights=None, weights_backbone=None, num_classes=num_classes + 1, **limits)
    if config.weights != "none":
        _freeze(model.backbone, FROZEN[config.model])
    return wrap(model)


def _freeze(backbone: nn.Module, parts: Sequence[str]) -> None:
    """Fixes the weights of some parts, and the statistics of all norms: batches of detection are too small for them."""
    for name, module in [*backbone.named_modules()]:
        if isinstance(module, nn.BatchNorm2d):
            parent, _, attribute = name.rpartition(".")
            fixed = torchvision.ops.FrozenBatchNorm2d(module.num_features, eps=module.eps)
            setattr(backbone.get_submodule(parent), attribute, fixed)
    for name, parameter in backbone.named_parameters():
        if name.startswith(tuple(parts)):
            parameter.requires_grad_(False)


def wrap(model: Any) -> Detector:
    """The detector for one of torchvision's models, by its class."""
    kinds = {"SSD": Ssd, "FasterRCNN": FasterRcnn, "RetinaNet": RetinaNet, "FCOS": Fcos}
    return kinds[type(model).__name__](model)


class _WholeCanvas(nn.Module):
    """In place of torchvision's transform: images are batched, normalized and resized already."""

    def forward(self, images: Tensor, targets: Any = None) -> tuple[ImageList, Any]:
        """The images with the size that all of them have."""
        return _image_list(images), targets

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        """Boxes as they are."""
        return result


def _image_list(images: Tensor) -> ImageList:
    """A batch as torchvision's parts take it."""
    return ImageList(images, [(images.shape[2], images.shape[3])] * images.shape[0])


class TorchvisionDetector(Detector):
    """What the four have in common: training is torchvision's own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.statistics = tuple(model.transform.image_mean), tuple(model.transform.image_std)
        model.transform = _WholeCanvas()
        for part in self.float_parts():
            part.register_forward_hook(_to_float)

    def float_parts(self) -> list[nn.Module]:
        """Parts whose outputs become float32 where autocast shortened them: bfloat16 has too few digits for boxes."""
        return [self.model.backbone, self.model.head]

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """torchvision's losses by name. What is in ignored boxes is hidden, as these losses know none."""
        theirs = [
            {"boxes": boxes[counted], "labels": labels[counted] + 1}
            for boxes, labels, counted in zip(targets.boxes, targets.labels, targets.counted, strict=True)
        ]
        losses: dict[str, Tensor] = self.model(hide_ignored(images, targets), theirs)
        return losses

    def head_outputs(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor, list[int]]:
        """The outputs of the head, the anchors [A, 4], and how many of them each level has."""
        features = list(self.model.backbone(images).values())
        anchors = self.model.anchor_generator(_image_list(images[:1]), features)[0]
        cells = [level.shape[2] * level.shape[3] for level in features]
        per_cell = len(anchors) // sum(cells)
        return self.model.head(features), anchors, [num * per_cell for num in cells]

    def best_of_levels(self, scores: Tensor, levels: list[int]) -> Tensor:
        """Scores [N, A, C] with all but the best of each level at 0, as [N, C, A]; the background is left out."""
        scores = scores[:, :, 1:]
        kept = [
            keep_best(level.flatten(1), self.model.topk_candidates).reshape(level.shape)
            for level in scores.split_with_sizes(levels, 1)
        ]
        return torch.cat(kept, dim=1).transpose(1, 2)


class Ssd(TorchvisionDetector):
    """Boxes relative to anchors, softmax over classes, the best of each class."""

    # Of depthwise filters that take a single pixel in steps of two, as in the last maps of small images, PyTorch 2.15
    # leaves the gradient unset on a CPU in bfloat16 and channels_last: it is whatever the memory held.
    channels_last = False

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """torchvision's losses by name."""
        return super().forward(images.contiguous(), targets)

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """boxes [N, A, 4], scores [N, C, A]."""
        outputs, anchors, _ = self.head_outputs(images)
        scores = outputs["cls_logits"].softmax(-1)[:, :, 1:].transpose(1, 2)
        boxes = _decode(self.model.box_coder, outputs["bbox_regression"], anchors)
        return _within(boxes, images), keep_best(scores, self.model.topk_candidates)


class RetinaNet(TorchvisionDetector):
    """Boxes relative to anchors, a sigmoid for each class, the best of each level."""

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """boxes [N, A, 4], scores [N, C, A]."""
        outputs, anchors, levels = self.head_outputs(images)
        boxes = _decode(self.model.box_coder, outputs["bbox_regression"], anchors)
        return _within(boxes, images), self.best_of_levels(outputs["cls_logits"].sigmoid(), levels)


class Fcos(TorchvisionDetector):
    """Distances to four edges, and the geometric mean of class and center-ness, the best of each level."""

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """boxes [N, A, 4], scores [N, C, A]."""
        outputs, anchors, levels = self.head_outputs(images)
        scores = (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()
        boxes = self.model.box_coder.decode(outputs["bbox_regression"], anchors)
        return _within(boxes, images), self.best_of_levels(scores, levels)


class FasterRcnn(TorchvisionDetector):
    """Proposals of a first network, looked at one by one by a second, which has a box for each class."""

    def float_parts(self) -> list[nn.Module]:
        """Features, and what both networks say."""
        return [self.model.backbone, self.model.rpn.head, self.model.roi_heads.box_predictor]

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """boxes [N, C, P, 4], scores [N, C, P]."""
        features = self.model.backbone(images)
        proposals, there = self.propose(images, list(features.values()))
        heads, (num, num_proposals) = self.model.roi_heads, there.shape
        numbers = torch.arange(num, device=images.device, dtype=proposals.dtype)[:, None].expand(-1, num_proposals)
        rois = torch.cat([numbers[..., None], proposals], dim=2).reshape(-1, 5)
        levels = [level for name, level in features.items() if name in heads.box_roi_pool.featmap_names]
        pooled = self.pool(levels, rois, images)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        boxes = heads.box_coder.decode_single(deltas, rois[:, 1:]).reshape(num, num_proposals, -1, 4)
        boxes = _within(boxes[:, :, 1:].transpose(1, 2), images)
        scores = logits.softmax(-1).reshape(num, num_proposals, -1)[:, :, 1:].transpose(1, 2)
        good = there[:, None] & ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= _MIN_BOX_PIXELS)
        return boxes, torch.where(good, scores, 0)

    def propose(self, images: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The proposals of the first network [N, P, 4], and which of them are there [N, P]."""
        rpn = self.model.rpn
        objectness, deltas = rpn.head(features)
        anchors = rpn.anchor_generator(_image_list(images[:1]), features)[0]
        levels = [level.shape[1] * level.shape[2] * level.shape[3] for level in objectness]
        flat_scores, flat_deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = _within(_decode(rpn.box_coder, flat_deltas.reshape(-1, len(anchors), 4), anchors), images)
        scores = flat_scores.reshape(-1, len(anchors)).sigmoid()
        good = (scores >= rpn.score_thresh) & ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= _MIN_PROPOSAL_PIXELS)
        scores = torch.where(good, scores, 0)
        kept = [
            suppress(some_boxes, keep_best(some_scores, rpn.pre_nms_top_n())[:, None], rpn.nms_thresh, 0.0)[:, 0]
            for some_boxes, some_scores in zip(
                boxes.split_with_sizes(levels, 1), scores.split_with_sizes(levels, 1), strict=True
            )
        ]
        best, index = torch.cat(kept, 1).topk(min(rpn.post_nms_top_n(), len(anchors)), dim=1)
        return boxes.gather(1, index[..., None].expand(-1, -1, 4)), best > 0

    def pool(self, features: list[Tensor], rois: Tensor, images: Tensor) -> Tensor:
        """A patch of features for each proposal, from the level that its size belongs to (arXiv 1612.03144, eq. 1)."""
        pooler = self.model.roi_heads.box_roi_pool
        steps = [_round_log2(images.shape[2] / level.shape[2]) for level in features]
        size = (rois[:, 3:5] - rois[:, 1:3]).prod(1).sqrt()
        wanted = torch.floor(pooler.canonical_level + torch.log2(size / pooler.canonical_scale) + 1e-6)
        # Where two levels have one stride, torchvision takes the first of them for every proposal.
        number = wanted.clamp(min=steps[0], max=steps[-1]) - steps[0]
        pooled = [
            torchvision.ops.roi_align(level, rois, pooler.output_size, 2.0**-step, pooler.sampling_ratio)
            * (number == index)[:, None, None, None]
            for index, (level, step) in enumerate(zip(features, steps, strict=True))
        ]
        return torch.stack(pooled).sum(0)


def _decode(coder: Any, deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes [N, A, 4] in pixels from the head's regression [N, A, 4] relative to anchors [A, 4]."""
    every = anchors.expand(deltas.shape[0], -1, -1).reshape(-1, 4)
    boxes: Tensor = coder.decode_single(deltas.reshape(-1, 4), every).reshape(deltas.shape)
    return boxes


def _within(boxes: Tensor, images: Tensor) -> Tensor:
    """Boxes [..., 4] cut at the borders of the canvas."""
    limits = boxes.new_tensor([images.shape[3], images.shape[2]] * 2)
    return torch.minimum(boxes.clamp(min=0), limits)


def _round_log2(ratio: float) -> int:
    """The nearest power of two, as its exponent: a level's stride where rounding has changed its size."""
    return round(math.log2(ratio))


def _to_float(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """A forward hook: tensors in tuples, lists and dicts as float32."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return type(outputs)((key, _to_float(module, inputs, value)) for key, value in outputs.items())
    return type(outputs)(_to_float(module, inputs, value) for value in outputs)
