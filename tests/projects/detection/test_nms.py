"""Boxes are chosen as torchvision chooses them, for any batch, and what is behind the last one is empty."""

import pytest
import torch
import torchvision
from torch import Tensor

from projects.detection.nms import Detections, Rule, keep_best, select, suppress

RULE = Rule(score_threshold=0.3, overlap=0.5, max_boxes=20)


def candidates(num: int = 3, num_classes: int = 4, num_boxes: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes that overlap much, and scores of all heights."""
    generator = torch.Generator().manual_seed(seed)
    corners = 50 * torch.rand(num, num_boxes, 2, generator=generator)
    sizes = 5 + 30 * torch.rand(num, num_boxes, 2, generator=generator)
    return torch.cat([corners, corners + sizes], 2), torch.rand(num, num_classes, num_boxes, generator=generator)


def chosen_by_torchvision(boxes: Tensor, scores: Tensor, rule: Rule) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The same by torchvision, image by image; boxes [N, C, M, 4]."""
    result = []
    for image in range(len(scores)):
        labels, rows = (scores[image] > rule.score_threshold).nonzero().unbind(1)
        some, values = boxes[image, labels, rows], scores[image, labels, rows]
        kept = torchvision.ops.batched_nms(some, values, labels, rule.overlap)[: rule.max_boxes]
        result.append((some[kept], values[kept], labels[kept]))
    return result


def check(result: Detections, expected: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    for image, (boxes, scores, labels) in enumerate(expected):
        num = int(result.num[image])
        assert num == len(boxes)
        assert torch.equal(result.boxes[image, :num], boxes)
        assert torch.equal(result.scores[image, :num], scores)
        assert torch.equal(result.labels[image, :num], labels)
        assert not result.boxes[image, num:].any()
        assert not result.scores[image, num:].any()
        assert (result.labels[image, num:] == -1).all()


@pytest.mark.parametrize("threshold", [0.3, 0.97])
def test_boxes_that_classes_share_are_chosen_as_torchvision_does(threshold: float) -> None:
    boxes, scores = candidates()
    rule = RULE._replace(score_threshold=threshold)
    every = boxes[:, None].expand(-1, 4, -1, -1)
    check(select(boxes, scores, rule), chosen_by_torchvision(every, scores, rule))


def test_boxes_of_each_class_are_chosen_as_torchvision_does() -> None:
    boxes, scores = candidates(num=8, num_classes=1)
    boxes, scores = boxes.reshape(2, 4, 60, 4), scores.reshape(2, 4, 60)
    check(select(boxes, scores, RULE), chosen_by_torchvision(boxes, scores, RULE))


def test_without_a_detection_everything_is_empty() -> None:
    boxes, scores = candidates()
    result = select(boxes, 0.2 * scores, RULE)
    assert result.num.tolist() == [0, 0, 0]
    assert (result.labels == -1).all()
    assert not result.boxes.any()
    assert result.boxes.shape == (3, 20, 4)


def test_fewer_candidates_than_places_are_no_error() -> None:
    boxes, scores = candidates(num_boxes=3)
    result = select(boxes, scores, RULE)
    assert result.boxes.shape == (3, 12, 4)
    assert (result.num <= 12).all()


def test_of_two_equal_boxes_one_stays_and_of_two_classes_both() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10]]])
    scores = torch.tensor([[[0.9, 0.8], [0.0, 0.7]]])
    result = select(boxes, scores, RULE)
    assert (result.num.tolist(), result.labels[0, :2].tolist()) == ([2], [0, 1])


def test_only_the_best_scores_are_kept() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7]])
    assert keep_best(scores, 2).tolist() == [[0, scores[0, 1], 0, scores[0, 3]]]
    assert keep_best(scores, 4) is scores


def test_the_operation_keeps_its_promises_to_pytorch() -> None:
    boxes, scores = candidates(num=2, num_boxes=9)
    torch.library.opcheck(suppress, (boxes, scores, 0.5, 0.3), raise_exception=True)
