"""Model cards hold foreign names harmlessly, never replace a file that is not theirs, and packages are whole."""

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from core.config import RunConfig
from core.model_card import CARD, model_card, write_card, write_package
from core.model_file import describe_model
from core.program import ExportOptions, parse_export
from tests.refusals import assert_refused

HOSTILE = ("| a |", "`x`](http://e.vil)", "<script>", "**b**\n# title", "---\nlicense: mit", "k: [1", "\ud800", "&amp;")


def write_model(folder: Path, **facts: Any) -> Path:
    """An exported file with its report, and a plot of its run."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entries = {
        "schema_version": 2,
        "project": "some",
        "task": "image classification",
        "pipeline_tag": "image-classification",
        "usage": 'open("MODEL.onnx")\n',
        "facts": {"model": "small", "data_sha256": "ab" * 32, **facts},
        "metrics": {"test_accuracy": 0.75, "num_test": 4, "best_val_accuracy": 0.5, "seconds": 3.5},
        "training": {"lr": 0.1},
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in entries.items()})
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    (folder / "model.parity.json").write_text("{}")
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots" / "curves.png").write_bytes(b"an image")
    return path


def test_foreign_names_are_shown_and_read_as_nothing_else(tmp_path: Path) -> None:
    path = write_model(tmp_path, classes=HOSTILE, model="a: b\n- c")
    card = model_card(describe_model(path))
    _, front, body = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["model-index"][0]["results"][0]["metrics"] == [
        {"type": "accuracy", "name": "test accuracy", "value": 0.75}
    ]
    assert "a: b" in matter["model-index"][0]["name"]
    assert "license" not in matter
    classes = next(line for line in body.splitlines() if line.startswith("<code>&#124;"))
    assert classes.count("<code>") == len(HOSTILE)
    assert not set("|`[]*#\n\\") & set(classes.replace("&#", ""))
    assert "<script" not in body


def test_a_card_of_its_own_is_replaced_and_any_other_file_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, card = write_model(tmp_path, classes=["a"]), tmp_path / CARD
    write_card(path, tmp_path)
    write_model(tmp_path, classes=["a", "b"])
    write_card(path, tmp_path)
    assert "2 classes" in card.read_text("utf-8")
    assert "plots/curves.png" in card.read_text("utf-8")
    assert capsys.readouterr().err == ""
    for content in (card.read_bytes().replace(b"# license:", b"license: mit #"), b"my own notes\n", b""):
        card.write_bytes(content)
        write_card(path, tmp_path)
        assert card.read_bytes() == content
        assert CARD in capsys.readouterr().err


@pytest.mark.parametrize("name", ["package", "package.zip"])
def test_a_package_has_everything_under_names_that_its_card_uses(name: str, tmp_path: Path) -> None:
    run_dir, target = tmp_path / "run", tmp_path / name
    run_dir.mkdir()
    path = write_model(run_dir)
    write_package(target, path, run_dir, int8=False)
    if target.is_file():
        zipfile.ZipFile(target).extractall(tmp_path / "unpacked")
        target = tmp_path / "unpacked"
    files = {str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()}
    assert files == {CARD, "model.onnx", "model.parity.json", "plots/curves.png"}
    assert (target / "model.onnx").read_bytes() == path.read_bytes()
    assert "(plots/curves.png)" in (target / CARD).read_text("utf-8")
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_package_that_cannot_be_whole_leaves_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    with pytest.raises(FileNotFoundError):
        write_package(tmp_path / "package", path, tmp_path, int8=True)  # there is no 8-bit copy
    assert not (tmp_path / "package").exists()


def test_a_package_is_never_written_over_something(tmp_path: Path) -> None:
    (tmp_path / "there.zip").write_bytes(b"mine")

    def output_of(package: str) -> Path:
        argv = [str(tmp_path), "--package", str(tmp_path / package)]
        return parse_export(RunConfig, ExportOptions, argv).output

    for package, named in (("there.zip", "there.zip"), ("nowhere/p.zip", "nowhere")):
        assert_refused(partial(output_of, package), named, tmp_path)
