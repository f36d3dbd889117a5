"""Counts how many images are classified right: those below a folder named like a class. numpy alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-5


class Tally:
    """Counts right labels, of all files averaged and of each alone, with and without mirror images.

    names: of the files; flip: whether mirror images are averaged too.
    """

    def __init__(self, classes: Sequence[str], names: Sequence[str], *, flip: bool) -> None:
        self.num = self._num_known = 0
        self._classes, self._names, self._flip = {name: label for label, name in enumerate(classes)}, names, flip
        self._right = np.zeros(2 + len(names), dtype=np.int64)  # together, without mirror images, each file alone
        self._largest_change = 0.0

    def add(self, path: Path, parts: NDArray[np.float32]) -> None:
        """Counts an image. parts: what was averaged for it, [files, views, num_classes]."""
        self.num += 1
        self._largest_change = max(self._largest_change, float(np.abs(parts[:, 0] - parts[:, -1]).max()))
        label = next((self._classes[part] for part in reversed(path.parent.parts) if part in self._classes), None)
        if label is not None:
            self._num_known += 1
            means = np.stack([parts.mean((0, 1)), parts[:, 0].mean(0), *parts.mean(1)])
            self._right += means.argmax(1) == label

    def lines(self) -> Iterator[str]:
        """What to say at the end: the accuracy, if folders name classes."""
        if self._flip and self._largest_change < _SAME:
            yield "note: --tta flip changes nothing here: the file averages over the mirrored image itself"
        if not self._num_known:
            return
        together, unflipped, *alone = self._right / self._num_known
        num_others = self.num - self._num_known
        others = f"; {num_others:,} others lie in no such folder" if num_others else ""
        yield f"accuracy {together:.4f} of {self._num_known:,} images whose folder names a class{others}"
        if self._flip:
            yield f"without --tta flip {unflipped:.4f}"
        if len(alone) > 1:
            yield "alone: " + ", ".join(f"{name} {share:.4f}" for name, share in zip(self._names, alone, strict=True))
