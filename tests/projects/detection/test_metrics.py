"""The numbers are COCO's: checked against cases that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from projects.detection.annotations import UNKNOWN_LABEL, AnnotatedImage, annotated_image
from projects.detection.metrics import IOU_50, Predictions, evaluate
from projects.detection.plots import save_boxes, save_precision_recall

BOX = (10.0, 10.0, 50.0, 50.0)


def truth(*objects: tuple[tuple[float, ...], int, bool]) -> AnnotatedImage:
    return annotated_image(Path("x.png"), "x", (100, 100), objects)


def predicted(*detections: tuple[tuple[float, ...], float, int]) -> Predictions:
    boxes = np.array([box for box, _, _ in detections], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in detections], np.float32)
    return Predictions(boxes, scores, np.array([label for _, _, label in detections], np.int64))


def test_everything_found_is_1_and_nothing_found_is_0() -> None:
    truths = [truth((BOX, 0, False)), truth((BOX, 1, False)), truth()]
    right = evaluate(truths, [predicted((BOX, 0.9, 0)), predicted((BOX, 0.4, 1)), predicted()], 2)
    assert right.numbers() == {"map": pytest.approx(1), "ap50": pytest.approx(1), "ap75": pytest.approx(1)}
    assert evaluate(truths, [predicted()] * 3, 2).numbers() == {"map": 0, "ap50": 0, "ap75": 0}


def test_a_box_that_fits_by_0_6_counts_at_50_and_not_at_75() -> None:
    wide = (10.0, 10.0, 50.0, 34.0)  # 40 by 24 of 40 by 40: an IoU of 0.6
    numbers = evaluate([truth((BOX, 0, False))], [predicted((wide, 0.9, 0))], 1).numbers()
    assert numbers["ap50"] == pytest.approx(1)
    assert numbers["ap75"] == 0
    assert numbers["map"] == pytest.approx(0.3)  # of ten IoUs, 0.50, 0.55 and 0.60


def test_another_class_in_the_right_place_is_wrong() -> None:
    scores = evaluate([truth((BOX, 0, False))], [predicted((BOX, 0.9, 1))], 2)
    assert scores.average(IOU_50, 0) == 0
    assert np.isnan(scores.average(IOU_50, 1))  # no image has that class
    assert scores.average(IOU_50) == 0


def test_a_false_box_with_a_better_score_halves_the_precision() -> None:
    elsewhere = (60.0, 60.0, 90.0, 90.0)
    scores = evaluate([truth((BOX, 0, False))], [predicted((elsewhere, 0.9, 0), (BOX, 0.5, 0))], 1)
    assert scores.average(IOU_50) == pytest.approx(0.5)
    later = evaluate([truth((BOX, 0, False))], [predicted((elsewhere, 0.3, 0), (BOX, 0.5, 0))], 1)
    assert later.average(IOU_50) == pytest.approx(1)


def test_a_second_box_on_the_same_thing_is_false() -> None:
    two = predicted((BOX, 0.9, 0), (BOX, 0.8, 0))
    elsewhere = (60.0, 60.0, 90.0, 90.0)
    scores = evaluate([truth((BOX, 0, False), (elsewhere, 0, False))], [two], 1)
    assert scores.average(IOU_50) == pytest.approx(51 / 101)


def test_what_is_not_to_be_counted_is_neither_found_nor_missed() -> None:
    elsewhere = (60.0, 60.0, 90.0, 90.0)
    truths = [truth((BOX, 0, False), (elsewhere, 0, True))]
    for detections in (predicted((BOX, 0.5, 0)), predicted((BOX, 0.5, 0), (elsewhere, 0.9, 0))):
        assert evaluate(truths, [detections], 1).average() == pytest.approx(1)


def test_the_threshold_separates_right_from_wrong() -> None:
    elsewhere = (60.0, 60.0, 90.0, 90.0)
    truths = [truth((BOX, 0, False)) for _ in range(10)]
    detections = [predicted((BOX, 0.7 + 0.02 * k, 0), (elsewhere, 0.1 + 0.03 * k, 0)) for k in range(10)]
    assert 0.37 < evaluate(truths, detections, 1).best_threshold() <= 0.7


def test_without_a_detection_there_is_still_a_threshold() -> None:
    assert 0 < evaluate([truth((BOX, 0, False))], [predicted()], 1).best_threshold() < 1


def test_classes_count_alike_however_many_boxes_they_have() -> None:
    many = [((float(x), 0.0, x + 8.0, 8.0), 0, False) for x in range(0, 90, 10)]
    truths = [truth(*many, (BOX, 1, False))]
    scores = evaluate(truths, [predicted((BOX, 0.9, 1))], 2)
    assert scores.average(IOU_50) == pytest.approx(0.5)


def test_an_ignored_object_of_unknown_class_is_ignored_for_every_class() -> None:
    elsewhere = (60.0, 60.0, 90.0, 90.0)
    truths = [truth((BOX, 0, False), (BOX, 1, False), (elsewhere, UNKNOWN_LABEL, True))]
    predictions = predicted((BOX, 0.5, 0), (BOX, 0.5, 1), (elsewhere, 0.9, 0), (elsewhere, 0.9, 1))
    assert evaluate(truths, [predictions], 2).average() == pytest.approx(1)


def test_class_names_of_any_characters_are_drawn(tmp_path: Path) -> None:
    scores = evaluate([truth((BOX, 0, False), (BOX, 1, False))], [predicted((BOX, 0.9, 0))], 2)
    save_precision_recall(scores, ["$x_", "_\u00e9"], tmp_path / "curve.png")
    image, predictions = truth((BOX, 0, False), (BOX, UNKNOWN_LABEL, True)), predicted((BOX, 0.9, 1))
    pixels = np.zeros((100, 100, 3), np.uint8)
    save_boxes([(pixels, image, predictions)], ["$x_", "a\x1b\nb"], 0.3, tmp_path / "boxes.png")
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "boxes.png"}
