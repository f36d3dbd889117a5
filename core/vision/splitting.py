"""Which images are held out of a set, and what tells one set from another. No torch.

Training and the evaluation of an exported file both cut with it, so that they mean the same images.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.seeds import permutation

Rows = NDArray[np.int64]


def held_out_rows(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Rows, Rows]:
    """The rows without a random share of all, and that share; each class keeps at least one image."""
    order = permutation(seed, 0, len(labels))
    num = max(1, round(share * len(labels)))
    off, kept = order[:num], order[num:]
    lost = np.setdiff1d(labels[off], labels[kept])
    back = [off[np.flatnonzero(labels[off] == label)[0]] for label in lost]
    kept, off = np.concatenate([kept, np.asarray(back, dtype=np.int64)]), np.setdiff1d(off, back)
    return np.sort(kept), np.sort(off)


def held_out_rows_by_class(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Rows, Rows]:
    """The rows without a random share of each class, and that share; each class keeps at least one image."""
    off: list[int] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = permutation(seed, -1 - int(label), len(rows))
        num = min(max(1, round(share * len(rows))), len(rows) - 1)
        off += rows[order[:num]].tolist()
    kept = np.setdiff1d(np.arange(len(labels)), off)
    return kept, np.sort(np.asarray(off, dtype=np.int64))


def sha256_of_images(digests: NDArray[np.bytes_], labels: NDArray[np.int64]) -> str:
    """The SHA-256 of images' digests and labels, in their order."""
    return hashlib.sha256(digests.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def sha256_of_sets(sets: Mapping[str, str], classes: Sequence[str]) -> str:
    """The SHA-256 of a data set before it is split, from its classes and the SHA-256 of each set by split name."""
    digest = hashlib.sha256("\0".join(classes).encode("utf-8", "surrogateescape"))
    for name in sorted(sets):
        digest.update(f"\0{name}\0{sets[name]}".encode())
    return digest.hexdigest()
