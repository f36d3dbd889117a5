"""Generated images that need no download: landscapes as photographs, and three styles, each with its own strokes.

Everything is a function of (seed, number). Smooth fields are value noise (a coarse random grid, enlarged), cells are
those of Worley 1996, "A Cellular Texture Basis Function".
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_Array: TypeAlias = NDArray[np.float32]
_Pixels: TypeAlias = NDArray[np.uint8]
_Rng: TypeAlias = np.random.Generator

STYLES = ("mosaic", "strokes", "dots")


def draw_landscapes(num: int, seed: int, size: int) -> _Pixels:
    """The first `num` landscapes of a seed: uint8 [num, size, size, 3]."""
    return np.stack([_to_bytes(_landscape(_generator(seed, "landscape", i), size)) for i in range(num)])


def draw_style(name: str, seed: int, size: int) -> _Pixels:
    """An image in one of STYLES: uint8 [size, size, 3]."""
    draw = {"mosaic": _mosaic, "strokes": _strokes, "dots": _dots}[name]
    return _to_bytes(draw(_generator(seed, name, 0), size))


def _generator(seed: int, purpose: str, number: int) -> _Rng:
    """The random numbers of one image."""
    return np.random.default_rng([seed, number, *purpose.encode()])


def _landscape(rng: _Rng, size: int) -> _Array:
    """Sky with a sun and clouds, ridges, a field with trees and houses; float32 [size, size, 3], about 0 to 1."""
    y, x = _grid(size)
    top, bottom = rng.uniform(0.1, 0.7, 3), rng.uniform(0.5, 1, 3)
    image = (top + (bottom - top) * y[..., None]).astype(np.float32)
    sun_x, sun_y, radius = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.4), rng.uniform(0.04, 0.1)
    image = _lay(image, rng.uniform([0.9, 0.7, 0.3], 1), _soft(radius - np.hypot(x - sun_x, y - sun_y), size))
    image = _lay(image, np.ones(3), np.clip(_noise(rng, size, 5) * 1.5, 0, 0.8) * (1 - y))
    ground = rng.uniform(0.1, 0.6, 3)
    for depth in range(num_ridges := int(rng.integers(2, 5))):
        height = 0.35 + 0.4 * (depth + 1) / num_ridges
        ridge = height + 0.12 * _noise(rng, size, 4 + 3 * depth)[:1] * (1 - 0.5 * depth / num_ridges)
        haze = (depth + 1) / num_ridges
        color = ground * haze + bottom * (1 - haze) + 0.08 * _noise(rng, size, size // 6)[..., None]
        image = _lay(image, color.astype(np.float32), _soft(y - ridge, size))
    for _ in range(int(rng.integers(3, 12))):
        foot, side = rng.uniform(0.7, 1.0), rng.uniform(0.0, 1.0)
        tall = 0.28 * foot * rng.uniform(0.5, 1)
        draw = _tree if rng.random() < 0.7 else _house
        image = draw(rng, image, x - side, foot - y, tall)
    return image + 0.02 * rng.standard_normal(image.shape).astype(np.float32)


def _tree(rng: _Rng, image: _Array, across: _Array, up: _Array, tall: float) -> _Array:
    """A crown on a trunk; across and up: distances from its foot, 1 is the image's side."""
    size = len(image)
    trunk = np.minimum(0.06 * tall - np.abs(across), np.minimum(up, tall / 2 - up))
    image = _lay(image, rng.uniform(0.1, 0.35, 3), _soft(trunk, size))
    crown = 0.3 * tall - np.hypot(across, up - 0.65 * tall) + 0.03 * _noise(rng, size, size // 8)
    leaves = rng.uniform([0.05, 0.25, 0.05], [0.5, 0.6, 0.3]) + 0.12 * _noise(rng, size, size // 4)[..., None]
    return _lay(image, leaves.astype(np.float32), _soft(crown, size))


def _house(rng: _Rng, image: _Array, across: _Array, up: _Array, tall: float) -> _Array:
    """Walls, a roof and a window."""
    size, half = len(image), 0.35 * tall
    walls = np.minimum(half - np.abs(across), np.minimum(up, 0.6 * tall - up))
    image = _lay(image, rng.uniform(0.5, 1, 3), _soft(walls, size))
    roof = np.minimum(1.2 * half - np.abs(across) - (up - 0.6 * tall), up - 0.6 * tall)
    image = _lay(image, rng.uniform([0.4, 0.1, 0.1], [0.8, 0.4, 0.3]), _soft(roof, size))
    window = np.minimum(0.3 * half - np.abs(across), 0.1 * tall - np.abs(up - 0.35 * tall))
    return _lay(image, rng.uniform(0, 0.4, 3), _soft(window, size))


def _mosaic(rng: _Rng, size: int) -> _Array:
    """Colored glass between dark lead: cells around scattered points."""
    y, x = _grid(size)
    points = rng.random((90, 2), dtype=np.float32)
    distance = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    near = np.sort(distance, axis=-1)[..., :2]
    glass = _palette(rng, 7)[rng.integers(0, 7, 90)][distance.argmin(-1)]
    shine = 1 - 1.2 * near[..., :1] + 0.12 * _noise(rng, size, 12)[..., None]
    return _lay(
        np.full((size, size, 3), 0.05, np.float32), glass * shine, _soft(near[..., 1] - near[..., 0] - 0.012, size)
    )


def _strokes(rng: _Rng, size: int) -> _Array:
    """Bands of a thick brush that swirl around a few centers."""
    y, x = _grid(size)
    flow = y + 0.25 * _noise(rng, size, 3)
    for center_y, center_x in rng.random((4, 2)):
        reach = np.hypot(y - center_y, x - center_x)
        flow = flow + (reach - flow) * np.exp(-((reach / 0.18) ** 2))
    colors = _palette(rng, 8)
    number = flow * 34 + 0.7 * _noise(rng, size, 20)
    band = np.floor(number).astype(int)
    bristle = 0.12 * _noise(rng, size, size // 3) + 0.25 * np.sin(np.pi * (number - band))
    patch = (4 * _noise(rng, size, 9)).astype(int)
    painted: _Array = colors[(band * 5 + patch) % 8] * (0.75 + bristle)[..., None]
    return painted


def _dots(rng: _Rng, size: int) -> _Array:
    """Dots of pure color that cover a light ground."""
    y, x = _grid(size)
    image = np.full((size, size, 3), 0.95, np.float32)
    colors, field = _palette(rng, 9), _noise(rng, size, 4)
    for top, left in rng.random((1400, 2)):
        radius, row, column = rng.uniform(0.012, 0.022), int(top * size), int(left * size)
        reach = int(radius * size) + 2
        part = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        color = colors[int(4 * field[row, column] + rng.integers(0, 4)) % 9]
        image[part] = _lay(image[part], color, _soft(radius - np.hypot(y[part] - top, x[part] - left), size))
    return image


def _palette(rng: _Rng, num: int) -> _Array:
    """Colors that fit together: hues around two opposite ones, light and dark; float32 [num, 3] in [0, 1]."""
    hue = rng.random() + rng.choice([0.0, 0.5, 0.08], num) + rng.normal(0, 0.04, num)
    value, saturation = np.linspace(0.25, 1, num), rng.uniform(0.5, 0.95, num)
    k = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    colors = value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.asarray(colors, dtype=np.float32)


def _grid(size: int) -> tuple[_Array, _Array]:
    """Rows and columns of pixel centers in (0, 1), each [size, size]."""
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def _noise(rng: _Rng, size: int, cells: int) -> _Array:
    """A smooth random field [size, size], mostly in (-1, 1), with about `cells` hills and valleys per side."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _soft(distance: _Array, size: int) -> _Array:
    """The share of a pixel that is inside an outline, from the signed distance to it; 1 is the image's side."""
    return np.asarray(np.clip(distance * size + 0.5, 0, 1), dtype=np.float32)


def _lay(under: _Array, over: NDArray[np.floating], weight: _Array) -> _Array:
    """Blends colors over others; weight: [...] in [0, 1]."""
    return (under + (over - under) * weight[..., None]).astype(np.float32)


def _to_bytes(image: _Array) -> _Pixels:
    """Values in [0, 1] as uint8."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
