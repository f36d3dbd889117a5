"""Two domains of drawn images, to show transfer without a download: other shapes, by day and in the evening.

A shape is an outline in polar coordinates, a radius for every angle; only it tells the class, while color, texture,
pose, clutter and noise say nothing. The source domain has many images of eight shapes by day; the target domain has
few of six other shapes in the evening: darker, bluish, lower in contrast, noisier. So what was learned there is of use
as it is, and of more use where it is adapted.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Domain = Literal["day", "evening"]
_Array: TypeAlias = npt.NDArray[np.floating[Any]]
_Rng: TypeAlias = np.random.Generator

SOURCE_CLASSES = ("triangle", "square", "hexagon", "three-leaf", "five-leaf", "five-point", "four-tooth", "seven-tooth")
TARGET_CLASSES = ("pentagon", "four-leaf", "six-leaf", "four-point", "six-point", "five-tooth")
NUM_SYNTHETIC_TEST = 600  # the first images of a sequence, which no training sees
_NUMBERS = {
    "triangle": 3,
    "square": 4,
    "pentagon": 5,
    "hexagon": 6,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
}
_NUM_CLUTTER = 3
_CHUNK = 60  # images are drawn in whole chunks, so that image i does not depend on how many were asked for


def draw_images(
    num: int, seed: int, size: int, classes: tuple[str, ...], domain: Domain
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The first `num` images of the endless sequence that belongs to seed, classes and domain.

    Returns uint8 [num, size, size, 3] and labels int64 [num], which index `classes` and take turns in each chunk.
    Raises ValueError for an argument out of range.
    """
    for name, value, low in (("num", num, 1), ("seed", seed, 0), ("size", size, 8)):
        if value < low:
            raise ValueError(f"{name} is {value}, allowed are whole numbers from {low} on")
    images = np.empty((num, size, size, 3), np.uint8)
    labels = np.empty(num, np.int64)
    stream = 2 * (classes == TARGET_CLASSES) + (domain == "evening")
    for start in range(0, num, _CHUNK):
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, stream, start // _CHUNK]))
        drawn = rng.permutation(np.arange(_CHUNK) % len(classes))
        chunk = _draw_chunk(rng, [_outline(classes[label]) for label in drawn], size, domain)
        images[start : start + _CHUNK] = chunk[: num - start]
        labels[start : start + _CHUNK] = drawn[: num - start]
    return images, labels


def _outline(name: str) -> tuple[str, int]:
    """A class's kind of outline, and the number of its corners, leaves, points or teeth."""
    number, _, kind = name.partition("-")
    return kind or "polygon", _NUMBERS[number]


def _draw_chunk(rng: _Rng, outlines: list[tuple[str, int]], size: int, domain: Domain) -> npt.NDArray[np.uint8]:
    """One image for each outline, back to front: texture, clutter, the shape, light, noise."""
    num = len(outlines)
    line = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    x, y = np.broadcast_arrays(line[None, None, :], line[None, :, None])
    ground = rng.uniform(0, 1, (num, 1, 1, 3))
    image = _textured(rng, x, y, ground)
    for _ in range(_NUM_CLUTTER):
        cover = _blob(rng, x, y, num, size)
        image = image * (1 - cover) + rng.uniform(0.1, 0.9, (num, 1, 1, 3)) * cover
    angle, scale = rng.uniform(0, 2 * np.pi, (num, 1, 1)), rng.uniform(0.45, 0.8, (num, 1, 1))
    u, v = (axis - rng.uniform(-0.2, 0.2, (num, 1, 1)) for axis in (x, y))
    theta = np.arctan2(v, u) + angle
    reach = np.stack([radius(kind, count, theta[i]) for i, (kind, count) in enumerate(outlines)]) * scale
    inside = np.clip((reach - np.hypot(u, v)) * size / 2 + 0.5, 0, 1)[..., None]
    tint = (ground + rng.uniform(0.3, 0.7, ground.shape)) % 1.0  # never the color of the ground
    image = image * (1 - inside) + _textured(rng, x, y, tint) * inside
    image = image + rng.uniform(-0.15, 0.15, (num, 1, 1, 1)) * x[..., None]  # light from one side
    noise = 0.03
    if domain == "evening":
        image, noise = image * np.asarray([0.45, 0.5, 0.65]) + np.asarray([0.04, 0.05, 0.12]), 0.045
    image = image + rng.normal(0, noise, image.shape)
    drawn: npt.NDArray[np.uint8] = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return drawn


def radius(kind: str, count: int, theta: _Array) -> _Array:
    """The outline's radius, at most 1, at every angle."""
    turn = (theta * count / (2 * np.pi)) % 1.0  # 0 to 1 from one corner, leaf, point or tooth to the next
    reach: _Array
    if kind == "polygon":
        reach = np.cos(np.pi / count) / np.cos((turn - 0.5) * 2 * np.pi / count)
    elif kind == "leaf":
        reach = 0.7 + 0.3 * np.cos(2 * np.pi * turn)
    elif kind == "point":
        reach = 0.45 + 0.55 * np.abs(2 * turn - 1) ** 1.5
    else:
        reach = np.where(np.abs(turn - 0.5) < 0.25, 0.62, 1.0)
    return reach


def _textured(rng: _Rng, x: _Array, y: _Array, color: _Array) -> _Array:
    """A color [num, 1, 1, 3] that a wave mixes with another: [num, size, size, 3]."""
    num = len(color)
    fx, fy = rng.uniform(-9, 9, (2, num, 1, 1))
    wave = 0.5 + 0.5 * np.sin(fx * x + fy * y + rng.uniform(0, 2 * np.pi, (num, 1, 1)))
    share = (wave * rng.uniform(0, 0.45, (num, 1, 1)))[..., None]
    mixed: _Array = color * (1 - share) + rng.uniform(0, 1, color.shape) * share
    return mixed


def _blob(rng: _Rng, x: _Array, y: _Array, num: int, size: int) -> _Array:
    """A small soft ellipse near the border, to be distinguished from the shape: cover [num, size, size, 1]."""
    turn, far = rng.uniform(0, 2 * np.pi, (num, 1, 1)), rng.uniform(0.7, 1.1, (num, 1, 1))
    u, v = x - far * np.cos(turn), y - far * np.sin(turn)
    distance = np.hypot(u / rng.uniform(0.08, 0.3, (num, 1, 1)), v / rng.uniform(0.08, 0.3, (num, 1, 1)))
    cover: _Array = np.clip((1 - distance) * size / 8, 0, 1)[..., None]
    return cover
