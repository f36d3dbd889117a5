"""Detections in the frames of a video, and the video with their boxes drawn in. No torch."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import printable
from core.progress import counted
from core.vision.inputs import Pixels, in_batches
from core.vision.video import Frame, Video, VideoWriter
from projects.detection.drawings import draw

Record = dict[str, Any]


def detect_in_video(
    video: Video,
    target: Path | None,
    run: Callable[[Pixels], Sequence[Record]],
    classes: Sequence[str],
    *,
    every: int,
    batch_size: int,
) -> Iterator[Record]:
    """Yields the record of every n-th frame, with its number and its time in seconds.

    run: gives the records of uint8 [N, H, W, 3]. target: where to write the video with all of its frames; those between
    have the boxes of the frame before.
    """
    with ExitStack() as stack:
        was_there = target is not None and target.exists()
        writer = None if target is None else stack.enter_context(VideoWriter(target, video))
        frames = counted(video.frames(writer=writer), video.num_frames or None, "frames")
        batch_size = 1 if video.is_camera else max(1, batch_size // every)
        for group, _, record in in_batches(_groups(frames, every, keep=writer is not None), run, batch_size):
            if writer is not None:
                for frame in group:
                    writer.add(frame, np.asarray(draw(frame.pixels, record, classes)))
            first = group[0]
            yield {"path": str(video.path), "frame": first.number, "time_seconds": round(first.seconds, 6), **record}
    if writer is not None:
        print(f"{printable(str(target))}: {writer.num:,} frames{' (replaced)' * was_there}", file=sys.stderr)


def _groups(frames: Iterator[Frame], every: int, *, keep: bool) -> Iterator[tuple[list[Frame], Pixels]]:
    """Every n-th frame with those up to the next one (with `keep`), and its pixels."""
    group: list[Frame] = []
    for frame in frames:
        if frame.number % every == 0:
            if group:
                yield group, group[0].pixels
            group = [frame]
        elif keep:
            group.append(frame)
    if group:
        yield group, group[0].pixels
