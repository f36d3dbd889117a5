"""core.inspect describes any ONNX file with onnx alone, and says of a run how far it came and what to run next."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from core.checkpoint import folders
from core.folder_lock import lock_folder
from core.inspect import describe_run
from core.model_file import describe_model
from tests import forked, toy
from tests.conftest import ROOT
from tests.refusals import assert_refused

# Runs core.inspect as -m does, where neither torch nor onnxruntime can be imported. A module of Python's own that rich
# and dataclasses import has that name too.
ALONE = "import sys, runpy; sys.modules['torch'] = sys.modules['onnxruntime'] = None; "
ALONE += "runpy.run_module('core.inspect', run_name='__main__', alter_sys=True)"


def foreign_model(**metadata: str) -> onnx.ModelProto:
    """A file of another program: an If with a branch that holds weights of its own, and an operator of its own."""
    branches = {}
    for name, num in (("then_branch", 3), ("else_branch", 5)):
        weights = helper.make_tensor("w", TensorProto.FLOAT, [num], [1.0] * num)
        nodes = [helper.make_node("ReduceSum", ["w"], ["y"], keepdims=0)]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
        branches[name] = helper.make_graph(nodes, name, [], [result], [weights])
    nodes = [
        helper.make_node("If", ["flag"], ["z"], **branches),
        helper.make_node("Odd", ["z", "half"], ["out"], domain="com.example"),
    ]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    half = helper.make_tensor("half", TensorProto.FLOAT16, [2, 2], [0.5] * 4)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT16, ["n", None, 2])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph(nodes, "g", [flag], [out], [half])
    model = helper.make_model(graph, opset_imports=opsets, producer_name="another", ir_version=10)
    helper.set_model_props(model, metadata)
    return model


def alone(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """core.inspect in a process without torch and onnxruntime."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_a_file_of_another_program_is_described_with_onnx_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(foreign_model(author="A \x1b[31m[bold]B", task="{not json").SerializeToString())
    done = alone(path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["operators"] == {"ReduceSum": 2, "If": 1, "com.example.Odd": 1}
    assert found["weights"] == {"float32": 8, "float16": 4}
    assert found["inputs"] == {"flag": {"dtype": "bool", "shape": [], "meaning": None}}
    assert found["outputs"]["out"]["shape"] == ["n", "?", 2]
    assert found["bytes"] == path.stat().st_size
    assert found["project"] is None
    shown = alone(path)
    assert "[bold]B" in shown.stdout  # foreign text is no markup
    assert "\x1b" not in shown.stdout


def test_a_file_without_its_weights_or_with_a_fault_is_described_and_said_to_be_so(tmp_path: Path) -> None:
    model = foreign_model()
    model.graph.node[1].input[0] = "nothing"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "nothing" in describe_model(tmp_path / "m.onnx")["fault"]
    half = model.graph.initializer[0]
    half.ClearField("int32_data")
    half.data_location = onnx.TensorProto.EXTERNAL
    half.external_data.add(key="location", value="../elsewhere.bin")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert describe_model(tmp_path / "m.onnx")["weights"] == {"float32": 8, "float16": 4}


@pytest.mark.parametrize("content", [b"", b"no model", foreign_model().SerializeToString()[:-40]])
def test_a_broken_file_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert_refused(partial(describe_model, path), "broken.onnx", tmp_path)
    assert_refused(partial(describe_model, tmp_path / "none.onnx"), "none.onnx", tmp_path)


def test_numbers_that_json_does_not_have_do_not_reach_the_output(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    metrics = '{"a": NaN, "b": 1e999, "c": 0.5}'
    path.write_bytes(foreign_model(metrics=metrics, facts="[1]", parity="3").SerializeToString())
    assert describe_model(path)["metrics"] == {"a": None, "b": None, "c": 0.5}


def test_a_run_says_how_far_it_came_and_what_to_run_next(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = ["--max-steps", 20, "--checkpoint-every", 8, "--keep", 9]
    assert forked.run(toy.main, ["--run-dir", run_dir, *settings]) == 0
    found = describe_run(run_dir)
    assert (found["state"], found["steps"]) == ("complete", 20)
    assert [each["step"] for each in found["checkpoints"]] == [int(path.name[5:]) for path in folders(run_dir)]
    assert {each["fault"] for each in found["checkpoints"]} == {None}
    assert found["last_values"]["train/loss"]["step"] == 20
    assert f".export {run_dir}" in found["next"]

    (run_dir / "summary.json").unlink()
    newest = max((folders(run_dir)[-1]).glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "train/lo')
    found = describe_run(run_dir)
    assert found["state"] == "stopped"
    assert [each["step"] for each in found["checkpoints"] if each["fault"]] == [20]
    assert newest.name in found["checkpoints"][-1]["fault"]
    assert f".train --resume {run_dir}" in found["next"]

    lock = lock_folder(run_dir, must_be_empty=False)
    before = (run_dir / "run.lock").read_bytes()
    assert describe_run(run_dir)["state"] == "running"
    os.close(lock)
    assert describe_run(run_dir)["state"] == "stopped"
    assert (run_dir / "run.lock").read_bytes() == before
