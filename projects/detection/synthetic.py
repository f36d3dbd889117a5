"""Generated scenes of shapes with boxes, which need no download: five kinds of shape in any strong color, size and
angle, some partly behind others, on a dull background with clutter that looks a little like them.

A box surrounds the visible part of a shape; the box of a mostly hidden shape is ignored.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from projects.detection.annotations import AnnotatedImage, annotated_image

CLASSES: tuple[str, ...] = ("cross", "disc", "square", "star", "triangle")
SHORTER_SIDE, LONGER_SIDE = (72, 97), (104, 129)  # of the images, in pixels: at least, less than
_RADIUS = (15.0, 24.0)
_MAX_SHAPES = 8
_MIN_DISTANCE = 0.5  # of the centers of two shapes, as a share of the sum of their radii
_MIN_VISIBLE = 0.5
_SCALE = 2  # shapes are drawn at this scale and reduced, which smooths their edges
_TAU = 2 * np.pi


class Scene(NamedTuple):
    """The pixels of a scene, uint8 [H, W, 3], and its boxes; the path of the image names no file."""

    pixels: NDArray[np.uint8]
    image: AnnotatedImage


def draw_scenes(num: int, seed: int) -> list[Scene]:
    """The first `num` scenes of the endless sequence of a seed. Raises ValueError where an argument is out of range."""
    for name, value, low in (("num", num, 1), ("seed", seed, 0)):
        if not low <= value < 2**63:
            raise ValueError(f"{name} is {value}, allowed are whole numbers from {low} to {2**63 - 1}")
    return [draw_scene(seed, number) for number in range(num)]


def draw_scene(seed: int, number: int) -> Scene:
    """Scene `number` of a seed: background, clutter, shapes from back to front, noise."""
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
    shorter, longer = int(random.integers(*SHORTER_SIDE)), int(random.integers(*LONGER_SIDE))
    width, height = (longer, shorter) if random.random() < 0.7 else (shorter, longer)
    canvas = _background(random, width, height)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(4, 12))):
        _clutter(pen, random, width, height)
    # The owner of each pixel: 0 for the background, k for the shape that was drawn as number k - 1.
    owners = Image.new("L", canvas.size, 0)
    areas, labels, circles = [], [], np.zeros((0, 3))
    for _ in range(int(random.integers(0, _MAX_SHAPES + 1))):
        label = int(random.integers(len(CLASSES)))
        radius = float(np.exp(random.uniform(*np.log(_RADIUS)))) * _SCALE
        x, y = (float(random.uniform(0.9 * radius, _SCALE * side - 0.9 * radius)) for side in (width, height))
        apart = np.hypot(circles[:, 0] - x, circles[:, 1] - y) / (circles[:, 2] + radius)
        if (apart < _MIN_DISTANCE).any():
            continue
        circles = np.vstack([circles, (x, y, radius)])
        labels.append(label)
        corners = _outline(CLASSES[label], x, y, radius, random)
        fill = _strong_color(random)
        pen.polygon(corners, fill=fill, outline=tuple(value // 2 for value in fill))
        alone = Image.new("L", canvas.size, 0)
        ImageDraw.Draw(alone).polygon(corners, fill=1)
        ImageDraw.Draw(owners).polygon(corners, fill=len(labels))
        areas.append(int(np.asarray(alone).sum()))
    pixels = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    pixels = pixels + random.standard_normal(pixels.shape, np.float32) * np.float32(random.uniform(1, 6))
    pixels8 = np.clip(pixels, 0, 255).astype(np.uint8)
    name = f"synthetic/{seed}-{number:06d}.png"
    objects = visible_objects(np.asarray(owners), areas, labels)
    return Scene(pixels8, annotated_image(Path(name), name, (width, height), objects))


def visible_objects(
    owners: NDArray[np.uint8], areas: Sequence[int], labels: Sequence[int]
) -> list[tuple[tuple[float, ...], int, bool]]:
    """(box, label, ignored) of each shape that can be seen.

    owners: uint8 [2 H, 2 W], see draw_scene; areas: of the whole shapes, in pixels of owners. Boxes are in pixels of
    [H, W].
    """
    objects = []
    for shape, (area, label) in enumerate(zip(areas, labels, strict=True)):
        rows, columns = np.nonzero(owners == shape + 1)
        if len(rows):
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            box = tuple(float(edge) / _SCALE for edge in edges)
            objects.append((box, label, len(rows) < _MIN_VISIBLE * area))
    return objects


def _background(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft blotches, lighter and darker, of one dull color, at the finer scale."""
    blotches = random.integers(-40, 41, (int(random.integers(2, 6)), int(random.integers(2, 6)), 1))
    few = np.clip(np.array(_dull_color(random)) + blotches, 0, 255).astype(np.uint8)
    return Image.fromarray(few).resize((_SCALE * width, _SCALE * height), Image.Resampling.BICUBIC)


def _clutter(pen: ImageDraw.ImageDraw, random: np.random.Generator, width: int, height: int) -> None:
    """A line, an arc, a thin frame or a few dots, of which no shape consists."""
    x, y = float(random.uniform(0, _SCALE * width)), float(random.uniform(0, _SCALE * height))
    reach = float(random.uniform(6, 40)) * _SCALE
    fill, kind = _dull_color(random), int(random.integers(4))
    box = (x - reach / 2, y - reach / 2, x + reach / 2, y + reach / 2)
    if kind == 0:
        angle = random.uniform(0, _TAU)
        pen.line((x, y, x + reach * np.cos(angle), y + reach * np.sin(angle)), fill=fill, width=_SCALE + 1)
    elif kind == 1:
        begin = float(random.uniform(0, 360))
        pen.arc(box, begin, begin + float(random.uniform(60, 300)), fill=fill, width=_SCALE + 1)
    elif kind == 2:
        pen.rectangle(box, outline=fill, width=_SCALE)
    else:
        for dot_x, dot_y in random.uniform(-reach, reach, (5, 2)):
            pen.ellipse((x + dot_x - 3, y + dot_y - 3, x + dot_x + 3, y + dot_y + 3), fill=fill)


def _dull_color(random: np.random.Generator) -> tuple[int, int, int]:
    """A color near gray."""
    red, green, blue = (int(value) for value in random.integers(30, 226) + random.integers(-12, 13, 3))
    return red, green, blue


def _strong_color(random: np.random.Generator) -> tuple[int, int, int]:
    """A color far from gray."""
    hue, saturation, value = random.random(), random.uniform(0.6, 1), random.uniform(0.6, 1)
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _outline(name: str, x: float, y: float, radius: float, random: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of a shape that fills a circle, turned at random and stretched a little."""
    turn, stretch = random.uniform(0, _TAU), random.uniform(0.75, 1.33) ** 0.5
    if name == "cross":
        arm = 0.36
        plan = [(arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm)]
        plan = [*plan, *((-u, -v) for u, v in plan)]
    else:
        num = {"disc": 40, "square": 4, "star": 10, "triangle": 3}[name]
        reach = [0.42 if name == "star" and corner % 2 else 1.0 for corner in range(num)]
        plan = [(r * np.cos(_TAU * k / num), r * np.sin(_TAU * k / num)) for k, r in enumerate(reach)]
    cos, sin = np.cos(turn), np.sin(turn)
    stretched = ((u * cos - v * sin, u * sin + v * cos) for u, v in plan)
    return [(float(x + radius * stretch * u), float(y + radius / stretch * v)) for u, v in stretched]
