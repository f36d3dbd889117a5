"""What a user should know of annotated images before a training: classes without boxes, copies, boxes too small."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from projects.detection.annotations import AnnotatedImage
from projects.detection.augment import MIN_SIDE_PIXELS, fitted_size
from projects.detection.config import LARGEST_IMAGE_SIZE, STRIDE

Images = Mapping[str, Sequence[AnnotatedImage]]  # by split: train, val, test


def class_notes(splits: Images, classes: Sequence[str]) -> list[str]:
    """A line for each split in which a class has no box that counts."""
    notes = []
    for split, images in splits.items():
        there = {int(label) for image in images for label in image.labels[~image.ignored]}
        missing = [name for label, name in enumerate(classes) if label not in there]
        if missing:
            effect = "it cannot be learned" if split == "train" else "the metrics are of the other classes"
            notes.append(f"no {split} image has a box of {', '.join(missing)}: {effect}")
    return notes


def copy_notes(splits: Images) -> list[str]:
    """A line for each of val and test that holds image files which an earlier split holds too."""
    notes, seen = [], set[str]()
    for split, images in splits.items():
        copies = sum(image.sha256 in seen for image in images if image.sha256)
        if copies:
            notes.append(f"{copies:,} of {len(images):,} {split} images are copies of images in an earlier split")
        seen |= {image.sha256 for image in images}
    return notes


def small_box_notes(images: Sequence[AnnotatedImage], canvas: tuple[int, int]) -> list[str]:
    """A line on boxes that are too small to be learned on the canvas (height, width), and the --image-size for them."""
    num = sum(int((~image.ignored).sum()) for image in images)
    lost = _num_lost(images, canvas)
    if not lost:
        return []
    longer = max(canvas)
    what = (
        f"{lost:,} of {num:,} training boxes are less than {MIN_SIDE_PIXELS:g} pixels wide or high at {longer} pixels"
    )
    for size in range(longer + STRIDE, LARGEST_IMAGE_SIZE + 1, STRIDE):
        height, width = (max(STRIDE, side * size // longer) for side in canvas)
        remaining = _num_lost(images, (height, width))
        if not remaining:
            return [f"{what} and cannot be learned; --image-size {size} keeps them"]
    return [f"{what} and cannot be learned; --image-size {LARGEST_IMAGE_SIZE} keeps {lost - remaining:,} of them"]


def _num_lost(images: Sequence[AnnotatedImage], canvas: tuple[int, int]) -> int:
    """How many boxes that count have a side under MIN_SIDE_PIXELS on the canvas."""
    return sum(int((_shorter_sides(image, canvas) < MIN_SIDE_PIXELS).sum()) for image in images)


def _shorter_sides(image: AnnotatedImage, canvas: tuple[int, int]) -> NDArray[np.float32]:
    """The shorter side on the canvas, in pixels, of each box that counts."""
    height, width = fitted_size(image.height, image.width, canvas)
    scale = np.array([width / image.width, height / image.height], dtype=np.float32)
    boxes = image.boxes[~image.ignored]
    sides: NDArray[np.float32] = ((boxes[:, 2:] - boxes[:, :2]) * scale).min(axis=1, initial=np.inf)
    return sides
