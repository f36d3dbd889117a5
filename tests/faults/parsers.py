"""What reads files that may come from elsewhere: for each, whole files to begin with and the public function."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from onnx import TensorProto, helper
from PIL import Image

from core import checkpoint
from core.config import from_plain as config_from_plain
from core.inference import OnnxModel
from core.plain import to_plain
from core.run import read_run
from core.text_files import csv_records
from core.vision.decoding import center_square, decode
from core.weights import read_weights
from tests import toy
from tests.projects import sample_data

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Parser:
    """seeds: makes whole files in an empty folder. file: the one that is changed, below that folder. read: takes the
    folder."""

    seeds: Callable[[Path], object]
    file: str
    read: Read


@dataclass(frozen=True)
class Facts:
    classes: tuple[str, ...]
    threshold: float


def _write_run(folder: Path) -> None:
    config = to_plain(toy.Config())
    body = {"format": 2, "project": "tests", "config": config, "facts": {}, "environment": {}, "history": [[1, {}]]}
    (folder / "run.json").write_text(json.dumps(body))


def _read_run(folder: Path) -> None:
    config_from_plain(toy.Config, read_run(folder).get("config"), folder)


def _write_checkpoint(folder: Path) -> None:
    weight = torch.arange(24.0).reshape(1, 2, 3, 4)
    state = {"model": {"weight": weight}, "loop": {"step": 1, "best": None}, "ranks": [{"a": (1, 2.5)}]}
    checkpoint.save(folder, 1, state, project="any")


def _read_resealed(folder: Path) -> None:
    """Reads a checkpoint whose manifest fits what the files hold now."""
    path = checkpoint.folder_of(folder, 1)
    body = {
        key: value for key, value in json.loads((path / checkpoint.MANIFEST).read_bytes()).items() if key != "sha256"
    }
    for name in body["files"]:
        content = (path / name).read_bytes()
        body["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / checkpoint.MANIFEST).write_bytes(checkpoint.sealed(body))
    checkpoint.load(path)


def _onnx(metadata: dict[str, bytes]) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negative",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value.decode("latin-1"))
    content: bytes = model.SerializeToString()
    return content


_HEAD = {"schema_version": b"2", "task": b'"x"'}
_FACTS = b'{"classes": ["a", "b"], "threshold": 0.5}'


def _read_metadata(folder: Path) -> None:
    content = (folder / "facts.json").read_bytes()
    (folder / "m.onnx").write_bytes(_onnx({**_HEAD, "facts": content}))
    _read_onnx(folder)


def _read_onnx(folder: Path) -> None:
    OnnxModel(folder / "m.onnx", task="x", facts=Facts, threads=1)


def _save_pth(folder: Path) -> None:
    torch.save({"state_dict": {"w": torch.arange(6.0)}, "epoch": 3}, folder / "w.pth")


def _image(suffix: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (23, 31, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), exif=exif)
        (folder / f"x.{suffix}").write_bytes(content.getvalue())

    return write


def _read_image(suffix: str) -> Read:
    return lambda folder: center_square(decode(folder / f"x.{suffix}"), 16)


def _write_coco(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split).mkdir()
        Image.new("RGB", (40, 30)).save(folder / split / "a.png")
        images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
        boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}]
        body = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(body))


def _read_boxes(folder: Path) -> Any:
    from projects.detection.datasets import read_folder

    return read_folder(folder)


def _read_hours(folder: Path) -> Any:
    from projects.forecast.series import read_series

    return read_series(folder / "table.csv")


def _read_reviews(folder: Path) -> Any:
    return list(csv_records(folder / "reviews.csv"))


PARSERS = {
    "run.json": Parser(_write_run, "run.json", _read_run),
    "checkpoint state": Parser(_write_checkpoint, "checkpoints/step-00000001/state.json", _read_resealed),
    "checkpoint tensors": Parser(_write_checkpoint, "checkpoints/step-00000001/model.safetensors", _read_resealed),
    "checkpoint manifest": Parser(
        _write_checkpoint,
        f"checkpoints/step-00000001/{checkpoint.MANIFEST}",
        lambda folder: checkpoint.load(checkpoint.folder_of(folder, 1)),
    ),
    "onnx metadata": Parser(lambda folder: (folder / "facts.json").write_bytes(_FACTS), "facts.json", _read_metadata),
    "onnx file": Parser(
        lambda folder: (folder / "m.onnx").write_bytes(
            _onnx({"schema_version": b"2", "task": b'"x"', "facts": _FACTS})
        ),
        "m.onnx",
        _read_onnx,
    ),
    "safetensors": Parser(
        lambda folder: safetensors.torch.save_file({"w": torch.arange(6.0)}, folder / "w.safetensors"),
        "w.safetensors",
        lambda folder: read_weights(folder / "w.safetensors"),
    ),
    "pth": Parser(_save_pth, "w.pth", lambda folder: read_weights(folder / "w.pth")),
    **{s: Parser(_image(s), f"x.{s}", _read_image(s)) for s in ("png", "jpg", "tif", "webp", "gif", "bmp")},
    "csv of reviews": Parser(sample_data.write_table_of_reviews, "reviews.csv", _read_reviews),
    "csv of hours": Parser(sample_data.write_hours, "table.csv", _read_hours),
    "voc": Parser(sample_data.write_voc, "Annotations/00.xml", _read_boxes),
    "coco": Parser(_write_coco, "train/_annotations.coco.json", _read_boxes),
}
