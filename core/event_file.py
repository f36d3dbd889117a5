"""A TensorBoard event file, written record by record: scalars, histograms, images and a run's settings.

torch's writer takes a second longer to load, and tensorboard's own hands every line to a thread. A record is a length,
its checksum, an Event and its checksum: https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_NUM_BINS = 30
_MAX_IMAGE_BYTES = 4 << 20
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SETTINGS_TAG = "_hparams_/session_start_info"  # as tensorboard's hparams plugin looks for them


class EventFile:
    """One file of a folder, which opens with the run's settings.

    num_kept: how many records of scalars the folder's older files keep, with the histograms and images that were
    written before the next one; these are moved into the new file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], num_kept: int = 0) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        older = sorted(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns)
        kept = _kept_records(older, num_kept)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._step = 0
        self._images = _changed_times(folder.parent / "plots") if num_kept else {}
        self._write(file_version="brain.Event:2")
        self._write(summary=_settings_summary(settings))
        for data in kept:
            self._records.write(data)
        self._file.flush()
        for path in older:
            path.unlink()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars, as one record."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._step = step
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def add_histograms(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Adds histograms of the finite ones of named values, at the step of the last scalars."""
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        shown = []
        for name, numbers in values.items():
            finite = numbers[np.isfinite(numbers)].astype(np.float64)
            if finite.size:
                counts, edges = np.histogram(finite, bins=_NUM_BINS)
                histogram = HistogramProto(
                    min=finite.min(),
                    max=finite.max(),
                    num=finite.size,
                    sum=finite.sum(),
                    sum_squares=(finite**2).sum(),
                    bucket_limit=edges[1:].tolist(),
                    bucket=counts.tolist(),
                )
                shown.append(Summary.Value(tag=name, histo=histogram))
        if shown:
            self._write(step=self._step, summary=Summary(value=shown))

    def add_images(self, folder: Path) -> None:
        """Adds the PNG files of a folder that have changed since the last call, at the step of the last scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for path, changed in _changed_times(folder).items():
            if self._images.get(path) == changed:
                continue
            self._images[path] = changed
            if path.stat().st_size <= _MAX_IMAGE_BYTES and (data := path.read_bytes()).startswith(_PNG_SIGNATURE):
                width, height = struct.unpack_from(">II", data, 16)
                image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=data)
                value = Summary.Value(tag=f"plots/{path.relative_to(folder).with_suffix('')}", image=image)
                self._write(step=self._step, summary=Summary(value=[value]))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, **content: Any) -> None:
        """Appends an event."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._file.flush()


def _settings_summary(settings: Mapping[str, Any]) -> Any:
    """What the hparams plugin shows of a run: its settings by name. Everything but numbers and bools is text."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in settings.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            several = isinstance(value, list | tuple)
            start.hparams[name].string_value = " ".join(map(str, value)) if several else str(value)
    content = HParamsPluginData(session_start_info=start).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    return Summary(value=[Summary.Value(tag=_SETTINGS_TAG, metadata=SummaryMetadata(plugin_data=plugin))])


def _changed_times(folder: Path) -> dict[Path, int]:
    """The PNG files of a folder and the folders in it, with the time of their last change."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*.png"))}


def _kept_records(older: list[Path], num_kept: int) -> list[bytes]:
    """The events of files up to the last before scalars number num_kept + 1, without settings."""
    kept, num_scalars = [], 0
    for tags, has_scalars, data in (record for path in older for record in _summary_records(path)):
        num_scalars += has_scalars
        if num_scalars > num_kept:
            break
        if _SETTINGS_TAG not in tags:
            kept.append(data)
    return kept


def _summary_records(path: Path) -> Iterator[tuple[list[str], bool, bytes]]:
    """The events of a file that hold a summary, up to the first one that is not whole: their tags, whether they hold
    scalars alone, and their bytes."""
    from tensorboard.compat.proto.event_pb2 import Event

    content, at = path.read_bytes(), 0
    while len(content) - at >= _LENGTH_BYTES + _CHECKSUM_BYTES:
        (size,) = struct.unpack_from("<Q", content, at)
        begin = at + _LENGTH_BYTES + _CHECKSUM_BYTES
        at = begin + size + _CHECKSUM_BYTES
        if at > len(content):
            return
        try:
            event = Event.FromString(content[begin : begin + size])
        except Exception:  # of protobuf: the rest cannot be trusted
            return
        if event.HasField("summary"):
            values = event.summary.value
            has_scalars = all(value.WhichOneof("value") == "simple_value" for value in values)
            yield [value.tag for value in values], has_scalars, content[begin : begin + size]
