"""A TensorBoard event file, written record by record.

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

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


class EventFile:
    """Scalars by step, in one file of a folder.

    num_kept: how many records of scalars the folder's older files keep; these are moved into the new file.
    """

    def __init__(self, folder: Path, num_kept: int = 0) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        older = sorted(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns)
        kept = [data for path in older for data in _scalar_records(path)][:num_kept]
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        for data in kept:
            self._records.write(data)
        self._file.flush()
        for path in older:
            path.unlink()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars, as one record."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, **content: Any) -> None:
        """Appends an event."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._file.flush()


def _scalar_records(path: Path) -> Iterator[bytes]:
    """The events of a file that hold scalars, up to the first one that is not whole."""
    from tensorboard.compat.proto.event_pb2 import Event

    content, at = path.read_bytes(), 0
    while len(content) - at >= _LENGTH_BYTES + _CHECKSUM_BYTES:
        (size,) = struct.unpack_from("<Q", content, at)
        begin = at + _LENGTH_BYTES + _CHECKSUM_BYTES
        at = begin + size + _CHECKSUM_BYTES
        if at > len(content):
            return
        try:
            if Event.FromString(content[begin : begin + size]).HasField("summary"):
                yield content[begin : begin + size]
        except Exception:  # of protobuf: the rest cannot be trusted
            return
