"""What an infer program on images is given, and how it streams: patterns, videos, cameras; batches of one size.

numpy alone. No more than a window of decoded images is held at a time.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.patterns import expanded
from core.vision.folders import input_images

K = TypeVar("K")
R = TypeVar("R")
Pixels = NDArray[np.uint8]  # [H, W, 3], RGB
_VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts"})
_WINDOW_BATCHES, _WINDOW_BYTES = 4, 256 << 20


@dataclass(frozen=True)
class Inputs:
    """Images as pairs (path, name below its folder); videos and cameras; lines on what was left out."""

    images: list[tuple[Path, Path]]
    videos: list[Path]
    notes: list[str]


def find_inputs(given: Sequence[str]) -> Inputs:
    """What the words of a command line stand for, in their order: images, folders of them, patterns such as "a/*.jpg",
    video files, cameras by number or as /dev/video0. Raises UserError for what is not there."""
    paths = expanded(given)
    videos = [path for path in paths if camera_device(path) is not None or (_is_video(path) and not path.is_dir())]
    for path in videos:
        if camera_device(path) is None and not path.exists():
            raise UserError("no such file", path, "give a video, an image or a folder of images")
    images, notes = input_images([path for path in paths if path not in set(videos)])
    return Inputs(images, videos, notes)


def _is_video(path: Path) -> bool:
    """Whether a name is one of a video file."""
    return path.suffix.lower() in _VIDEO_SUFFIXES


def camera_device(path: Path) -> str | None:
    """The device of a camera that is named by its number or as /dev/videoN; None for anything else."""
    if re.fullmatch(r"/dev/video[0-9]+", str(path)):
        return str(path)
    return f"/dev/video{path}" if re.fullmatch("[0-9]{1,2}", str(path)) and not path.exists() else None


@dataclass
class _Waiting(Generic[K, R]):
    """An image that waits for its result, or for those before it."""

    key: K
    pixels: Pixels
    result: list[R] = field(default_factory=list)  # empty, or the one


def in_batches(
    images: Iterable[tuple[K, Pixels]], run: Callable[[Pixels], Sequence[R]], batch_size: int
) -> Iterator[tuple[K, Pixels, R]]:
    """Each image with its key and result, in the order given; those of one size within a window share a batch.

    run: takes uint8 [N, H, W, 3], gives a result for each.
    """
    waiting: deque[_Waiting[K, R]] = deque()
    for key, pixels in images:
        waiting.append(_Waiting(key, pixels))
        while waiting and _is_due(waiting, batch_size):
            yield from _run_first(waiting, run, batch_size)
    while waiting:
        yield from _run_first(waiting, run, batch_size)


def _is_due(waiting: "deque[_Waiting[K, R]]", batch_size: int) -> bool:
    """Whether the first image's batch is full, or the window is."""
    if len(waiting) >= _WINDOW_BATCHES * batch_size or sum(each.pixels.nbytes for each in waiting) >= _WINDOW_BYTES:
        return True
    return len(_like_first(waiting)) >= batch_size


def _like_first(waiting: "deque[_Waiting[K, R]]") -> list[_Waiting[K, R]]:
    """The images without a result that have the first one's size."""
    return [each for each in waiting if not each.result and each.pixels.shape == waiting[0].pixels.shape]


def _run_first(
    waiting: "deque[_Waiting[K, R]]", run: Callable[[Pixels], Sequence[R]], batch_size: int
) -> Iterator[tuple[K, Pixels, R]]:
    """Runs the first image's batch; yields and removes the images up to the first one that has no result yet."""
    batch = _like_first(waiting)[:batch_size]
    for each, result in zip(batch, run(np.stack([each.pixels for each in batch])), strict=True):
        each.result.append(result)
    while waiting and waiting[0].result:
        done = waiting.popleft()
        yield done.key, done.pixels, done.result[0]
