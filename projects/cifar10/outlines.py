"""The outlines of the generated images' ten classes, as signed distances: below 0 inside a shape, above 0 outside.

Distances to polygons, hearts and crescents follow Quilez, https://iquilezles.org/articles/distfunctions2d.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

CLASSES: tuple[str, ...] = (
    "arrow", "crescent", "cross", "heart", "hexagon", "ring", "spiral", "square", "star", "triangle",
)  # fmt: skip

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Labels: TypeAlias = npt.NDArray[np.int64]
TAU = 2 * np.pi


def outline_distances(labels: Labels, u: Array, v: Array, knob: Array) -> Array:
    """Signed distance [CHUNK, size, size] to each outline, below 0 inside; knob in [0, 1] varies it."""
    distance = np.empty_like(u)
    for label, name in enumerate(CLASSES):
        rows = labels == label
        distance[rows] = _class_distance(name, u[rows], v[rows], knob[rows])
    return distance


def _class_distance(name: str, u: Array, v: Array, knob: Array) -> Array:
    """Signed distance to one class's outline in its own frame, same shape as u."""
    radius = np.hypot(u, v)
    distance: Array
    if name == "ring":
        distance = np.abs(radius - 0.74) - (0.13 + 0.13 * knob)
    elif name == "crescent":
        bite = np.hypot(u - 0.6 - 0.12 * knob, v) - (0.66 + 0.06 * knob)
        distance = np.maximum(np.hypot(u - 0.2, v) - 0.9, -bite)
    elif name == "spiral":
        pitch = 0.44
        turn = np.arctan2(v, u) / TAU % 1
        arm = np.clip(np.round(radius / pitch - turn), 0, 1)
        stroke = np.abs(radius - pitch * (arm + turn))
        distance = np.minimum(stroke, np.hypot(u - 2 * pitch, v)) - (0.09 + 0.04 * knob)
    elif name == "heart":
        side, up = np.abs(u) / 1.7, 0.52 - v / 1.7
        fold = 0.5 * np.maximum(side + up, 0)
        lower = np.minimum(np.hypot(side, up - 1), np.hypot(side - fold, up - fold)) * np.sign(side - up)
        upper = np.hypot(side - 0.25, up - 0.75) - 0.125**0.5
        distance = np.where(side + up > 1, upper, lower) * 1.7 - 0.02
    else:
        distance = _polygon_distance(_corners(name, knob[:, 0, 0]), u, v) - 0.04
    return distance


def _corners(name: str, knob: Array) -> Array:
    """Corners [num_images, num_corners, 2] of a straight-edged class; knob [num_images] in [0, 1]."""
    one = np.ones_like(knob)
    if name == "arrow":
        head, wide, thin = 0.3 * knob - 0.1, 0.62 + 0.16 * knob, 0.18 + 0.12 * knob
        us = [one, head, head, -0.95 * one, -0.95 * one, head, head]
        vs = [0 * one, wide, thin, thin, -thin, -thin, -wide]
    elif name == "cross":
        far, near = 0.92 * one, 0.19 + 0.13 * knob
        us = [far, far, near, near, -near, -near, -far, -far, -near, -near, near, near]
        vs = us[-3:] + us[:-3]
    else:
        num_corners = {"triangle": 3, "square": 4, "hexagon": 6, "star": 10}[name]
        reach = [(0.4 + 0.12 * knob) if name == "star" and i % 2 else 0.97 * one for i in range(num_corners)]
        # The v axis points down, so a quarter turn back stands a star on its feet.
        turns = [(i + (0.5 if name == "square" else 0)) / num_corners - 0.25 for i in range(num_corners)]
        us = [r * float(np.cos(TAU * turn)) for r, turn in zip(reach, turns, strict=True)]
        vs = [r * float(np.sin(TAU * turn)) for r, turn in zip(reach, turns, strict=True)]
    return np.stack([np.stack(us, axis=1), np.stack(vs, axis=1)], axis=2).astype(np.float32)


def _polygon_distance(corners: Array, u: Array, v: Array) -> Array:
    """Signed distance from [num_images, size, size] points to each image's closed polygon."""
    corners_u, corners_v = corners[:, :, 0, None, None], corners[:, :, 1, None, None]
    squared = np.full_like(u, np.inf)
    sign = np.ones_like(u)
    for i in range(corners.shape[1]):
        # Index i - 1 wraps round to the last corner, which closes the outline.
        edge_u, edge_v = corners_u[:, i - 1] - corners_u[:, i], corners_v[:, i - 1] - corners_v[:, i]
        du, dv = u - corners_u[:, i], v - corners_v[:, i]
        nearest = np.clip((du * edge_u + dv * edge_v) / (edge_u * edge_u + edge_v * edge_v), 0, 1)
        squared = np.minimum(squared, np.square(du - edge_u * nearest) + np.square(dv - edge_v * nearest))
        is_above = dv >= 0
        sign[(is_above != (v >= corners_v[:, i - 1])) & (is_above == (edge_u * dv > edge_v * du))] *= -1
    distance: Array = np.sqrt(squared) * sign
    return distance
