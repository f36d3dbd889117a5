"""The losses of projects.style.loss with random features, in numpy: evaluate measures an exported file without torch.

The filters of projects.style.random_features are drawn again, number by number, as torch draws them: of the Mersenne
Twister, by Box and Muller's method. Float32 throughout.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from projects.style.config import Config

Array = NDArray[np.float32]  # an image or its maps, [C, H, W]
_SEED, _NUM_OCTAVES, _NUM_COLOR_OCTAVES = 20170, 4, 3
_CHANNELS, _DEEP_CHANNELS, _COLORS, _EDGES = 32, 48, 24, 24
_SPREAD, _SMALLEST = 0.25, 1e-6
_LUMINANCE = np.asarray([0.299, 0.587, 0.114], dtype=np.float32)
_BLOCK = 16  # numbers that torch draws together


class Losses:
    """The losses for some style images, uint8 [H, W, 3] each, of a painting and its photograph."""

    def __init__(self, styles: Sequence[NDArray[np.uint8]], config: Config) -> None:
        self._features, self._config = _Features(), config
        contents = [list(self._features.content(_as_image(each))) for each in styles]
        self._sizes = [np.mean([np.square(each).mean() for each in maps]) for maps in zip(*contents, strict=True)]
        maps_of = [list(self._features.style(_as_image(each))) for each in styles]
        self._centers = [[each.mean((1, 2), keepdims=True) for each in maps] for maps in maps_of]
        pairs = [zip(maps, centers, strict=True) for maps, centers in zip(maps_of, self._centers, strict=True)]
        self._grams = [[_gram(each - center) for each, center in its] for its in pairs]

    def __call__(self, painted: NDArray[np.uint8], photograph: NDArray[np.uint8], style: int) -> dict[str, float]:
        """The weighted sum and its parts by name. Both images: uint8 [H, W, 3]; style: the number of its image."""
        result, target = _as_image(painted), _as_image(photograph)
        pairs = zip(self._features.content(result), self._features.content(target), self._sizes, strict=True)
        content = np.mean([np.square(a - b).mean() / max(size, _SMALLEST) for a, b, size in pairs])
        its = zip(self._features.style(result), self._centers[style], self._grams[style], strict=True)
        distances = [
            np.square(_gram(maps - center) - gram).sum() / max(np.square(gram).sum(), _SMALLEST)
            for maps, center, gram in its
        ]
        tv = sum(np.abs(np.diff(result, axis=axis)).mean() for axis in (1, 2))
        parts = {"content": float(content), "style": float(np.mean(distances)), "tv": float(tv)}
        weights = vars(self._config)
        return {"loss": sum(weights[f"{name}_weight"] * value for name, value in parts.items()), **parts}


class _Features:
    """RandomFeatures."""

    def __init__(self) -> None:
        twister = np.random.RandomState(_SEED)
        self._bands, self._tints, self._shifts, self._deep = [], [], [], []
        for octave in range(_NUM_OCTAVES):
            size = 7 if octave else 5
            bands = _normal(twister, _CHANNELS, 3, size, size)
            self._bands.append(_normalized(bands - bands.mean((1, 2, 3), keepdims=True)) * 4 / _SPREAD)
            self._tints.append(_normalized(_normal(twister, _CHANNELS, 3, 1, 1)) * 0.5 / _SPREAD)
            self._shifts.append(0.5 * _normal(twister, _CHANNELS))
            deep = _normal(twister, _DEEP_CHANNELS, _CHANNELS, 3, 3)
            self._deep.append(_normalized(deep - 0.5 * deep.mean((2, 3), keepdims=True)))
        self._colors = _normalized(_normal(twister, _COLORS, 3, 1, 1)) / _SPREAD
        self._color_shifts = 0.7 * _normal(twister, _COLORS)
        edges = _normal(twister, _EDGES, 1, 5, 5)
        self._edges = _normalized(edges - edges.mean((2, 3), keepdims=True)) / _SPREAD

    def content(self, image: Array) -> Iterator[Array]:
        """The maps of the content loss."""
        light = np.tensordot(_LUMINANCE[None], image, 1)
        for _ in range(_NUM_OCTAVES - 1):
            light = _smooth(light)[:, ::2, ::2]
            edges = _filtered(_pad(light, 2), self._edges)
            strength = _smooth(_smooth(np.square(edges).mean(0, keepdims=True)))
            yield edges / np.sqrt(strength + np.float32(0.02))

    def style(self, image: Array) -> Iterator[Array]:
        """The maps of the style loss."""
        level = image - np.float32(0.5)
        for octave, (bands, deep) in enumerate(zip(self._bands, self._deep, strict=True)):
            low = _smooth(level)
            tints = _filtered(low, self._tints[octave]) + self._shifts[octave][:, None, None]
            shallow = np.maximum(_filtered(_pad(level - low, bands.shape[2] // 2), bands) + tints, 0)
            yield shallow
            if octave:
                yield np.maximum(_filtered(shallow, deep), 0)
            if octave < _NUM_COLOR_OCTAVES:
                yield np.maximum(_filtered(level, self._colors) + self._color_shifts[:, None, None], 0)
            level = low[:, ::2, ::2]


def _normal(twister: np.random.RandomState, *shape: int) -> Array:
    """What torch.randn draws, of at least 16 numbers, up to the last bit of a logarithm, sine or cosine."""
    num = int(np.prod(shape))
    result = _box_muller(twister, num - num % _BLOCK)
    if num % _BLOCK:  # the last 16 are drawn again
        result = np.concatenate([result[: num - _BLOCK], _box_muller_after(twister, num)])
    return result.reshape(shape)


def _box_muller(twister: np.random.RandomState, num: int) -> Array:
    """Normal numbers, in blocks of 16."""
    uniform = np.frombuffer(twister.bytes(4 * num), dtype="<u4") & 0xFFFFFF
    halves = (uniform * 2.0**-24).reshape(-1, 2, _BLOCK // 2)
    radius, angle = np.sqrt(-2 * np.log(1 - halves[:, 0])), 2 * np.pi * halves[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1).astype(np.float32)


def _box_muller_after(twister: np.random.RandomState, num: int) -> Array:
    """The last 16 of `num` numbers that are no multiple of 16, whose rest torch has drawn before."""
    twister.bytes(4 * (num % _BLOCK))
    return _box_muller(twister, _BLOCK)


def _filtered(x: Array, filters: Array) -> Array:
    """A convolution without a border: [C, H, W] by [K, C, S, S] → [K, H - S + 1, W - S + 1]."""
    windows = sliding_window_view(x, filters.shape[2:], axis=(1, 2))
    result: Array = np.tensordot(filters, windows, axes=((1, 2, 3), (0, 3, 4)))
    return result


def _normalized(filters: Array) -> Array:
    """Filters scaled so that the squares of each sum to 1."""
    result: Array = filters / np.sqrt(np.square(filters).sum((1, 2, 3), keepdims=True))
    return result


def _pad(x: Array, border: int) -> Array:
    """Pads with mirrored borders."""
    return np.pad(x, ((0, 0), (border, border), (border, border)), mode="reflect")


def _smooth(x: Array) -> Array:
    """Smooths by (1, 2, 1) / 4 in both directions."""
    x = _pad(x, 1)
    for _ in range(2):
        x = np.float32(0.25) * (x[:, :-1, :-1] + x[:, 1:, :-1] + x[:, :-1, 1:] + x[:, 1:, 1:])
    return x


def _gram(maps: Array) -> Array:
    """Sums of products over positions, divided by C·H·W: [C, H, W] → [C, C]."""
    flat = maps.reshape(len(maps), -1)
    return flat @ flat.T / np.float32(flat.size)


def _as_image(pixels: NDArray[np.uint8]) -> Array:
    """uint8 [H, W, 3] → float32 [3, H, W] in [0, 1]."""
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
