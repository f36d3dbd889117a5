"""Points learn the boxes they should, and each loss is what its paper says."""

import pytest
import torch
import torchvision
from torch import Tensor

from projects.detection.detector import Targets
from projects.detection.loss import BACKGROUND, IGNORED, Points, assign, ious, losses
from projects.detection.model import STRIDES, grid

SIDE = 128


def points() -> Points:
    levels = [grid(SIDE // stride, SIDE // stride, stride, torch.device("cpu")) for stride in STRIDES]
    strides = [torch.full((len(level),), float(stride)) for level, stride in zip(levels, STRIDES, strict=True)]
    return Points(torch.cat(levels), torch.cat(strides))


def target(boxes: list[list[float]], labels: list[int], ignored: list[bool] | None = None) -> Targets:
    """The objects of one image."""
    drawn = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    is_ignored = torch.tensor(ignored or [False] * len(labels), dtype=torch.bool)
    return Targets.of([(drawn, torch.tensor(labels, dtype=torch.int64), is_ignored)])


def assigned(targets: Targets) -> tuple[Tensor, Tensor]:
    """Labels [M] and boxes [M, 4] of the points of one image."""
    labels, boxes = assign(points(), targets)
    return labels[0], boxes[0]


def responsible(box: list[float]) -> tuple[Tensor, Tensor]:
    """Centers and strides of the points that have to find a box."""
    every = points()
    labels, _ = assigned(target([box], [2]))
    assert set(labels.tolist()) <= {2, BACKGROUND}
    return every.centers[labels == 2], every.strides[labels == 2]


def test_the_points_of_a_box_lie_near_its_center_and_inside() -> None:
    centers, strides = responsible([20, 30, 60, 62])
    assert len(centers) >= 4
    assert set(strides.tolist()) == {8.0}
    assert ((centers - torch.tensor([40.0, 46.0])).abs() < 1.5 * 8).all()


@pytest.mark.parametrize(("side", "stride"), [(12, 8), (40, 8), (80, 8), (81, 16), (126, 16)])
def test_small_boxes_belong_to_fine_levels_and_large_ones_to_coarse(side: int, stride: int) -> None:
    _, strides = responsible([1, 1, 1.0 + side, 11.0])
    assert set(strides.tolist()) == {stride}


def test_a_point_between_two_boxes_belongs_to_the_nearer_center_and_a_small_box_keeps_its_points() -> None:
    every = points()
    drawn: list[list[float]] = [[10.0, 10, 70, 70], [26, 10, 86, 70], [100, 92, 116, 108], [88, 80, 128, 120]]
    labels, boxes = assigned(target(drawn, [0, 1, 2, 0]))
    for x, y, number in ((36, 36, 0), (44, 36, 0), (52, 36, 1), (60, 36, 1), (108, 100, 2)):
        point = (every.centers == torch.tensor([float(x), float(y)])).all(1) & (every.strides == 8)
        assert labels[point].tolist() == [number]
        assert boxes[point].tolist() == [drawn[number]]
    assert (boxes[labels == 0] == torch.tensor([88.0, 80, 128, 120])).all(1).any()


def test_points_within_a_box_that_is_not_counted_learn_nothing() -> None:
    every = points()
    labels, _ = assigned(target([[16, 16, 64, 64], [80, 80, 112, 112]], [0, 1], [True, False]))
    inside = ((every.centers > 16) & (every.centers < 64)).all(1)
    assert (labels[inside] == IGNORED).all()
    assert (labels == 1).any()
    assert set(labels[~inside].tolist()) == {BACKGROUND, 1}


def test_an_image_without_boxes_is_all_background() -> None:
    labels, boxes = assigned(target([], []))
    assert (labels == BACKGROUND).all()
    assert boxes.shape == (len(labels), 4)


def test_ious_are_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(50, 4, generator=generator) * 20 for _ in range(2))
    a, b = (torch.cat([each[:, :2], each[:, :2] + each[:, 2:] + 0.1], 1) for each in (a, b))
    iou, generalized = ious(a, b)
    torch.testing.assert_close(iou, torchvision.ops.box_iou(a, b).diagonal())
    torch.testing.assert_close(generalized, torchvision.ops.generalized_box_iou(a, b).diagonal())


def predictions(truth: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """What a perfect network would say: logits, boxes, fits."""
    labels, boxes = assigned(truth)
    logits = torch.full((1, len(labels), 3), -12.0)
    logits[0, torch.arange(len(labels))[labels >= 0], labels[labels >= 0]] = 12.0
    return logits, boxes[None], torch.full((1, len(labels)), 12.0)


def test_a_perfect_answer_costs_nothing_and_each_mistake_its_own_loss() -> None:
    truth = target([[20, 30, 60, 62], [70, 70, 120, 120]], [0, 2])
    logits, boxes, fits = predictions(truth)
    perfect = losses(logits, boxes, fits, points(), truth)
    assert all(float(value) < 1e-3 for value in perfect.values())
    assert float(losses(-logits, boxes, fits, points(), truth)["class"]) > 1
    assert float(losses(logits, boxes + 9, fits, points(), truth)["box"]) > 0.3
    assert float(losses(logits, boxes, -fits, points(), truth)["fit"]) > 1


def test_what_is_said_within_an_uncounted_box_costs_nothing() -> None:
    truth = target([[16, 16, 64, 64], [80, 80, 112, 112]], [0, 1], [True, False])
    logits, boxes, fits = predictions(truth)
    labels, _ = assigned(truth)
    before = losses(logits, boxes, fits, points(), truth)["class"]
    logits[0, labels == IGNORED] = 12.0
    assert torch.equal(losses(logits, boxes, fits, points(), truth)["class"], before)


def test_a_batch_without_any_box_has_a_finite_loss_and_gradient() -> None:
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    logits = torch.zeros(2, len(points().strides), 3, requires_grad=True)
    boxes = torch.zeros(2, len(points().strides), 4, requires_grad=True)
    fits = torch.zeros(2, len(points().strides), requires_grad=True)
    result = losses(logits, boxes, fits, points(), Targets.of([nothing, nothing]))
    torch.stack(list(result.values())).sum().backward()
    assert float(result["box"].detach()) == float(result["fit"].detach()) == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_images_share_a_batch_without_a_difference_and_slots_are_few() -> None:
    """An image's points get what they would get alone, whatever the others hold."""
    drawn: list[list[list[float]]] = [[[20, 30, 60, 62]], [[8.0 * n, 8, 8.0 * n + 12, 40] for n in range(9)], []]
    objects = [target(boxes, [n % 3 for n in range(len(boxes))]) for boxes in drawn]
    together = Targets.of(
        [tuple(part[0, : len(boxes)] for part in each) for each, boxes in zip(objects, drawn, strict=True)]
    )
    assert together.labels.shape == (3, 16)
    labels, boxes = assign(points(), together)
    for number, each in enumerate(objects):
        alone, of_alone = assigned(each)
        assert torch.equal(labels[number], alone)
        assert torch.equal(boxes[number, alone >= 0], of_alone[alone >= 0])
