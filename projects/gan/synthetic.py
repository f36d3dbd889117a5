"""Synthetic images: one of four shapes in a bright color on a dark background, at any place and angle.

The shape is the class; color, place, size and angle vary, so that a generator that copies or repeats an image has a
low diversity.
"""

import numpy as np
from numpy.typing import NDArray

CLASSES = ("cross", "disc", "ring", "square")
_Array = NDArray[np.float32]


def generate_images(num: int, seed: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [num, size, size, 3] and labels int64 [num]; each class comes as often."""
    random = np.random.default_rng(seed)
    labels = np.arange(num, dtype=np.int64) % len(CLASSES)
    line = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1)[None]
    reach = random.uniform(0.4, 0.6, (num, 1, 1)).astype(np.float32)
    angle = random.uniform(-np.pi / 4, np.pi / 4, (num, 1, 1)).astype(np.float32)
    place = random.uniform(-1, 1, (2, num, 1, 1)).astype(np.float32) * (0.85 - reach)
    x, y = line[:, None, :] - place[0], line[:, :, None] - place[1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.empty_like(u)
    for label, name in enumerate(CLASSES):
        rows = labels == label
        distance[rows] = _signed_distance(name, u[rows], v[rows], reach[rows])
    cover = np.clip(0.5 - distance * size / 2, 0, 1)[..., None]
    images = _background(random, num) * (1 - cover) + _color(random, num) * cover
    return (images * 255 + 0.5).astype(np.uint8), labels


def _signed_distance(name: str, u: _Array, v: _Array, reach: _Array) -> _Array:
    """Signed distance to the outline of a shape in its own coordinates, negative inside."""
    distance: _Array
    if name == "disc":
        distance = np.hypot(u, v) - reach
    elif name == "ring":
        distance = np.abs(np.hypot(u, v) - 0.8 * reach) - 0.25 * reach
    elif name == "square":
        distance = np.maximum(np.abs(u), np.abs(v)) - 0.85 * reach
    else:
        arms = np.minimum(np.maximum(np.abs(u), 4 * np.abs(v)), np.maximum(4 * np.abs(u), np.abs(v)))
        distance = arms - reach
    return distance


def _color(random: np.random.Generator, num: int) -> _Array:
    """Bright colors of any hue, float32 [num, 1, 1, 3]."""
    hue = random.uniform(0, 6, (num, 1, 1, 1))
    value = random.uniform(0.75, 1, (num, 1, 1, 1))
    wave = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    bright: _Array = (value * (0.3 + 0.7 * wave)).astype(np.float32)
    return bright


def _background(random: np.random.Generator, num: int) -> _Array:
    """Dark colors, float32 [num, 1, 1, 3]."""
    return random.uniform(0, 0.25, (num, 1, 1, 3)).astype(np.float32)
