"""Boxes drawn on pictures, true ones beside predicted ones, and precision over recall. No torch: infer draws too."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from core import plots
from projects.detection.annotations import Picture
from projects.detection.metrics import IOU_50, IOU_75, RECALLS, Found, Scores

GOLDEN = 0.618034  # steps round the circle of colors by this share never come near to an earlier one soon
WIDTH = 480  # of a picture on a sheet, in pixels


def draw_boxes(
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    labels: Sequence[int],
    captions: Sequence[str],
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture, at another size (width, height) if one is given, with its boxes in their classes' colors."""
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    if size is not None:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    scale = np.array([picture.width / width, picture.height / height] * 2)
    pen = ImageDraw.Draw(picture)
    thick = max(1, round(min(picture.size) / 240))
    font = ImageFont.load_default(size=max(9.0, min(picture.size) / 34))
    for box, label, caption in zip(boxes * scale, labels, captions, strict=True):
        color = class_color(label)
        x1, y1, x2, y2 = (float(value) for value in box)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=thick)
        if caption:
            _, _, right, bottom = pen.textbbox((0, 0), caption, font=font)
            x, y = min(x1, picture.width - right - 2), max(0.0, y1 - bottom - 1)
            pen.rectangle((x, y, x + right + 2, y + bottom + 1), fill=color)
            pen.text((x + 1, y), caption, fill="white" if sum(color) < 380 else "black", font=font)
    return picture


def class_color(label: int) -> tuple[int, int, int]:
    """A strong color that belongs to a class."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + GOLDEN * label) % 1.0, 0.9, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def side_by_side(
    shown: Sequence[tuple[NDArray[np.uint8], Picture, Found]], classes: Sequence[str], threshold: float, path: Path
) -> None:
    """A sheet with two columns a picture: true boxes, and the predicted ones of at least that score."""
    pairs = []
    for pixels, truth, found in shown:
        size = WIDTH, max(1, round(WIDTH * pixels.shape[0] / pixels.shape[1]))
        names = [f"{classes[k]}?" if u else classes[k] for k, u in zip(truth.labels, truth.uncounted, strict=True)]
        left = draw_boxes(pixels, truth.boxes, truth.labels.tolist(), names, size)
        good = found.above(threshold)
        captions = [f"{classes[k]} {100 * score:.0f}" for k, score in zip(good.labels, good.scores, strict=True)]
        right = draw_boxes(pixels, good.boxes, good.labels.tolist(), captions, size)
        pairs.append((left, right))
    paste(pairs, f"left: true; right: predicted, score of at least {threshold:.2f}", path)


def paste(pairs: Sequence[tuple[Image.Image, Image.Image]], title: str, path: Path, gap: int = 6) -> None:
    """Writes pairs of pictures under a title, two pairs a row."""
    font, top = ImageFont.load_default(size=18.0), 30
    rows = [pairs[i : i + 2] for i in range(0, len(pairs), 2)]
    heights = [max(left.height for left, _ in row) + gap for row in rows]
    sheet = Image.new("RGB", (min(2, len(pairs)) * (2 * WIDTH + 3 * gap), top + sum(heights)), "white")
    ImageDraw.Draw(sheet).text((gap, 4), title, fill="black", font=font)
    for row, height in zip(rows, heights, strict=True):
        for column, (left, right) in enumerate(row):
            x = column * (2 * WIDTH + 3 * gap) + gap
            sheet.paste(left, (x, top))
            sheet.paste(right, (x + WIDTH + gap // 2, top))
        top += height
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)


def precision_recall(scores: Scores, classes: Sequence[str], path: Path) -> None:
    """Precision over recall for each class, at an IoU of 0.5 and of 0.75."""
    drawn, grid = plots.figure(10.5, 4.6, 1, 2)
    for axis, iou, name in zip(grid[0], (IOU_50, IOU_75), ("0.5", "0.75"), strict=True):
        for label, text in enumerate(classes):
            precision = scores.precision[iou, :, label]
            if precision[0] > -1:
                color = tuple(value / 255 for value in class_color(label))
                axis.plot(RECALLS, precision, color=color, label=f"{text}  {scores.average(iou, label):.3f}")
        axis.set(title=f"IoU {name}, mean {scores.average(iou):.3f}", xlabel="recall", ylabel="precision")
        axis.set(xlim=(0, 1.01), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        if len(classes) <= 20:
            axis.legend(fontsize=8, loc="lower left")
    plots.save_figure(drawn, path)
