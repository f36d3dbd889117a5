"""Moved: see core.vision. This file goes when all users moved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.vision.decoding import FORMATS, MAX_PIXELS, center_square, decode, load_squares
from core.vision.folders import SUFFIXES, Listing, input_images, list_classes, list_images

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Listing",
    "Squares",
    "below",
    "collect",
    "decode",
    "list_folder",
    "load_squares",
    "square",
]

square = center_square
list_folder = list_classes


def below(root: Path) -> Sequence[Path]:
    """The images in and below a folder."""
    return list_images(root).paths


def collect(inputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Images of an infer program's inputs."""
    return input_images(inputs)[0]


class Squares:
    """Images that are decoded when asked for: (uint8 square, label, index)."""

    def __init__(self, listing: Listing, indices: NDArray[np.int64], size: int) -> None:
        self.listing, self.indices, self.size = listing, indices, size

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int, random: np.random.Generator) -> Any:
        """Sample `index`."""
        number = int(self.indices[index])
        image = square(decode(self.listing.paths[number]), self.size)
        return image.copy(), int(self.listing.labels[number]), index

    def name(self, index: int) -> str:
        """The sample's path."""
        return str(self.listing.paths[int(self.indices[index])])
