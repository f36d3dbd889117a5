"""Drawn pictures that need no download: one shape of four in a bright color on a dark ground, anywhere and turned.

The outline is the class; color, place, size and angle are free, so a generator that copies or repeats one picture is
found out by its diversity.
"""

import numpy as np
from numpy.typing import NDArray

CLASSES = ("cross", "disc", "ring", "square")
Array = NDArray[np.float32]


def draw_pictures(num: int, seed: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures uint8 [num, size, size, 3] and labels int64 [num]; classes take turns."""
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
        distance[rows] = outline(name, u[rows], v[rows], reach[rows])
    cover = np.clip(0.5 - distance * size / 2, 0, 1)[..., None]
    pictures = ground(random, num) * (1 - cover) + color(random, num) * cover
    return (pictures * 255 + 0.5).astype(np.uint8), labels


def outline(name: str, u: Array, v: Array, reach: Array) -> Array:
    """Signed distance to a class's outline in its own frame, below 0 inside."""
    distance: Array
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


def color(random: np.random.Generator, num: int) -> Array:
    """Bright colors of any hue, float32 [num, 1, 1, 3]."""
    hue = random.uniform(0, 6, (num, 1, 1, 1))
    value = random.uniform(0.75, 1, (num, 1, 1, 1))
    wave = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    bright: Array = (value * (0.3 + 0.7 * wave)).astype(np.float32)
    return bright


def ground(random: np.random.Generator, num: int) -> Array:
    """Dark colors, float32 [num, 1, 1, 3]."""
    return random.uniform(0, 0.25, (num, 1, 1, 3)).astype(np.float32)
