"""The web program: what it refuses, with nothing left behind, and where the browser's runtime may come from."""

import io
import os
import tarfile
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from core.web import web
from tests.conftest import ROOT
from tests.refusals import assert_refused
from tests.toy import Config, ToyFacts

TASK = "doubling"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx, and a cache that is empty."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in {"schema_version": "2", "task": f'"{TASK}"', "facts": '{"data_sha256": "none"}'}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(tmp_path / "model.onnx"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def call(*argv: object, task: str = TASK) -> None:
    web(Config, ToyFacts, task, argv=["model.onnx", "--output", "site", *map(str, argv)])


def test_a_model_of_another_task_and_an_output_that_is_in_use_are_refused(folder: Path) -> None:
    assert_refused(partial(call, task="another"), "another", folder)
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("mine")
    assert_refused(call, "--output site", folder)


def test_a_runtime_that_lacks_a_file_or_has_another_is_refused(folder: Path) -> None:
    runtime = folder / "dist"
    runtime.mkdir()
    assert_refused(partial(call, "--runtime", runtime), "ort.wasm.min.mjs", folder)
    (runtime / "ort.wasm.min.mjs").write_text("another")
    assert_refused(partial(call, "--runtime", runtime), "ort.wasm.min.mjs", folder)


def package_of_other_files() -> bytes:
    """A package of the right names and other contents."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = 7
            archive.addfile(entry, io.BytesIO(b"another"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("npm", "named"),
    [
        (None, "npm is not installed"),
        ("echo no network >&2; exit 1", "no network"),
        ("echo torn > onnxruntime-web.tgz", "onnxruntime-web@"),
        ('cp "$PACKAGE" onnxruntime-web.tgz', "ort.wasm.min.mjs"),
    ],
)
def test_without_the_package_from_npm_the_way_to_do_without_is_said(
    npm: str | None, named: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = folder / "programs"
    programs.mkdir()
    (folder / "cache").mkdir()
    (folder / "other.tgz").write_bytes(package_of_other_files())
    monkeypatch.setenv("PACKAGE", str(folder / "other.tgz"))
    path = str(programs)
    if npm is not None:
        (programs / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (programs / "npm").chmod(0o755)
        path = os.pathsep.join([path, "/usr/bin", "/bin"])
    monkeypatch.setenv("PATH", path)
    assert_refused(call, named, folder)


def test_pages_hold_no_address_and_make_no_markup_of_text() -> None:
    sources = [path for room in ("core/pages", "projects") for path in (ROOT / room).rglob("*.js")]
    assert len(sources) > 20
    for path in sources:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        outside = ("http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
        assert not [word for word in outside if word in text], path
