"""torchvision's models find with our choice of boxes what they find on their own; they train; parts stay frozen."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from core.accelerator import Accelerator
from projects.detection.config import Config
from projects.detection.detector import Detector, Targets, hide_ignored
from projects.detection.nms import Rule, select
from projects.detection.torchvision_models import FROZEN, build_torchvision, wrap

KINDS = ("ssd", "fasterrcnn", "retinanet", "fcos")
RULE = Rule(score_threshold=0.3, overlap=0.5, max_boxes=50)
NUM_CLASSES = 3


class Backbone(nn.Module):
    """Two levels of strides 8 and 16, as torchvision's pyramids give them."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.out_channels = channels
        self.stem = nn.Conv2d(3, channels, 5, stride=8, padding=2)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        fine = torch.relu(self.stem(x))
        return OrderedDict([("0", fine), ("1", torch.relu(self.down(fine)))])


def tiny(kind: str) -> Detector:
    """A model of torchvision's class round a tiny backbone, with weights that tell many scores apart."""
    torch.manual_seed(0)
    backbone, num = Backbone(), NUM_CLASSES + 1
    sizes = tuple((size, round(1.4 * size)) for size in (16, 40))
    limits = {"nms_thresh": RULE.overlap, "detections_per_img": RULE.max_boxes, "score_thresh": RULE.score_threshold}
    model: Any
    if kind == "ssd":
        anchors: Any = DefaultBoxGenerator([[2], [2]])
        head = SSDHead([32] * 2, anchors.num_anchors_per_location(), num)
        model = SSD(backbone, anchors, (96, 128), num, head=head, **limits)
    elif kind == "fasterrcnn":
        anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2)
        pool = MultiScaleRoIAlign(["0", "1"], 3, 2, canonical_scale=64)
        named = {f"box_{name}": value for name, value in limits.items()}
        model = FasterRCNN(backbone, num, rpn_anchor_generator=anchors, box_roi_pool=pool, **named)
    elif kind == "retinanet":
        model = RetinaNet(backbone, num, anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2), **limits)
    else:
        anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
        model = FCOS(backbone, num, anchor_generator=anchors, **limits)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            spread = 2.0 if "cls_score" in name else 0.7
            nn.init.normal_(parameter, std=spread * parameter[0].numel() ** -0.5)
    if kind in ("retinanet", "fcos"):  # they have a class 0 too, which no image ever has
        bias = model.head.classification_head.cls_logits.bias.detach()
        bias.fill_(0.0).view(-1, num)[:, 0] = -30
    return wrap(model).eval()


def images(num: int = 3) -> Tensor:
    return 2 * torch.randn(num, 3, 96, 128, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_boxes_are_found_as_by_torchvision_itself(kind: str) -> None:
    detector = tiny(kind)
    with torch.no_grad():
        expected = detector.get_submodule("model")(images())
        result = select(*detector.candidates(images()), RULE)
    assert sum(len(each["boxes"]) for each in expected) > 20
    for number, theirs in enumerate(expected):
        num = int(result.num[number])
        assert num == len(theirs["boxes"])
        torch.testing.assert_close(result.scores[number, :num], theirs["scores"], rtol=0, atol=1e-5)
        assert torch.equal(result.labels[number, :num] + 1, theirs["labels"])
        torch.testing.assert_close(result.boxes[number, :num], theirs["boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_found_nothing_is_given(kind: str) -> None:
    detector = tiny(kind)
    with torch.no_grad():
        result = select(*detector.candidates(images()), RULE._replace(score_threshold=0.9999))
    assert result.num.tolist() == [0, 0, 0]


def targets(num: int) -> Targets:
    """Two boxes and one that is not counted in each image; in the last one none."""
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 120, 90], [0, 0, 9, 9]])
    every = boxes, torch.tensor([0, 2, 1]), torch.tensor([False, False, True])
    return Targets.of([every] * (num - 1) + [(every[0][:0], every[1][:0], every[2][:0])])


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_finite_and_a_step_makes_them_fall(kind: str) -> None:
    detector = tiny(kind).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    values = []
    for _ in range(4):
        torch.manual_seed(0)  # Faster R-CNN looks at a random part of its proposals
        loss = torch.stack(list(detector(images(), targets(3)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
        values.append(float(loss.detach()))
    assert all(value == value and value < 1e6 for value in values)
    assert values[-1] < values[0]


@pytest.mark.parametrize("kind", KINDS)
def test_under_bf16_boxes_keep_all_their_digits(kind: str) -> None:
    detector = tiny(kind)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes, scores = detector.candidates(images())
    assert boxes.dtype == scores.dtype == torch.float32
    coarse = (boxes == boxes.bfloat16()).float().mean()
    assert float(coarse) < 0.9


@pytest.mark.parametrize("name", FROZEN)
def test_named_models_are_built_for_the_users_classes_and_find_boxes_as_torchvision_does(name: str) -> None:
    torch.manual_seed(0)
    settings = Config(model=name, score_threshold=0.001, overlap=0.6, max_boxes=30)  # type: ignore[arg-type]
    detector = build_torchvision(settings, NUM_CLASSES).eval()
    model: Any = detector.get_submodule("model")
    heads = model.roi_heads.box_predictor.cls_score if name.startswith("faster") else model.head.classification_head
    if name.startswith(("retina", "fcos")):
        heads.cls_logits.bias.detach().view(-1, NUM_CLASSES + 1)[:, 0] = -30
    for module in model.backbone.modules():  # features that tell places apart, where fresh ones hardly do
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    image = images(1)[:, :, :64, :64]
    with torch.no_grad():
        expected, result = model(image)[0], select(*detector.candidates(image), rule_of(settings))
    assert int(result.num[0]) == len(expected["boxes"])
    assert result.labels.max() < NUM_CLASSES
    torch.testing.assert_close(result.scores[0, : result.num[0]], expected["scores"], rtol=0, atol=1e-5)


def rule_of(config: Config) -> Rule:
    return Rule(config.score_threshold, config.overlap, config.max_boxes)


@pytest.mark.parametrize("name", FROZEN)
def test_with_weights_a_beginning_is_frozen_and_norms_keep_their_statistics(name: str) -> None:
    detector = build_torchvision(Config(model=name, weights="coco"), NUM_CLASSES)  # type: ignore[arg-type]
    backbone = detector.get_submodule("model.backbone")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in backbone.modules())
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (not parameter_name.startswith(FROZEN[name]))
    assert any(parameter.requires_grad for parameter in backbone.parameters())


def test_ssdlite_has_the_same_gradients_each_time_where_its_last_maps_are_one_pixel() -> None:
    torch.manual_seed(0)
    detector = build_torchvision(Config(model="ssdlite320_mobilenet_v3_large"), NUM_CLASSES)
    accelerator = Accelerator(device="cpu", precision="bf16")
    accelerator.prepare(detector, channels_last=detector.channels_last)
    batch = torch.rand(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    targets = Targets.of([(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([0]), torch.tensor([False]))] * 4)

    def gradients() -> dict[str, Tensor]:
        detector.zero_grad()
        with accelerator.autocast():
            losses = detector(batch, targets)
        sum(losses.values(), torch.zeros(())).backward()
        return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}

    first = gradients()
    assert all(each.isfinite().all() for each in first.values())
    for _ in range(4):
        assert [name for name, each in gradients().items() if not torch.equal(each, first[name])] == []


def test_what_is_in_an_ignored_box_is_hidden_from_training_apart_from_other_boxes() -> None:
    boxes = torch.tensor([[10.0, 10, 50, 60], [40, 50, 70, 90]])
    objects = boxes, torch.tensor([0, -1]), torch.tensor([False, True])
    hidden = hide_ignored(images(1), Targets.of([objects]))[0]
    expected = images(1)[0]
    expected[:, 50:90, 40:70] = 0
    expected[:, 50:60, 40:50] = images(1)[0, :, 50:60, 40:50]
    assert torch.equal(hidden, expected)
    assert hide_ignored(images(1), Targets.of([(boxes[:1], objects[1][:1], objects[2][:1])])).equal(images(1))
