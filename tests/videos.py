"""Small videos for tests, made with PyAV."""

import importlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def make_video(
    path: Path,
    *,
    num: int = 20,
    rate: Fraction = Fraction(25),
    audio: bool = True,
    gaps: bool = False,
    noise: bool = False,
) -> Path:
    """Writes `num` gray frames of 64×48 pixels, each 10 levels brighter than the one before, and a second of sound.

    gaps: makes the time between frames vary. noise: fills the frames with noise, which takes many bytes.
    """
    av: Any = importlib.import_module("av")
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44_100, layout="mono") if audio else None
        if num:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num):
            pixels = np.full((48, 64, 3), 10 * number % 256, dtype=np.uint8)
            if noise:
                pixels = np.random.default_rng(number).integers(0, 256, pixels.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + (number // 5) * 3 * gaps, 1 / rate
            container.mux(stream.encode(frame))
        if sound is not None:
            samples = np.zeros((1, 1024), dtype=np.float32)
            for start in range(0, 44_100, 1024):
                piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                piece.sample_rate, piece.pts = 44_100, start
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
        if num:
            container.mux(stream.encode(None))
    return path
