"""Style images as they are used: files, folders of them, or generated ones, reduced to --style-size. No torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.vision.decoding import decode
from core.vision.folders import list_images
from projects.style import synthetic
from projects.style.config import MAX_STYLES, SYNTHETIC, Config

_MAX_PIXELS = 16 << 20  # of a resized style image or photograph of optimize; the losses take about 1 kB a pixel


class StyleImage(NamedTuple):
    """A style image: its name, and uint8 [H, W, 3]."""

    name: str
    pixels: NDArray[np.uint8]


def read_styles(config: Config) -> Sequence[StyleImage]:
    """The style images that the settings name. Raises UserError for equal names and for too many."""
    styles: list[StyleImage] = []
    for given in config.style:
        if given == SYNTHETIC:
            names = synthetic.STYLES[: len(synthetic.STYLES) if config.method == "feedforward" else 1]
            styles += [StyleImage(name, synthetic.draw_style(name, config.seed, config.style_size)) for name in names]
        else:
            paths = list_images(Path(given)).paths if Path(given).is_dir() else [Path(given)]
            styles += [StyleImage(path.stem, resize(decode(path), config.style_size, path)) for path in paths]
    all_names = [style.name for style in styles]
    if len(set(all_names)) < len(all_names):
        raise UserError("two styles of one name", f"--style {' '.join(config.style)}", "rename an image")
    if len(styles) > MAX_STYLES:
        raise UserError("too many styles", f"--style: {len(styles)} images", f"give at most {MAX_STYLES}")
    return styles


def resize(pixels: NDArray[np.uint8], size: int, path: Path) -> NDArray[np.uint8]:
    """An image with its shorter side at `size`, uint8 [H, W, 3]. Raises UserError for one that becomes too long."""
    height, width = (max(1, round(side * size / min(pixels.shape[:2]))) for side in pixels.shape[:2])
    if height * width > _MAX_PIXELS:
        where = f"{path}: {width}×{height} pixels with a shorter side of {size}"
        raise UserError("an image is too long", where, "crop it")
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def sha256_of_pixels(pixels: NDArray[np.uint8]) -> str:
    """The SHA-256 of an image's bytes and size, by which a style is known again."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
