"""Generated images of ten shapes, a stand-in for CIFAR-10 that needs no download: only the outline tells
the class, while color, texture, pose, light, clutter and noise are random and say nothing about it."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from projects.cifar10.outlines import CLASSES, TAU, Array, Labels, outline_distances

Images: TypeAlias = npt.NDArray[np.uint8]
Rng: TypeAlias = np.random.Generator

# Images are always drawn in whole chunks, so that image i does not depend on how many were asked for.
CHUNK = 100


def draw_images(num: int, seed: int, size: int = 32) -> tuple[Images, Labels]:
    """Draw the first `num` images of the endless sequence that belongs to `seed`.

    Returns uint8 images [num, size, size, 3] in RGB and int64 labels [num] that index CLASSES; every ten
    consecutive labels from the start hold each class once. Raises ValueError for an argument out of range.
    """
    _check("num", num, 1, 2**31 - 1)
    _check("seed", seed, 0, 2**63 - 1)
    _check("size", size, 8, 256)
    images = np.empty((num, size, size, 3), np.uint8)
    labels = np.empty(num, np.int64)
    for start in range(0, num, CHUNK):
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, start // CHUNK]))
        chunk_images, chunk_labels = _draw_chunk(rng, size)
        images[start : start + CHUNK] = chunk_images[: num - start]
        labels[start : start + CHUNK] = chunk_labels[: num - start]
    return images, labels


def _check(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError unless value lies in [low, high]."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, allowed are whole numbers from {low} to {high}")


def _draw_chunk(rng: Rng, size: int) -> tuple[Images, Labels]:
    """Draw CHUNK images back to front: backdrop, clutter, shadow, shape, occluders, light, noise."""
    labels = rng.permuted(np.tile(np.arange(len(CLASSES)), (CHUNK // len(CLASSES), 1)), axis=1).ravel()
    line = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    x, y = np.broadcast_arrays(line[None, None, :], line[None, :, None])
    shape, shape_alt, back, back_alt = _palette(rng)
    image = _mix(back, back_alt, _backdrop(rng, x, y, size))
    for _ in range(4):
        tint = _hsv(_uniform(rng, 0, 1), _uniform(rng, 0.3, 0.8), _uniform(rng, 0.3, 1)) * 0.65 + back * 0.35
        image = _mix(image, tint, _clutter(rng, x, y, size, reach=1.1, chance=0.45))

    # Distances to the outline come in pixels, so that one pixel of soft edge is the same at every size.
    pose, knob = _pose(rng), _uniform(rng, 0, 1)
    light_angle = _uniform(rng, 0, TAU)
    light_x, light_y = np.cos(light_angle), np.sin(light_angle)
    u, v = _to_local(x, y, pose)
    distance = outline_distances(labels, u, v, knob) * (pose["scale"] * size / 2)
    drop = _uniform(rng, 0.06, 0.16)
    below = outline_distances(labels, *_to_local(x + light_x * drop, y + light_y * drop, pose), knob) * pose["scale"]
    shadow = np.clip(0.5 - below / _uniform(rng, 0.1, 0.35), 0, 1) * _uniform(rng, 0.1, 0.6)
    image = image * (1 - shadow)[..., None]

    fill = _mix(shape, shape_alt, _pattern(rng, u, v, size * pose["scale"], low=0.7, high=1.6))
    slope_y, slope_x = np.gradient(distance, axis=(1, 2))
    inside = np.exp(-np.square(distance * (32 / size) / _uniform(rng, 1.2, 3)))
    bevel = (slope_x * light_x + slope_y * light_y) * inside * _uniform(rng, 0, 0.3)
    sheen = (u * light_x + v * light_y) * _uniform(rng, 0, 0.12)
    fill = fill * (1 + bevel + sheen)[..., None]
    rim = np.clip(distance * (32 / size) + _uniform(rng, 1.6, 2.4), 0, 1) * (_uniform(rng, 0, 1) < 0.25)
    fill = _mix(fill, fill * 0.35 + (_uniform(rng, 0, 1) < 0.4)[..., None] * np.float32(0.6), rim * 0.9)
    cover: Array = np.clip(0.5 - distance / _uniform(rng, 1, 1.8), 0, 1)
    image = _mix(image, fill, cover)

    for _ in range(2):
        tint = _hsv(_uniform(rng, 0, 1), _uniform(rng, 0.2, 0.8), _uniform(rng, 0.2, 1))
        image = _mix(image, tint, _clutter(rng, x, y, size, reach=0.7, chance=0.25))
    vignette = 1 - _uniform(rng, 0, 0.22) * (x * x + y * y)
    image = image * (vignette + (x * light_x + y * light_y) * _uniform(rng, 0, 0.12))[..., None]
    noise = rng.standard_normal(image.shape, np.float32) * _uniform(rng, 0.005, 0.035)[..., None]
    return (np.clip(image + noise, 0, 1) * 255 + 0.5).astype(np.uint8), labels


def _uniform(rng: Rng, low: float, high: float) -> Array:
    """Draw one number per image, float32 [CHUNK, 1, 1] in [low, high)."""
    return rng.uniform(low, high, (CHUNK, 1, 1)).astype(np.float32)


def _mix(under: Array, over: Array, weight: Array) -> Array:
    """Blend colors [..., 3] by weight [...] in [0, 1], where 1 shows `over` alone."""
    return under + (over - under) * weight[..., None]


def _hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """Turn hue (any real number, whole turns), saturation and value in [0, 1] into RGB [..., 3] in [0, 1]."""
    # An even spread over hues looks far too green, so the wheel turns faster there.
    hue = hue + 0.05 * np.sin((hue - 1 / 3) * TAU)
    k = (np.array([5, 3, 1], np.float32) + 6 * hue[..., None]) % 6
    color: Array = value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))
    return color


def _palette(rng: Rng) -> tuple[Array, Array, Array, Array]:
    """Draw two colors for the shape and two for the backdrop, each [CHUNK, 1, 1, 3] in [0, 1]."""
    hue, is_dark = _uniform(rng, 0, 1), _uniform(rng, 0, 1) < 0.5
    back_saturation = np.where(is_dark, _uniform(rng, 0.35, 0.8), _uniform(rng, 0.1, 0.5))
    back_value = np.where(is_dark, _uniform(rng, 0.2, 0.52), _uniform(rng, 0.75, 1))
    back = _hsv(hue, back_saturation, back_value)
    back_alt = _hsv(hue + _uniform(rng, -0.17, 0.17), back_saturation, back_value * _uniform(rng, 0.6, 1.3))
    shape_hue = hue + _uniform(rng, 0.15, 0.85)
    saturation = _uniform(rng, 0.4, 0.88)
    value = np.where(is_dark, _uniform(rng, 0.78, 1), _uniform(rng, 0.35, 0.75))
    shape = _hsv(shape_hue, saturation, value)
    alt_saturation = saturation * _uniform(rng, 0.2, 1)
    shape_alt = _hsv(shape_hue + _uniform(rng, -0.15, 0.15), alt_saturation, value * 0.5 + 0.42)
    faint = _uniform(rng, 0.2, 0.6) * (_uniform(rng, 0, 1) < 0.15)
    return _mix(shape, back, faint), _mix(shape_alt, back, faint), back, np.minimum(back_alt, 1)


def _backdrop(rng: Rng, x: Array, y: Array, size: int) -> Array:
    """Draw how much of the second backdrop color shows, [CHUNK, size, size] in [0, 1]."""
    waves = [np.sin(_wave(rng, x, y, low=0.1, high=0.9)) for _ in range(3)]
    cloud = (waves[0] + waves[1] + waves[2]) / 6 + 0.5
    weave = np.maximum(_uniform(rng, -0.3, 0.6), 0)
    weight: Array = cloud * (1 - weave) + weave * _pattern(rng, x, y, size, low=0.9, high=2.2)
    return weight


def _wave(rng: Rng, x: Array, y: Array, low: float, high: float) -> Array:
    """Draw the phase of a plane wave with `low` to `high` cycles per unit in a random direction."""
    angle, rate = _uniform(rng, 0, TAU), _uniform(rng, low, high) * TAU
    phase: Array = x * (np.cos(angle) * rate) + y * (np.sin(angle) * rate) + _uniform(rng, 0, TAU)
    return phase


def _pattern(rng: Rng, u: Array, v: Array, size: Array | int, low: float, high: float) -> Array:
    """Draw a weight in [0, 1] per pixel: plain, gradient, stripes, checks or dots."""
    angle, rate = _uniform(rng, 0, TAU), _uniform(rng, low, high) * TAU
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    a, b = np.sin(along * rate + _uniform(rng, 0, TAU)), np.sin(across * rate + _uniform(rng, 0, TAU))
    kind, sharpness = rng.integers(0, 6, (CHUNK, 1, 1)), size * 0.08
    drawn = [along * 0.6, (a + 0.1) * sharpness, a * b * (1.6 * sharpness), (a + b - 0.7) * sharpness]
    weight: Array = np.select([kind == k for k in range(4)], drawn, np.float32(-0.5)) + 0.5
    return np.clip(weight, 0, 1)


def _clutter(rng: Rng, x: Array, y: Array, size: int, reach: float, chance: float) -> Array:
    """Draw the cover in [0, 1] of one small blob or stroke per image, absent from most of them."""
    start_x, start_y = _uniform(rng, -reach, reach), _uniform(rng, -reach, reach)
    length, angle = np.maximum(_uniform(rng, -0.5, 0.9), 0.01), _uniform(rng, 0, TAU)
    along_x, along_y = np.cos(angle) * length, np.sin(angle) * length
    radius = np.where(length < 0.02, _uniform(rng, 0.06, 0.2), _uniform(rng, 0.03, 0.07))
    dx, dy = x - start_x, y - start_y
    nearest = np.clip((dx * along_x + dy * along_y) / (length * length), 0, 1)
    distance = np.hypot(dx - along_x * nearest, dy - along_y * nearest) - radius
    opacity = _uniform(rng, 0.6, 1) * (_uniform(rng, 0, 1) < chance)
    cover: Array = np.clip(0.5 - distance * (size / 2), 0, 1) * opacity
    return cover


def _pose(rng: Rng) -> dict[str, Array]:
    """Draw where and how each shape lies: position, turn, size, stretch, slant, mirror image and tilt."""
    scale = _uniform(rng, 0.58, 0.88)
    return {
        "scale": scale,
        "x": _uniform(rng, -1, 1) * (1 - scale),
        "y": _uniform(rng, -1, 1) * (1 - scale),
        "angle": _uniform(rng, -0.75, 0.75),
        "mirror": np.sign(_uniform(rng, -1, 1)),
        "stretch": _uniform(rng, 0.9, 1.12),
        "slant": _uniform(rng, -0.15, 0.15),
        "tilt_x": _uniform(rng, -0.16, 0.16),
        "tilt_y": _uniform(rng, -0.16, 0.16),
    }


def _to_local(x: Array, y: Array, pose: dict[str, Array]) -> tuple[Array, Array]:
    """Carry image coordinates into the frame in which the shape fills the unit circle."""
    dx, dy = x - pose["x"], y - pose["y"]
    depth = pose["scale"] * (1 + dx * pose["tilt_x"] + dy * pose["tilt_y"])
    cos, sin = np.cos(pose["angle"]), np.sin(pose["angle"])
    u, v = (dx * cos + dy * sin) / depth, (dy * cos - dx * sin) / depth
    return (u + v * pose["slant"]) * pose["stretch"] * pose["mirror"], v / pose["stretch"]
