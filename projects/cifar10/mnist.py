"""MNIST and Fashion-MNIST: downloaded, and read from idx files without pickle; scikit-learn's digits, which need none.

MNIST: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist, where the idx format is described. Fashion-MNIST:
Xiao, Rasul and Vollgraf 2017 (arXiv 1708.07747). Digits: Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49.
"""

import gzip
import importlib
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import randomness
from core.download import RemoteFile, fetch
from core.errors import UserError
from core.text_files import open_regular
from core.vision.decoding import center_square
from core.vision.image_set import ImageSet, from_pixels

DIGITS = tuple(str(digit) for digit in range(10))
FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MAX_IDX_BYTES = 64 << 20  # of a file and of what it unpacks to; MNIST's largest has 47 MB
_MIRRORS = {
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    ),
}
# File, bytes, SHA-256.
_FILES = {
    "mnist": (
        ("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion-mnist": (
        ("train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
}
FILES: Mapping[str, Sequence[RemoteFile]] = {
    data: tuple(
        RemoteFile(f"{data}/{name}", size, sha256, tuple(f"{mirror}/{name}" for mirror in _MIRRORS[data]))
        for name, size, sha256 in files
    )
    for data, files in _FILES.items()
}


def load_mnist(data: str, size: int) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """mnist or fashion-mnist: class names, and train and test as RGB squares of `size` pixels."""
    train_images, train_labels, test_images, test_labels = (fetch(file) for file in FILES[data])
    classes = DIGITS if data == "mnist" else FASHION
    return classes, {
        "train": _read_split(train_images, train_labels, size),
        "test": _read_split(test_images, test_labels, size),
    }


def load_digits(size: int) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """scikit-learn's 1,797 digits of 8×8 pixels: class names, train and test; every seed has the same 360 in test."""
    datasets: Any = importlib.import_module("sklearn.datasets")
    loaded = datasets.load_digits()
    images = (np.asarray(loaded.images) * (255 / 16)).round().astype(np.uint8)
    order = randomness.permutation(0, 0, len(images)).numpy()
    rows = {"train": np.sort(order[360:]), "test": np.sort(order[:360])}
    labels = np.asarray(loaded.target, dtype=np.int64)
    return DIGITS, {name: _to_set(images[part], labels[part], size) for name, part in rows.items()}


def read_idx(path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    """The array of bytes in a gzip-compressed idx file.

    Raises UserError for a file that is not one, has another number of dimensions or another length than it says, or
    unpacks to more than MAX_IDX_BYTES.
    """
    try:
        with open_regular(path, MAX_IDX_BYTES) as file, gzip.GzipFile(fileobj=file) as unpacked:
            content = unpacked.read(MAX_IDX_BYTES + 1)
        start = 4 + 4 * num_dimensions
        if content[:4] != bytes([0, 0, 8, num_dimensions]) or len(content) < start:
            raise ValueError(f"it does not begin as {num_dimensions} dimensions of bytes do")
        shape = [int(number) for number in np.frombuffer(content, dtype=">u4", count=num_dimensions, offset=4)]
        if len(content) > MAX_IDX_BYTES or math.prod(shape) != len(content) - start or 0 in shape:
            raise ValueError(f"it says {' × '.join(map(str, shape))} and has {len(content) - start:,} bytes")
        return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            "not a usable idx file", f"{path} ({reason})", "delete it, to have it downloaded again"
        ) from error


def _read_split(images: Path, labels: Path, size: int) -> ImageSet:
    """The two files of a split as a set. Raises UserError where they do not belong together."""
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes) or classes.max() > 9:
        where = f"{labels} ({len(classes):,} labels up to {classes.max()}, {len(pixels):,} images)"
        raise UserError("labels that do not fit their images", where, "delete it, to have it downloaded again")
    return _to_set(pixels, classes.astype(np.int64), size)


def _to_set(gray: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> ImageSet:
    """Gray images [N, H, W] as RGB squares, resized as an exported file does it."""
    pixels = np.empty((len(gray), size, size, 3), dtype=np.uint8)
    for row, image in enumerate(gray):
        pixels[row] = center_square(np.repeat(image[:, :, None], 3, axis=2), size)
    return from_pixels(pixels, labels)
