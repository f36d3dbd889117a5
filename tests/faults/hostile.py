"""Hostile files: each function writes one into a folder and returns what a user's program does with it.

What they try: pickles that run programs, archives with names that lead out, ONNX files with external data, XML with
entities, annotations and run folders that name or link files elsewhere.
"""

import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

from core import checkpoint
from core.errors import run_command
from core.inference import OnnxModel
from core.vision.decoding import decode
from core.vision.network_file import network_from
from core.weights import read_weights
from tests import toy
from tests.faults.parsers import Facts
from tests.projects import sample_data

Hostile = Callable[[Path, Path], Callable[[], object]]


class _Command:
    """What pickle restores by running a program."""

    def __init__(self, outside: Path) -> None:
        self._outside = outside

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._outside / 'written'}; cat {self._outside / 'canary'}",)


def _pickle_as_weights(inside: Path, outside: Path) -> Callable[[], object]:
    torch.save({"state_dict": _Command(outside)}, inside / "w.pth")
    return lambda: read_weights(inside / "w.pth")


def _bare_pickle_as_weights(inside: Path, outside: Path) -> Callable[[], object]:
    (inside / "w.pth").write_bytes(pickle.dumps(_Command(outside)))
    return lambda: read_weights(inside / "w.pth")


def _pickle_as_safetensors(inside: Path, outside: Path) -> Callable[[], object]:
    (inside / "w.safetensors").write_bytes(pickle.dumps(_Command(outside)))
    return lambda: read_weights(inside / "w.safetensors")


def _weights_with_names_that_lead_out(inside: Path, outside: Path) -> Callable[[], object]:
    torch.save({"w": torch.zeros(2)}, inside / "good.pth")
    with zipfile.ZipFile(inside / "good.pth") as good, zipfile.ZipFile(inside / "w.pth", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name))
        bad.writestr("../outside/written", "x")
        bad.writestr(f"{outside}/written", "x")
    return lambda: read_weights(inside / "w.pth")


def _network_that_calls_a_program(inside: Path, outside: Path) -> Callable[[], object]:
    program = {"nodes": [["x", "function", "os.system", [f"touch {outside / 'written'}"], {}]], "outputs": ["x"]}
    about = {"format": 1, "classes": ["a"], "architecture": "x", "program": program}
    about |= {"image_size": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
    content = safetensors.torch.save({"w": torch.zeros(1)}, {"about": json.dumps(about)})
    return lambda: network_from(content, inside)


def _onnx_with_external_data(location: str) -> Hostile:
    def write(inside: Path, outside: Path) -> Callable[[], object]:
        weight = numpy_helper.from_array(np.zeros(6, np.uint8), "w")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location.replace("OUTSIDE", str(outside)))
        given, made = (helper.make_tensor_value_info(name, TensorProto.UINT8, [6]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Max", ["x", "w"], ["y"])], "g", [given], [made], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        (inside / "m.onnx").write_bytes(model.SerializeToString())
        return lambda: OnnxModel(inside / "m.onnx", task="x", facts=Facts, threads=1)

    return write


def _voc(change: Callable[[str, Path], str]) -> Hostile:
    """A folder of annotations, one of which is changed."""

    def write(inside: Path, outside: Path) -> Callable[[], object]:
        from projects.detection.datasets import read_folder

        path = sample_data.write_voc(inside) / "Annotations" / "00.xml"
        (inside / "JPEGImages" / "00.png").unlink()
        path.write_text(change(path.read_text(), outside))
        return lambda: read_folder(inside)

    return write


def _entity(text: str, outside: Path) -> str:
    head = f"<!DOCTYPE a [<!ENTITY x SYSTEM 'file://{outside / 'canary'}'>]>"
    return head + text.replace("amber", "&x;")


def _external_dtd(text: str, outside: Path) -> str:
    return f"<!DOCTYPE a SYSTEM 'file://{outside / 'canary'}'>{text}"


def _many_entities(text: str, outside: Path) -> str:
    entities = "".join(f"<!ENTITY e{n + 1} '{f'&e{n};' * 20}'>" for n in range(9))
    return f"<!DOCTYPE a [<!ENTITY e0 'ha'>{entities}]>" + text.replace("amber", "&e9;")


def _coco_that_names(file_name: str) -> Hostile:
    def write(inside: Path, outside: Path) -> Callable[[], object]:
        from projects.detection.datasets import read_folder

        images = [{"id": 1, "file_name": file_name.replace("OUTSIDE", str(outside)), "width": 40, "height": 30}]
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}
        body = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "cell"}]}
        for split in ("train", "valid"):
            (inside / split).mkdir()
            (inside / split / "_annotations.coco.json").write_text(json.dumps(body))
        return lambda: read_folder(inside)

    return write


def _tar_with_names_and_links_that_lead_out(inside: Path, outside: Path) -> Callable[[], object]:
    with tarfile.open(inside / "x.tar.gz", "w:gz") as archive:
        for name in ("../outside/written", "aclImdb/train/pos/../../../../outside/written", f"{outside}/written"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
            member = tarfile.TarInfo(f"aclImdb/train/pos/{number}_9.txt")
            member.type, member.linkname = kind, str(outside / "canary")
            archive.addfile(member)
    return _read_archive("read_imdb", inside / "x.tar.gz")


def _zip_with_names_that_lead_out(inside: Path, outside: Path) -> Callable[[], object]:
    with zipfile.ZipFile(inside / "x.zip", "w") as archive:
        for name in ("SST-2/train.tsv", "SST-2/dev.tsv", "../outside/written", f"{outside}/written"):
            archive.writestr(name, "sentence\tlabel\ngood\t1\n")
    return _read_archive("read_sst2", inside / "x.zip")


def _read_archive(function: str, path: Path) -> Callable[[], object]:
    """Reads an archive in the place of a published one, as if its SHA-256 fitted."""
    from projects.sentiment import archives

    def read() -> object:
        setattr(archives, "fetch", lambda file: path)  # noqa: B010
        return getattr(archives, function)()

    return read


def _postscript_as_image(inside: Path, outside: Path) -> Callable[[], object]:
    text = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({outside / 'canary'}) (r) file\n%%EOF\n"
    (inside / "x.png").write_text(text)
    return lambda: decode(inside / "x.png")


def _link_in_a_run(name: str) -> Hostile:
    """A stopped run in which something is a link to a file or folder elsewhere."""

    def write(inside: Path, outside: Path) -> Callable[[], object]:
        run_dir = inside / "run"
        with redirect_stderr(io.StringIO()):
            toy.main(["--run-dir", str(run_dir), "--epochs", "1", "--max-steps", "4", "--checkpoint-every", "2"])
        (run_dir / "summary.json").unlink()
        newest = checkpoint.folders(run_dir)[-1].name
        place = run_dir / name.replace("NEWEST", newest)
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        is_folder = "." not in name and name != "checkpoints/NEWEST/state"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside if is_folder else outside / "canary")
        return lambda: run_command(lambda: toy.main(["--resume", str(run_dir), "--max-steps", "6"]))

    return write


def _manifest_that_names_a_file_elsewhere(inside: Path, outside: Path) -> Callable[[], object]:
    folder = checkpoint.save(inside, 1, {"model": {"w": torch.zeros(2)}}, project="any")
    body = {key: v for key, v in json.loads((folder / checkpoint.MANIFEST).read_bytes()).items() if key != "sha256"}
    name = os.path.relpath(outside / "canary", folder)
    body["files"][name] = {"size": 6, "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}
    (folder / checkpoint.MANIFEST).write_bytes(checkpoint.sealed(body))
    return lambda: checkpoint.load(folder)


_LINKS = ("run.lock", "run.json", "metrics.jsonl", "tensorboard", "tensorboard/x.tfevents", "checkpoints", "plots")
HOSTILE: dict[str, Hostile] = {
    "weights: pickle in a zip": _pickle_as_weights,
    "weights: bare pickle": _bare_pickle_as_weights,
    "weights: pickle called safetensors": _pickle_as_safetensors,
    "weights: names that lead out": _weights_with_names_that_lead_out,
    "network file: a call of os.system": _network_that_calls_a_program,
    "onnx: external data, relative": _onnx_with_external_data("../outside/canary"),
    "onnx: external data, absolute": _onnx_with_external_data("OUTSIDE/canary"),
    "voc: external entity": _voc(_entity),
    "voc: external document type": _voc(_external_dtd),
    "voc: entities in entities": _voc(_many_entities),
    "voc: file name that leads out": _voc(lambda text, _: text.replace("00.png", "../../outside/canary.png")),
    "voc: absolute file name": _voc(lambda text, outside: text.replace("00.png", f"{outside}/canary.png")),
    "coco: file name that leads out": _coco_that_names("../../outside/canary.png"),
    "coco: absolute file name": _coco_that_names("OUTSIDE/canary.png"),
    "archive: tar": _tar_with_names_and_links_that_lead_out,
    "archive: zip": _zip_with_names_that_lead_out,
    "image: PostScript": _postscript_as_image,
    "checkpoint: manifest that leads out": _manifest_that_names_a_file_elsewhere,
    **{f"run: {name} is a link": _link_in_a_run(name) for name in _LINKS},
    "run: a checkpoint is a link": _link_in_a_run("checkpoints/NEWEST"),
    "run: a checkpoint's file is a link": _link_in_a_run("checkpoints/NEWEST/model.safetensors"),
}
