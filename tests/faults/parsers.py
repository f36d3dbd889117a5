"""What reads files that may come from elsewhere: for each, whole files to begin with and the public function."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from onnx import TensorProto, helper
from PIL import Image

from core import checkpoint
from core.config import from_plain as config_from_plain
from core.event_file import EventFile
from core.inference import OnnxModel
from core.model_file import describe_model
from core.plain import to_plain
from core.run_record import read_record, read_run
from core.vision.decoding import center_square, decode
from core.vision.network_file import load_network, save_network
from core.weights import read_weights
from tests import toy
from tests.faults.project_formats import FORMATS
from tests.faults.request_bodies import BODIES

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


def _write_metrics(folder: Path) -> None:
    _write_run(folder)
    lines = [{"step": step, "epoch": 0, "train/loss": 1 / (step + 1), "seconds": 0.5 * step} for step in range(1, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _read_metrics(folder: Path) -> None:
    """What the programs do with the runs that they look at."""
    record = read_record(folder)
    for name in record.names:
        record.values(name)
    for each in (record.elapsed, record.last_step, record.best_step, record.samples_per_second):
        str(each)


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


def _write_onnx(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(_onnx({**_HEAD, "facts": _FACTS}))


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


def _write_network(folder: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Flatten(), torch.nn.Linear(32, 2))
    mean, std, classes = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), ("a", "b")
    path = folder / "n.safetensors"
    save_network(path, network, architecture="any", image_size=4, mean=mean, std=std, classes=classes)


def _write_events(folder: Path) -> None:
    events = EventFile(folder / "tensorboard", {"lr": 0.1})
    for step in range(4):
        events.add(step, {"loss": 1 / (step + 1)})
    events.close()
    (path,) = (folder / "tensorboard").iterdir()
    (folder / "events").write_bytes(path.read_bytes())


def _read_events(folder: Path) -> None:
    """What a resumed run does with the file of the run before."""
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard").mkdir()
    shutil.copy(folder / "events", folder / "tensorboard" / "events.out.tfevents.1")
    EventFile(folder / "tensorboard", {"lr": 0.1}, num_kept=4).close()


PARSERS = {
    "run.json": Parser(_write_run, "run.json", _read_run),
    "metrics.jsonl": Parser(_write_metrics, "metrics.jsonl", _read_metrics),
    "checkpoint state": Parser(_write_checkpoint, "checkpoints/step-00000001/state.json", _read_resealed),
    "checkpoint tensors": Parser(_write_checkpoint, "checkpoints/step-00000001/model.safetensors", _read_resealed),
    "checkpoint manifest": Parser(
        _write_checkpoint,
        f"checkpoints/step-00000001/{checkpoint.MANIFEST}",
        lambda folder: checkpoint.load(checkpoint.folder_of(folder, 1)),
    ),
    "onnx metadata": Parser(lambda folder: (folder / "facts.json").write_bytes(_FACTS), "facts.json", _read_metadata),
    "onnx file": Parser(_write_onnx, "m.onnx", _read_onnx),
    "onnx file, inspected": Parser(_write_onnx, "m.onnx", lambda folder: describe_model(folder / "m.onnx")),
    "safetensors": Parser(
        lambda folder: safetensors.torch.save_file({"w": torch.arange(6.0)}, folder / "w.safetensors"),
        "w.safetensors",
        lambda folder: read_weights(folder / "w.safetensors"),
    ),
    "pth": Parser(_save_pth, "w.pth", lambda folder: read_weights(folder / "w.pth")),
    **{s: Parser(_image(s), f"x.{s}", _read_image(s)) for s in ("png", "jpg", "tif", "webp", "gif", "bmp")},
    "network file": Parser(_write_network, "n.safetensors", lambda folder: load_network(folder / "n.safetensors")),
    "event file": Parser(_write_events, "events", _read_events),
    **{name: Parser(*each) for name, each in (FORMATS | BODIES).items()},
}
