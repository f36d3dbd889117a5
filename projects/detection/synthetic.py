"""Generated scenes of shapes with boxes, which need no download: five kinds of shape in any strong color, size and
angle, some partly behind others, before a dull background with clutter that looks a little like them.

A box goes round what is to be seen of a shape; one that is mostly hidden is not to be counted.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from projects.detection.annotations import Picture, make_picture

CLASSES: tuple[str, ...] = ("cross", "disc", "square", "star", "triangle")
SHORTER_SIDE, LONGER_SIDE = (72, 97), (104, 129)  # of the pictures, in pixels
RADIUS = (15.0, 24.0)
MOST_SHAPES = 8
LEAST_APART = 0.5  # of the sum of two shapes' radii: how near their middles may come
MIN_VISIBLE = 0.5
FINER = 2  # shapes are drawn at this scale and reduced, which smooths their edges
TAU = 2 * np.pi


class Scene(NamedTuple):
    """A drawn picture, uint8 [H, W, 3], and what is in it; its path names no file."""

    pixels: NDArray[np.uint8]
    picture: Picture


def draw_scenes(num: int, seed: int) -> list[Scene]:
    """The first `num` scenes of the endless sequence that belongs to `seed`. Raises ValueError for one out of range."""
    for name, value, low in (("num", num, 1), ("seed", seed, 0)):
        if not low <= value < 2**63:
            raise ValueError(f"{name} is {value}, allowed are whole numbers from {low} to {2**63 - 1}")
    return [draw_scene(seed, number) for number in range(num)]


def draw_scene(seed: int, number: int) -> Scene:
    """Scene `number` of a seed: background, clutter, shapes from back to front, noise."""
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
    shorter, longer = int(random.integers(*SHORTER_SIDE)), int(random.integers(*LONGER_SIDE))
    width, height = (longer, shorter) if random.random() < 0.7 else (shorter, longer)
    canvas = background(random, width, height)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(4, 12))):
        clutter(pen, random, width, height)
    # The owner of each pixel: 0 for the background, k for the shape that was drawn as number k - 1.
    owners = Image.new("L", canvas.size, 0)
    areas, labels, circles = [], [], np.zeros((0, 3))
    for _ in range(int(random.integers(0, MOST_SHAPES + 1))):
        label = int(random.integers(len(CLASSES)))
        radius = float(np.exp(random.uniform(*np.log(RADIUS)))) * FINER
        x, y = (float(random.uniform(0.9 * radius, FINER * side - 0.9 * radius)) for side in (width, height))
        apart = np.hypot(circles[:, 0] - x, circles[:, 1] - y) / (circles[:, 2] + radius)
        if (apart < LEAST_APART).any():
            continue
        circles = np.vstack([circles, (x, y, radius)])
        labels.append(label)
        corners = outline(CLASSES[label], x, y, radius, random)
        fill = strong_color(random)
        pen.polygon(corners, fill=fill, outline=tuple(value // 2 for value in fill))
        alone = Image.new("L", canvas.size, 0)
        ImageDraw.Draw(alone).polygon(corners, fill=1)
        ImageDraw.Draw(owners).polygon(corners, fill=len(labels))
        areas.append(int(np.asarray(alone).sum()))
    pixels = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    pixels = pixels + random.standard_normal(pixels.shape, np.float32) * np.float32(random.uniform(1, 6))
    pixels8 = np.clip(pixels, 0, 255).astype(np.uint8)
    name = f"synthetic/{seed}-{number:06d}.png"
    return Scene(pixels8, make_picture(Path(name), name, (width, height), visible(np.asarray(owners), areas, labels)))


def visible(
    owners: NDArray[np.uint8], areas: Sequence[int], labels: Sequence[int]
) -> list[tuple[tuple[float, ...], int, bool]]:
    """Box, label and whether it is uncounted of each shape that is not hidden altogether."""
    objects = []
    for shape, (area, label) in enumerate(zip(areas, labels, strict=True)):
        rows, columns = np.nonzero(owners == shape + 1)
        if len(rows):
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            box = tuple(float(edge) / FINER for edge in edges)
            objects.append((box, label, len(rows) < MIN_VISIBLE * area))
    return objects


def background(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft blotches, lighter and darker, of one dull color, at the finer scale."""
    blotches = random.integers(-40, 41, (int(random.integers(2, 6)), int(random.integers(2, 6)), 1))
    few = np.clip(np.array(dull_color(random)) + blotches, 0, 255).astype(np.uint8)
    return Image.fromarray(few).resize((FINER * width, FINER * height), Image.Resampling.BICUBIC)


def clutter(pen: ImageDraw.ImageDraw, random: np.random.Generator, width: int, height: int) -> None:
    """A line, an arc, a thin frame or a few dots, of which no shape consists."""
    x, y = float(random.uniform(0, FINER * width)), float(random.uniform(0, FINER * height))
    reach = float(random.uniform(6, 40)) * FINER
    fill, kind = dull_color(random), int(random.integers(4))
    box = (x - reach / 2, y - reach / 2, x + reach / 2, y + reach / 2)
    if kind == 0:
        angle = random.uniform(0, TAU)
        pen.line((x, y, x + reach * np.cos(angle), y + reach * np.sin(angle)), fill=fill, width=FINER + 1)
    elif kind == 1:
        begin = float(random.uniform(0, 360))
        pen.arc(box, begin, begin + float(random.uniform(60, 300)), fill=fill, width=FINER + 1)
    elif kind == 2:
        pen.rectangle(box, outline=fill, width=FINER)
    else:
        for dot_x, dot_y in random.uniform(-reach, reach, (5, 2)):
            pen.ellipse((x + dot_x - 3, y + dot_y - 3, x + dot_x + 3, y + dot_y + 3), fill=fill)


def dull_color(random: np.random.Generator) -> tuple[int, int, int]:
    """A color near gray."""
    red, green, blue = (int(value) for value in random.integers(30, 226) + random.integers(-12, 13, 3))
    return red, green, blue


def strong_color(random: np.random.Generator) -> tuple[int, int, int]:
    """A color far from gray."""
    hue, saturation, value = random.random(), random.uniform(0.6, 1), random.uniform(0.6, 1)
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def outline(name: str, x: float, y: float, radius: float, random: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of a shape that fills a circle, turned at random and stretched a little."""
    turn, stretch = random.uniform(0, TAU), random.uniform(0.75, 1.33) ** 0.5
    if name == "cross":
        arm = 0.36
        plan = [(arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm)]
        plan = [*plan, *((-u, -v) for u, v in plan)]
    else:
        num = {"disc": 40, "square": 4, "star": 10, "triangle": 3}[name]
        reach = [0.42 if name == "star" and corner % 2 else 1.0 for corner in range(num)]
        plan = [(r * np.cos(TAU * k / num), r * np.sin(TAU * k / num)) for k, r in enumerate(reach)]
    cos, sin = np.cos(turn), np.sin(turn)
    stretched = ((u * cos - v * sin, u * sin + v * cos) for u, v in plan)
    return [(float(x + radius * stretch * u), float(y + radius / stretch * v)) for u, v in stretched]
