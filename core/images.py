"""Folders of pictures: what is in them, and a picture as one uint8 square.

Layout as in torchvision's ImageFolder: ROOT/CLASS/picture.jpg. A set that fits into memory is held as one uint8
tensor; a larger one is decoded sample by sample in the loader's workers.
"""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from core.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder: paths, int64 labels [N], and what the labels stand for."""

    paths: Sequence[Path]
    labels: NDArray[np.int64]
    classes: Sequence[str]


def list_folder(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """What is in ROOT/CLASS/*, in the order of names; `classes` gives another split's classes, which it must have.

    Raises UserError for no classes, an empty class, and a class that the other split lacks.
    """
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if len(found) < 2 and classes is None:
        raise UserError("fewer than two class folders", root, "give a folder with one folder of pictures per class")
    names = list(classes) if classes is not None else found
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise UserError("a class that the training data lacks", root / unknown[0], f"known are {', '.join(names)}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = sorted(p for p in (root / name).glob("*") if p.suffix.lower() in SUFFIXES)
        if not inside and classes is None:
            raise UserError("a class without pictures", root / name, "add pictures, or remove the folder")
        paths += inside
        labels += [label] * len(inside)
    if not paths:
        raise UserError("no pictures", root, "give a folder with one folder of pictures per class")
    return Listing(paths, np.asarray(labels, dtype=np.int64), names)


def below(root: Path) -> Sequence[Path]:
    """The pictures in and below a folder, in the order of names. Raises UserError where there are none."""
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError("no pictures", root, f"known kinds are {', '.join(sorted(SUFFIXES))}")
    return found


def collect(inputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pictures in the order given, folders replaced by what is in and below them; each with its name below its folder.

    Raises UserError for what is not there, and for a folder without pictures.
    """
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        if given.is_dir():
            found += [(path, path.relative_to(given)) for path in below(given)]
        elif given.exists():
            found.append((given, Path(given.name)))
        else:
            raise UserError("no such file", given, "give a picture or a folder of pictures")
    return found


def decode(path: Path) -> NDArray[np.uint8]:
    """A picture as it is seen: uint8 [H, W, 3], RGB, turned upright. Raises UserError, naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in metadata, which do not matter here
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"{picture.width}×{picture.height} pixels, more than {MAX_PIXELS:,}")
                return np.asarray(upright(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError("not a readable picture", f"{path} ({error})", "replace or remove it") from error


def upright(picture: Image.Image) -> Image.Image:
    """The picture in RGB, rotated as its EXIF data says; 16-bit gray is scaled down, transparency lies on white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture, dtype=np.float64)
        scale = 257.0 if picture.mode != "I" or values.max(initial=0.0) > 255 else 1.0
        return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return picture.convert("RGB")


def square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The shorter side resized to `size` with antialiasing, then the center: [H, W, 3] → [size, size, 3], uint8."""
    height, width = (side * size // min(image.shape[:2]) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def load_squares(paths: Sequence[Path], size: int, threads: int = 2) -> NDArray[np.uint8]:
    """All pictures as squares: uint8 [N, size, size, 3]. Raises UserError for the first broken one."""
    result = np.empty((len(paths), size, size, 3), dtype=np.uint8)

    def fill(numbers: range) -> None:
        for number in numbers:
            result[number] = square(decode(paths[number]), size)

    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without holding the interpreter's lock
        for done in pool.map(fill, _chunks(len(paths), 256)):
            assert done is None
    return result


def _chunks(num: int, size: int) -> Iterator[range]:
    """range(num) in pieces."""
    return (range(start, min(start + size, num)) for start in range(0, num, size))


class Squares:
    """Pictures that are decoded when asked for, a source for the loader's workers: (uint8 square, label, index)."""

    def __init__(self, listing: Listing, indices: NDArray[np.int64], size: int) -> None:
        self.listing, self.indices, self.size = listing, indices, size

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int, random: np.random.Generator) -> Any:
        """Sample `index`; the random choices are made for the whole batch on the device."""
        number = int(self.indices[index])
        image = square(decode(self.listing.paths[number]), self.size)
        return image.copy(), int(self.listing.labels[number]), index

    def name(self, index: int) -> str:
        """The sample's path."""
        return str(self.listing.paths[int(self.indices[index])])
