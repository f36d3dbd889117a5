"""Inference takes this project's files for its own task, names everything else, prints nothing, needs no torch."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from core.errors import UserError
from core.inference import OnnxModel
from core.program import PROVIDERS

ROOT = Path(__file__).parents[2]
FACTS = {"classes": ["ä", "b"], "threshold": 0.5}
METADATA = {"schema_version": "2", "task": '"doubling"', "facts": json.dumps(FACTS)}


@dataclass(frozen=True)
class Facts:
    """What the file says of itself."""

    classes: tuple[str, ...]
    threshold: float


def model(metadata: dict[str, str], *, external: str | None = None) -> bytes:
    """An ONNX file that multiplies x [N, 3] by two."""
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    if external is not None:
        two = onnx.TensorProto(
            name="two", data_type=TensorProto.FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL
        )
        two.external_data.add(key="location", value=external)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [two],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, metadata)
    return bytes(made.SerializeToString())


def facts(**changes: Any) -> bytes:
    """A file with other facts."""
    return model({**METADATA, "facts": json.dumps({**FACTS, **changes})})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file."""
    (tmp_path / "model.onnx").write_bytes(model(METADATA))
    return tmp_path / "model.onnx"


def test_a_file_says_what_it_is_and_runs_by_name(path: Path) -> None:
    loaded = OnnxModel(path, task="doubling", facts=Facts, threads=1)
    assert loaded.metadata == {"schema_version": 2, "task": "doubling", "facts": FACTS}
    assert loaded.facts == Facts(("ä", "b"), 0.5)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(loaded.run(x=x)["y"], 2 * x)
    assert loaded.run(x=x[:0])["y"].shape == (0, 3)


WRONG: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such file"),
    "empty": (b"", "not a usable ONNX file"),
    "text": (b"this is no model\n" * 9, "not a usable ONNX file"),
    "half": (model(METADATA)[:60], "not a usable ONNX file|unknown schema version"),
    "external data": (model(METADATA, external="secret.bin"), "not a usable ONNX file"),
    "no metadata": (model({}), "unknown schema version.*none"),
    "newer schema": (model({**METADATA, "schema_version": "3"}), "unknown schema version.*: 3"),
    "another task": (model({**METADATA, "task": '"halving"'}), "another task.*halving.*doubling"),
    "metadata that is no JSON": (model({**METADATA, "facts": "{"}), "no facts"),
    "deep metadata": (model({**METADATA, "facts": "[" * 100_000}), "no facts"),
    "no facts": (model({key: METADATA[key] for key in ("schema_version", "task")}), "no facts"),
    "classes that are a number": (facts(classes=3), "wrong type of entry: classes in"),
    "a class that is a number": (facts(classes=[1]), "wrong type of entry: classes in"),
    "a missing fact": (model({**METADATA, "facts": '{"classes": []}'}), "missing entry: threshold in"),
    "an unknown fact": (facts(more=1), "unknown entry: more in"),
    "no task": (model({"schema_version": "2"}), "another task"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_cannot_be_used_is_a_user_error_that_names_it(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, message = WRONG[kind]
    (tmp_path / "secret.bin").write_bytes(np.float32(2).tobytes())
    if content is not None:
        (tmp_path / "given.onnx").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        OnnxModel(tmp_path / "given.onnx", task="doubling", facts=Facts)
    assert "given.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        OnnxModel(tmp_path, task="doubling", facts=Facts)


GOOD = np.ones((2, 3), dtype=np.float32)
INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "dtype": ({"x": GOOD.astype(np.float64)}, r"x is float64 .*tensor\(float\)"),
    "bytes": ({"x": GOOD.astype(np.uint8)}, "x is uint8"),
    "dimensions": ({"x": GOOD[0]}, r"x is float32 \(3,\)"),
    "name": ({"image": GOOD}, r"inputs are \['image'\]; the model takes \['x'\]"),
    "one too many": ({"x": GOOD, "y": GOOD}, r"inputs are \['x', 'y'\]"),
    "none": ({}, r"inputs are \[\]"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_a_wrong_input_is_refused_by_name(kind: str, path: Path) -> None:
    inputs, message = INPUTS[kind]
    with pytest.raises(ValueError, match=message):
        OnnxModel(path, task="doubling", facts=Facts).run(**inputs)


def test_a_provider_that_onnxruntime_lacks_or_does_not_use_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = next(name for name, full in PROVIDERS.items() if full not in onnxruntime.get_available_providers())
    with pytest.raises(UserError, match=f"--provider {lacking}; it has .*cpu"):
        OnnxModel(path, task="doubling", facts=Facts, provider=lacking)
    real, cpu = onnxruntime.InferenceSession, ["CPUExecutionProvider"]

    def falls_back(content: bytes, options: Any, **_: Any) -> Any:
        return real(content, options, providers=cpu)

    def fails(*_: Any, **settings: Any) -> Any:
        assert settings["enable_fallback"] == 0
        raise RuntimeError("no driver\nand more")

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [PROVIDERS["cuda"], *cpu])
    for session, reason in ((falls_back, "not in use"), (fails, "no driver")):
        monkeypatch.setattr("onnxruntime.InferenceSession", session)
        with pytest.raises(UserError, match=rf"cannot be used: --provider cuda \(.*{reason}\)"):
            OnnxModel(path, task="doubling", facts=Facts, provider="cuda")


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "onnx", "safetensors"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocker())
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "torch" not in sys.modules
"""


def test_inference_runs_where_torch_is_not_installed(tmp_path: Path) -> None:
    programs = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sorted(ROOT.glob("projects/*/infer.py"))]
    assert "projects.cifar10.infer" in programs
    command = [
        sys.executable,
        "-c",
        WITHOUT_TORCH,
        "core.inference",
        "core.vision.classification",
        "core.plots",
        *programs,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
