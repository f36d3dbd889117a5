"""How an image file is seen: decoded, upright, in RGB, as a square. Every size, box and pixel comes from here.

numpy and Pillow, no torch. Orientation: EXIF 2.3, tag 274, https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from core.errors import UserError
from core.text_files import open_regular

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 1 << 30
# Of an image that is longer than this many times its shorter side, the middle part of that length is used. Without a
# limit, an image of 1×100,000 pixels would be resized to 224×22,400,000.
MAX_ASPECT = 16

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: Path) -> NDArray[np.uint8]:
    """An image as it is seen: uint8 [H, W, 3], RGB, upright. Raises UserError, naming the file and the reason."""
    with _naming(path), _open(path) as file, _opened(file) as image:
        return _to_rgb(image)


def decode_bytes(content: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """decode for a file's content that has been read already; `path` is what messages name."""
    with _naming(path), _opened(io.BytesIO(content), max_pixels) as image:
        return _to_rgb(image)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of what `decode` would give, without decoding. Raises UserError, naming the file."""
    with _naming(path), _open(path) as file, _opened(file) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def center_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The shorter side resized to `size` with antialiasing, then the center: [H, W, 3] → [size, size, 3], uint8."""
    longest = MAX_ASPECT * min(image.shape[:2])
    if max(image.shape[:2]) > longest:
        image = _center(image, min(image.shape[0], longest), min(image.shape[1], longest))
    height, width = (side * size // min(image.shape[:2]) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return _center(image, size, size)


def load_squares(paths: Sequence[Path], size: int, threads: int = 2) -> NDArray[np.uint8]:
    """All images as center squares: uint8 [N, size, size, 3]. Raises UserError for the first broken one."""
    result = np.empty((len(paths), size, size, 3), dtype=np.uint8)

    def fill(rows: range) -> None:
        for row in rows:
            result[row] = center_square(decode(paths[row]), size)

    chunks = [range(start, min(start + 256, len(paths))) for start in range(0, len(paths), 256)]
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without holding the interpreter's lock
        for done in pool.map(fill, chunks):
            assert done is None
    return result


def _open(path: Path) -> BinaryIO:
    """Opens a regular file for reading."""
    return io.BufferedReader(open_regular(path, MAX_FILE_BYTES))  # type: ignore[type-var]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file makes Pillow raise into a UserError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in metadata, which do not matter here
            yield
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types: OSError, struct.error, SyntaxError, IndexError …
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, UnidentifiedImageError):  # whose own text names an object in memory
            reason = f"none of the formats {', '.join(_FORMATS)}"
        text = reason.strip().partition("\n")[0] or type(error).__name__
        raise UserError("not a readable image", f"{path} ({text})", "replace or remove it") from error


@contextmanager
def _opened(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image in an open file, its pixels not decoded yet. Raises ValueError for one that is too large."""
    with Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise ValueError(f"{image.width}×{image.height} pixels, more than {max_pixels:,}")
        yield image


def _orientation(image: Image.Image) -> int:
    """How the stored pixels have to be turned, 1 to 8 as in EXIF; 1 where that cannot be read."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself, and gives the size of the turned image
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata beside sound pixels
        return 1


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels in RGB, upright; 16-bit gray is scaled to 8 bits, transparency lies on white.

    Raises ValueError for values whose range is not known: floating-point, 32-bit, and 12-bit ones.
    """
    transposition = _TRANSPOSITIONS.get(_orientation(image))
    bits = _wide_bits(image)
    image.load()
    if transposition is not None:
        image = image.transpose(transposition)
    if bits == 16:
        gray = (np.asarray(image).astype(np.uint16, copy=False) // 257).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return np.asarray(image.convert("RGB"))


def _wide_bits(image: Image.Image) -> int:
    """Bits of a gray value where these are more than 8, else 8. Raises ValueError for what cannot be scaled."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known; convert it to 8 or 16 bits")
    if not image.mode.startswith("I"):
        return 8
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        if image.mode == "I" or bits != 16:
            raise ValueError(f"signed or {bits}-bit pixels, whose range is not known; convert it to 8 or 16 bits")
    return 16  # of PNG and PGM, whose "I" holds 0 to 65,535 too


def _center(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle part of an image."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
