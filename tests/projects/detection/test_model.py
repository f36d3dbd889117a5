"""The small network has an output for each point, overfits one batch, and gives the same output in any batch."""

import pytest
import torch
from torch import Tensor

from core.evaluation import evaluating
from projects.detection.detector import Targets
from projects.detection.model import STRIDES, Small, grid
from projects.detection.nms import Rule, select

WIDTHS = (8, 16, 24, 32, 40)


def tiny(num_classes: int = 2) -> Small:
    torch.manual_seed(0)
    return Small(num_classes, WIDTHS, features=24, depth=1)


def batch(num: int = 4) -> tuple[Tensor, Targets]:
    """Dark images of 96 by 64 pixels, each with two bright rectangles of two kinds."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(num, 3, 64, 96, generator=generator)
    objects = []
    for image in images:
        boxes = []
        for label in range(2):
            x, y = (int(torch.randint(0, high, (1,), generator=generator)) for high in (22, 40))
            x += 48 * label
            image[label, y : y + 22, x : x + 26] += 2
            boxes.append([x, y, x + 26, y + 22])
        drawn = torch.tensor(boxes, dtype=torch.float32)
        objects.append((drawn, torch.arange(2), torch.zeros(2, dtype=torch.bool)))
    return images, Targets.of(objects)


def test_every_point_of_every_level_has_an_output() -> None:
    network = tiny(num_classes=5).eval()
    with torch.no_grad():
        logits, boxes, fits, points = network.predict(torch.randn(2, 3, 64, 96))
    num = sum(64 * 96 // stride**2 for stride in STRIDES)
    assert logits.shape == (2, num, 5)
    assert boxes.shape == (2, num, 4)
    assert fits.shape == (2, num)
    assert points.centers.shape == (num, 2)
    assert points.strides.unique().tolist() == [8, 16, 32]
    inside = (boxes[..., :2] < points.centers) & (points.centers < boxes[..., 2:])
    assert inside.all()


def test_candidates_lie_on_the_canvas_with_scores_between_0_and_1() -> None:
    network = tiny().eval()
    assert network.box_output.bias is not None
    torch.nn.init.constant_(network.box_output.bias[:4], 4.0)  # boxes that reach far beyond it
    with torch.no_grad():
        boxes, scores = network.candidates(torch.randn(2, 3, 64, 96))
    assert float(boxes.min()) == 0
    assert boxes[..., 0::2].max() == 96
    assert boxes[..., 1::2].max() == 64
    assert scores.shape[:2] == (2, 2)
    assert 0 < float(scores.max()) <= 1


def test_points_stand_in_the_middle_of_their_cells() -> None:
    centers = grid(2, 3, 8, torch.device("cpu"))
    assert centers.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_at_first_nearly_everything_is_background() -> None:
    images, _ = batch()
    with evaluating(network := tiny()):
        logits, _, _, _ = network.predict(images)
    assert float(logits.sigmoid().mean()) == pytest.approx(0.01, abs=0.005)


def test_one_batch_is_overfitted_and_its_boxes_are_found() -> None:
    network, (images, targets) = tiny(), batch()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    first = last = 0.0
    for step in range(90):
        loss = torch.stack(list(network(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = float(loss.detach())
        first = last if step == 0 else first
    assert last < 0.35 * first
    network.train()  # with the batch's own statistics: few steps do not settle the running ones
    with torch.no_grad():
        result = select(*network.candidates(images), Rule(0.3, 0.5, 10))
    for number in range(len(images)):
        boxes, labels = result.boxes[number, : result.num[number]], result.labels[number, : result.num[number]]
        for box, label in zip(targets.boxes[number, :2], targets.labels[number, :2], strict=True):
            assert any((boxes[labels == label] - box).abs().amax(1) < 6), (box, boxes, labels)


def test_an_image_has_the_same_output_alone_and_among_others() -> None:
    images, _ = batch()
    with evaluating(network := tiny()):
        together, alone = network.candidates(images), network.candidates(images[2:3])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=1e-4, atol=1e-4)


def test_every_weight_gets_a_gradient() -> None:
    network, (images, targets) = tiny(), batch()
    for block in network.modules():
        if isinstance(block, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(block.weight)
    targets.boxes[0, 0] = torch.tensor([1.0, 1, 95, 63])  # one of the coarsest level
    torch.stack(list(network(images, targets).values())).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
