"""Frames of a video or camera one by one, and videos written frame by frame with the same times and audio.

Reads and writes with PyAV (https://pyav.basswood-io.com), which brings FFmpeg along; the extra `video` installs it.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from core.errors import RunError, UserError, note_saved, printable
from core.files import temporary_beside
from core.vision.inputs import Pixels, camera_device

_CODECS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
_CONTAINERS = {".m4v": "mp4", ".mkv": "matroska"}  # by ending, where the name is another
_SECONDS_MISSING = 0.5  # at the end of a video, before it is noted
_QUALITY = {"libx264": {"crf": "18"}, "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "5"}}
# A file is read as what it is, and may name no other file or address: playlists are not in this list.
_READ_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc",
}


class Frame(NamedTuple):
    """number: from 0 on; seconds: since the first frame; pts: its time in units of the video's time_base, as stored."""

    number: int
    seconds: float
    pts: int
    pixels: Pixels


class Video:
    """A context that reads a video file, or a camera by its number or as /dev/videoN. Raises UserError.

    rate: frames a second as the file states it; time_base: seconds of a unit of `pts`; num_frames: 0 where it is not
    known, as of a camera.
    """

    def __init__(self, path: Path) -> None:
        _check_installed()
        self.path, self.is_camera = path, camera_device(path) is not None
        self._av: Any = importlib.import_module("av")
        try:
            if self.is_camera:
                self._container = self._av.open(camera_device(path), format="v4l2")
            else:
                self._container = self._av.open(f"file:{path.absolute()}", options=_READ_OPTIONS)
            self._stream = self._container.streams.video[0]
        except Exception as error:  # of FFmpeg, a class for each of its codes; IndexError for a file of sound alone
            what = "not a usable camera" if self.is_camera else "not a readable video"
            reason = "it has no images" if isinstance(error, IndexError) else _reason(error)
            raise UserError(what, f"{camera_device(path) or path} ({reason})", "give another") from error
        self._stream.thread_type = "AUTO"
        self.audio = next(iter(self._container.streams.audio), None)
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.time_base = Fraction(self._stream.time_base or 1 / self.rate)
        self.num_frames = int(self._stream.frames or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self, every: int = 1, writer: "VideoWriter | None" = None) -> Iterator[Frame]:
        """All frames, or every n-th from the first on, upright. writer: takes the audio as it is.

        Raises RunError where the file is damaged, after the frames before; a file that ends too early is noted on
        standard error.
        """
        number, first, pts = 0, 0, 0
        streams = [self._stream] if writer is None or self.audio is None else [self._stream, self.audio]
        try:
            for packet in self._container.demux(*streams):
                if packet.stream is not self._stream:
                    if writer is not None:
                        writer.copy_audio(packet)
                    continue
                for decoded in packet.decode():
                    pts = round(number / self.rate / self.time_base) if decoded.pts is None else decoded.pts
                    first = pts if number == 0 else first
                    if number % every == 0:
                        yield Frame(number, float((pts - first) * self.time_base), pts, _upright(decoded))
                    number += 1
        except self._av.FFmpegError as error:
            where = f"{self.path} ({_reason(error)})"
            raise RunError(f"the video breaks off after frame {number - 1}", where, "repair or replace it") from error
        if number == 0:
            raise UserError("not a readable video", f"{self.path} (it has no frames)", "give another")
        seconds, stated = float((pts - first) * self.time_base + 1 / self.rate), self._stated_seconds()
        if stated > seconds + _SECONDS_MISSING:
            lengths = f"its frames end after {seconds:.1f} s, stated are {stated:.1f} s"
            print(f"note: {printable(f'{self.path} may be damaged: {lengths}')}", file=sys.stderr)

    def _stated_seconds(self) -> float:
        """The length of the stream of images as the file states it; 0 where it does not."""
        if self._stream.duration:
            return float(self._stream.duration * self.time_base)
        written = re.fullmatch(r"(\d+):(\d+):([\d.]+)", self._stream.metadata.get("DURATION", ""))  # Matroska's way
        return (
            sum(float(part) * 60**power for power, part in zip((2, 1, 0), written.groups(), strict=True))
            if written
            else 0.0
        )


class VideoWriter:
    """A context that writes a video with the times and the audio of another, frame by frame, and puts it in place.

    A program that is stopped leaves a video of the frames before; one that refuses its input leaves nothing.
    """

    def __init__(self, path: Path, source: Video) -> None:
        check_video_target(path)
        self.path, self.source, self.num = path, source, 0
        self._temporary = temporary_beside(path)
        self._av: Any = importlib.import_module("av")
        self._container: Any = None
        self._waiting: list[Any] = []  # audio before the first frame
        self._first_pts = 0

    def __enter__(self) -> Self:
        return self

    def add(self, frame: Frame, pixels: Pixels) -> None:
        """Writes uint8 [H, W, 3] at a frame's time; all have one size. An odd side gets one row or column more."""
        pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._open(*pixels.shape[:2])
            self._first_pts = frame.pts if self._audio is None else 0  # a camera's clock began with the machine
        encoded = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        encoded.pts, encoded.time_base = frame.pts - self._first_pts, self.source.time_base
        encoded.duration = round(1 / self.source.rate / self.source.time_base)
        self._container.mux(self._stream.encode(encoded))
        self.num += 1

    def copy_audio(self, packet: Any) -> None:
        """Writes a packet of the source's audio, unchanged."""
        if self._container is None:
            self._waiting.append(packet)
        elif self._audio is not None and packet.dts is not None:
            packet.stream = self._audio
            self._container.mux(packet)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
        if isinstance(error, UserError):
            self._temporary.unlink()
            return
        self._temporary.replace(self.path)
        if error is not None:
            told = f"{self.path} holds the first {self.num:,} frames"
            note_saved(told)
            if isinstance(error, Exception):
                print(f"note: {printable(told)}", file=sys.stderr)

    def _open(self, height: int, width: int) -> None:
        """Begins the file, whose streams have to be known before the first frame."""
        ending = self.path.suffix.lower()
        codec = _CODECS[ending]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._temporary), "w", format=_CONTAINERS.get(ending, ending[1:]))
        self._stream = self._container.add_stream(codec, rate=self.source.rate, options=_QUALITY[codec])
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = self.source.time_base
        self._audio = None
        if self.source.audio is not None:
            try:
                self._audio = self._container.add_stream_from_template(self.source.audio)
            except (self._av.FFmpegError, ValueError) as error:
                kind = f"{self.source.audio.codec_context.name} does not go into {ending} ({_reason(error)})"
                print(f"note: {printable(str(self.path))} has no audio: {kind}", file=sys.stderr)
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            self.copy_audio(packet)


@contextmanager
def leaving_out(*, skip: bool) -> Iterator[None]:
    """Within it, an error of one of several inputs becomes a line on standard error where `skip` says so."""
    try:
        yield
    except (UserError, RunError) as error:
        if not skip:
            raise
        print(f"skipped: {printable(str(error))}", file=sys.stderr)


def _check_installed() -> None:
    """Raises UserError where PyAV is missing."""
    if importlib.util.find_spec("av") is None:
        raise UserError("a library is missing", "av, to read videos", "python -m pip install -e .[video]")


def check_video_target(path: Path) -> None:
    """Raises UserError for a file whose ending is none of a video that can be written."""
    if path.suffix.lower() not in _CODECS:
        raise UserError("not a video that can be written", f"--output {path}", f"known are {', '.join(_CODECS)}")


def video_targets(videos: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Where the result of each video goes in a folder. Raises UserError for two of one name, or an input's place."""
    targets: dict[Path, Path] = {}
    for path in dict.fromkeys(videos):
        name = f"camera{path.name}.mp4" if camera_device(path) else path.name
        target = folder / (name if Path(name).suffix.lower() in _CODECS else f"{name}.mp4")
        if target in targets.values():
            raise UserError("two videos of one name", target, "give one of them in another command")
        if target.exists() and path.exists() and target.samefile(path):
            raise UserError("an input would be overwritten", target, "give another --output")
        targets[path] = target
    return targets


def _upright(frame: Any) -> Pixels:
    """A frame's pixels in RGB, as players turn them."""
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90)  # counterclockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(error: Exception) -> str:
    """The first line of an error's text."""
    text = getattr(error, "strerror", None) or str(error)
    return (str(text).strip() or type(error).__name__).splitlines()[0]
