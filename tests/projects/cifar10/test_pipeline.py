"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import json
from pathlib import Path

import onnx
import pytest
from PIL import Image

from core.errors import UserError
from projects.cifar10.export import export
from projects.cifar10.synthetic import CLASSES, draw_pictures
from tests.conftest import ROOT, Program
from tests.projects.cifar10.conftest import summary
from tests.refusals import assert_refused
from tests.smoke import Smoke


def test_training_says_where_everything_is_and_what_to_run_next(smoke: Smoke) -> None:
    run_dir, said = smoke.run_dir, smoke.trained.stdout
    assert f"run folder     {run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.cifar10.export {run_dir}")
    assert "Traceback" not in smoke.trained.stderr
    assert "Warning" not in smoke.trained.stderr


def test_a_run_folder_holds_settings_metrics_summary_pictures_and_checkpoints(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["project"] == "cifar10"
    assert run["config"]["data"] == "synthetic"
    assert run["facts"]["classes"] == list(CLASSES)
    assert run["environment"]["kernels"].startswith("cpu-") or "plain PyTorch" in run["environment"]["kernels"]
    assert list((smoke.run_dir / "tensorboard").iterdir())
    steps = [folder.name for folder in sorted((smoke.run_dir / "checkpoints").iterdir())]
    assert f"step-{summary(smoke.run_dir)['best_step']:08d}" in steps
    assert steps[-1] == f"step-{summary(smoke.run_dir)['steps']:08d}"
    for name in ("curves", "confusion", "mistakes"):
        with Image.open(smoke.run_dir / "plots" / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200


def test_the_loss_fell_and_the_test_accuracy_is_far_above_chance(smoke: Smoke) -> None:
    lines = [json.loads(line) for line in (smoke.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert summary(smoke.run_dir)["test_accuracy"] > 0.4


def test_export_writes_a_file_that_says_what_it_is_and_a_parity_report(smoke: Smoke) -> None:
    assert smoke.exported.returncode == 0, smoke.exported.stderr
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.cifar10.infer {path}" in smoke.exported.stdout
    model = onnx.load(str(path))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["classes"]) == list(CLASSES)
    assert json.loads(told["metrics"])["test_accuracy"] == summary(smoke.run_dir)["test_accuracy"]
    assert (told["project"], told["task"]) == ("cifar10", "image classification")
    assert int(told["step"]) == summary(smoke.run_dir)["best_step"]
    assert str(smoke.run_dir) not in path.read_bytes().decode("latin-1")
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert len(report["checks"]) >= 4
    assert all(0 <= check["max_difference"] <= report["tolerance"] for check in report["checks"])


def test_the_8_bit_copy_is_smaller_and_nearly_as_right(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.int8.onnx"
    report = json.loads((smoke.run_dir / "model.int8.parity.json").read_text())
    assert path.stat().st_size < 0.7 * (smoke.run_dir / "model.onnx").stat().st_size
    assert report["int8"]["val_accuracy"] >= report["fp32"]["val_accuracy"] - 0.01
    assert not list(smoke.run_dir.glob(".tmp-*"))


def test_inference_without_torch_is_as_right_as_training_said(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    config = json.loads((smoke.run_dir / "run.json").read_text())["config"]
    num = config["num_synthetic"] // 6
    pixels, labels = draw_pictures(num, config["seed"], config["image_size"])
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "test" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:05}.png")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = [smoke.run_dir / "model.onnx", "test", "--json", "--output", "out"]
    done = program("projects.cifar10.infer", *arguments, env={"PYTHONPATH": f"{blocked}:{ROOT}"})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == [
        str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "test").rglob("*.png"))
    ]
    right = sum(line["label"] == Path(line["path"]).parent.name for line in lines)
    assert abs(right / num - summary(smoke.run_dir)["test_accuracy"]) <= 2 / 500  # bf16 there, float32 here
    assert f"accuracy {right / num:.4f} of {num:,} pictures" in done.stderr
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == done.stdout
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        sheet.load()
        assert min(sheet.size) > 200


def test_torch_really_is_blocked_there(program: Program, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = program("projects.cifar10.export", "nothing", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode != 0
    assert "import of torch halted" in done.stderr


def test_the_last_checkpoint_can_be_exported_too(smoke: Smoke, tmp_path: Path) -> None:
    export(smoke.run_dir, "last", tmp_path / "last.onnx", int8=False)
    told = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "last.onnx")).metadata_props}
    assert int(told["step"]) == summary(smoke.run_dir)["steps"]
    assert (tmp_path / "last.parity.json").exists()


@pytest.mark.parametrize(
    ("choice", "words"),
    [("999999", "step-00999999"), ("newest", "--checkpoint newest"), ("-1", "--checkpoint -1")],
)
def test_a_checkpoint_that_is_not_there_is_named(smoke: Smoke, choice: str, words: str, tmp_path: Path) -> None:
    assert_refused(lambda: export(smoke.run_dir, choice, tmp_path / "model.onnx", int8=False), words, tmp_path)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"format": 1, "project": "gan"}'])
def test_a_folder_that_is_no_run_of_this_project_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert_refused(lambda: export(tmp_path, "best", None, int8=False), str(tmp_path), tmp_path)


def test_export_into_a_folder_that_is_not_there_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        export(smoke.run_dir, "best", tmp_path / "nowhere" / "model.onnx", int8=False)
