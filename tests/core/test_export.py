"""An exported file equals the network at every shape, stands alone, and is not written when it does not."""

import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from core import checkpoint
from core.checkpoint import MANIFEST
from core.config import RunConfig
from core.errors import RunError, UserError
from core.export import export_onnx
from core.export_program import export_program
from core.export_spec import ExportSpec
from core.inference import OnnxModel
from core.parity import difference, report_path
from core.plain import to_plain
from core.quantize import quantize_dynamic
from core.stored_run import StoredRun, load_run

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Facts:
    """What inference reads."""

    classes: tuple[str, ...] = ("ä", "b")


@dataclass(frozen=True, kw_only=True)
class WithPaths(RunConfig):
    """Settings that name files."""

    source: Path | None = None
    words: tuple[str, ...] = ()


class Classifier(nn.Module):
    """uint8 [N, H, W, 3] → probabilities [N, 4]; a fault may be planted."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fault = nn.Conv2d(3, 4, 3, padding=1), fault

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities."""
        x = self.conv(image.permute(0, 3, 1, 2).float() / 255).mean((2, 3))
        if self.fault == "differs" and torch.compiler.is_compiling():
            x = x * 1.5
        if self.fault == "one batch size":
            x = x.reshape(2, 4)
        if self.fault == "value decides":
            x = x * 2 if bool(x.sum() > 0) else x
        probabilities: Tensor = x.softmax(1)
        return probabilities


def images(*shape: int) -> tuple[Tensor]:
    """Random bytes."""
    return (torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)),)


SHAPES = [(1, 6, 7), (3, 6, 7), (2, 1, 9), (5, 13, 4)]


def spec(fault: str = "", **changes: Any) -> ExportSpec:
    """What to export."""
    settings: dict[str, Any] = {
        "module": Classifier(fault),
        "example": images(2, 6, 7),
        "task": "test",
        "facts": Facts(),
        "inputs": {"image": "uint8 [batch, height, width, 3]"},
        "outputs": {"probabilities": "float32 [batch, 4]"},
        "dynamic_shapes": ({0: "batch", 1: "height", 2: "width"},),
        "output_shapes": [["batch", 4]],
        "parity_inputs": [images(*shape) for shape in SHAPES],
    }
    return ExportSpec(**{**settings, **changes})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A file and its parity report."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return path, export_onnx(spec(), stored(path.parent), path)


def stored(folder: Path) -> StoredRun[RunConfig, Facts]:
    """The run that is exported."""
    return StoredRun(folder, RunConfig(lr=0.3), Facts(), step=2, state={}, commit="abc")


def test_the_parity_report_holds_every_shape(exported: tuple[Path, dict[str, Any]]) -> None:
    path, report = exported
    assert [row["input_shapes"] for row in report["checks"]] == [[[*shape, 3]] for shape in [(2, 6, 7), *SHAPES]]
    assert all(0 <= each <= report["tolerance"] for row in report["checks"] for each in row["differences"].values())
    assert report["versions"]["torch"] == torch.__version__
    assert json.loads(report_path(path).read_bytes()) == report
    assert sorted(p.name for p in path.parent.iterdir()) == ["README.md", "model.onnx", "model.parity.json"]


def test_metadata_come_back(exported: tuple[Path, dict[str, Any]]) -> None:
    path, report = exported
    model = OnnxModel(path, task="test", facts=Facts)
    assert model.facts == Facts()
    metadata = model.metadata
    assert metadata["parity"] == report
    assert (metadata["project"], metadata["step"], metadata["commit_training"]) == ("core", 2, "abc")
    assert metadata["training"]["lr"] == 0.3
    assert "data" not in metadata["training"]  # it may be a path of this machine
    assert list(metadata["inputs"]) == ["image"]


def test_a_file_loads_alone_in_another_folder_at_any_size(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "copy.onnx").write_bytes(exported[0].read_bytes())
    model = OnnxModel(tmp_path / "copy.onnx", task="test", facts=Facts, threads=1)
    for shape in [(4, 32, 30), (1, 1, 1)]:
        inputs = images(*shape)
        with torch.inference_mode():
            expected = Classifier().eval()(*inputs).numpy()
        found = model.run(image=inputs[0].numpy())["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_file_names_its_free_dimensions_and_no_local_path(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    content = exported[0].read_bytes()
    for place in (
        str(ROOT),
        sys.prefix,
        str(exported[0].parent),
        str(Path.home()),
        "site-packages",
        '.py"',
        "tests/core",
    ):
        assert place.encode() not in content
    graph = onnx.load(str(exported[0])).graph
    sizes = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", "height", "width", 3]
    assert [d.dim_param or d.dim_value for d in graph.output[0].type.tensor_type.shape.dim] == ["batch", 4]


def test_a_program_of_torch_export_gives_what_the_onnx_file_gives_at_any_size(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "copy.onnx"
    path.write_bytes(exported[0].read_bytes())
    for fault in ("one batch size", "value decides", "another network"):
        network = Classifier(fault)
        network.conv.requires_grad_(False).weight *= 1 + (fault == "another network")
        with pytest.raises(RunError, match="only the ONNX file was written"):
            export_program(spec(module=network), path)
        assert list(tmp_path.iterdir()) == [path]
    export_program(spec(), path)
    assert {each.name for each in tmp_path.iterdir()} == {"copy.onnx", "copy.pt2", "copy.pt2.parity.json"}
    with zipfile.ZipFile(tmp_path / "copy.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not any(place.encode() in content for place in (str(ROOT), sys.prefix, "site-packages", "tests/core"))
    inputs, model = images(4, 32, 30), OnnxModel(path, task="test", facts=Facts, threads=1)
    found = torch.export.load(tmp_path / "copy.pt2").module()(*inputs).detach()
    np.testing.assert_allclose(found, model.run(image=inputs[0].numpy())["probabilities"], atol=1e-5)


FAULTS = {
    "differs": ({}, "does not equal the PyTorch network"),
    "one batch size": ({}, "cannot be exported"),
    "value decides": ({}, "cannot be exported"),
    "frozen batch": (
        {"dynamic_shapes": ({1: "height", 2: "width"},)},
        r"does not run: input shapes \[\[1, 6, 7, 3\]\]",
    ),
}


PLANTED = [(fault, None) for fault in FAULTS] + [("differs", b"an older file"), ("value decides", b"an older file")]


@pytest.mark.parametrize(("fault", "old"), PLANTED)
def test_a_wrong_graph_is_a_run_error_and_leaves_everything_as_it_was(
    fault: str, old: bytes | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes, message = FAULTS[fault]
    if old is not None:
        (tmp_path / "model.onnx").write_bytes(old)
    with pytest.raises(RunError, match=message) as caught:
        export_onnx(spec(fault, **changes), stored(tmp_path), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if old is None else [old])
    assert capfd.readouterr().out == ""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with checkpoints at steps 1, 2 and 3, the best at 2."""
    run = {"format": 2, "project": "core", "config": to_plain(RunConfig()), "facts": to_plain(Facts())}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    for step in (1, 2, 3):
        tree = {"loop": {"step": step}, "model": {"weight": torch.full((2,), float(step))}, "optimizer": {}}
        checkpoint.save(tmp_path, step, tree, project="core", best_step=2)
    return tmp_path


@pytest.mark.parametrize(("choice", "step"), [("best", 2), ("last", 3), ("1", 1), ("0003", 3)])
def test_a_checkpoint_is_chosen_by_name_or_step(choice: str, step: int, run_dir: Path) -> None:
    run = load_run(run_dir, choice, RunConfig, Facts)
    assert (run.step, run.facts, run.commit) == (step, Facts(), "unknown")
    assert run.weights()["weight"].tolist() == [step, step]
    assert "optimizer" not in run.state


WRONG: Sequence[tuple[str, str]] = [
    ("7", "steps: 1, 2, 3"),
    ("newest", "--checkpoint newest"),
    ("-1", "--checkpoint"),
    ("٣", "--ch"),
]


@pytest.mark.parametrize(("choice", "message"), WRONG)
def test_a_checkpoint_that_is_not_there_is_a_user_error(choice: str, message: str, run_dir: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_run(run_dir, choice, RunConfig, Facts)


def test_a_broken_best_checkpoint_is_not_replaced_by_another(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "step-00000002" / MANIFEST).unlink()
    with pytest.raises(UserError, match="step-00000002"):
        load_run(run_dir, "best", RunConfig, Facts)


def test_the_best_checkpoint_is_read_once_and_no_other_is_opened(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read(path))  # type: ignore[func-returns-value]
    load_run(run_dir, "best", RunConfig, Facts)
    tensors = [path for path in opened if path.suffix == ".safetensors"]
    assert tensors == [run_dir / "checkpoints" / "step-00000002" / "model.safetensors"]


@pytest.mark.parametrize(("dtype", "apart", "expected"), [("uint8", 2, 2.0), ("int64", 2, 2.0), ("float32", 2, 0.5)])
def test_whole_numbers_are_compared_absolutely_and_others_relatively(dtype: str, apart: int, expected: float) -> None:
    before = np.array([4, 1], dtype=dtype)
    assert difference(before + np.array([0, apart], dtype=dtype), before) == expected
    assert difference(before[:1], before) == float("inf")


def test_no_folder_of_this_machine_stands_in_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    run = replace(stored(tmp_path), config=WithPaths(source=Path("/home/me/w.pth"), words=("/a/b.jpg", "run:/c/d")))
    export_onnx(spec(), run, path)
    training = OnnxModel(path, task="test", facts=Facts).metadata["training"]
    assert (training["source"], training["words"]) == ("w.pth", ["b.jpg", "run:d"])


class Words(nn.Module):
    """int64 [N, T] → [N, 5]: an embedding and two matrix products."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Embedding(50, 64), nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 5))

    def forward(self, tokens: Tensor) -> Tensor:
        """Means over places."""
        scores: Tensor = self.layers(tokens).mean(1)
        return scores


def test_a_dynamically_quantized_copy_is_smaller_says_the_same_and_leaves_the_source_alone(tmp_path: Path) -> None:
    tokens = torch.arange(35).view(5, 7)
    parts: dict[str, Any] = {
        "module": Words(),
        "example": (tokens,),
        "parity_inputs": [(tokens[:1, :1],)],
        "inputs": {"tokens": ""},
    }
    changes: dict[str, Any] = {
        "outputs": {"scores": ""},
        "output_shapes": [["batch", 5]],
        "dynamic_shapes": ({0: "batch", 1: "length"},),
    }
    export_onnx(spec(**parts, **changes), stored(tmp_path), tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    quantize_dynamic(tmp_path / "model.onnx", tmp_path / "small.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == before
    assert (tmp_path / "small.onnx").stat().st_size < 0.5 * len(before)
    whole, small = (OnnxModel(tmp_path / name, task="test", facts=Facts) for name in ("model.onnx", "small.onnx"))
    assert {key: small.metadata[key] for key in whole.metadata} == whole.metadata
    for inputs in (tokens.numpy(), tokens.numpy()[:2, :3]):
        expected, found = (model.run(tokens=inputs)["scores"] for model in (whole, small))
        assert np.abs(expected - found).max() < 0.05 * np.abs(expected).max()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "model.onnx",
        "model.parity.json",
        "small.onnx",
    ]
