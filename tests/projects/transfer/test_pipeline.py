"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from core.errors import UserError
from core.export import open_session
from projects.transfer.export import export
from projects.transfer.synthetic import TARGET_CLASSES, draw_pictures
from tests.conftest import ROOT, Program
from tests.projects.transfer.conftest import TINY, MakeFolder, main, summary
from tests.refusals import assert_refused
from tests.smoke import Smoke

NUM_TEST = 600


def test_training_says_where_everything_is_and_what_to_run_next(smoke: Smoke) -> None:
    run_dir, said = smoke.run_dir, smoke.trained.stdout
    assert "transfer:small, weights: the drawn source domain" in said
    assert f"run folder     {run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.transfer.export {run_dir}")
    assert "Traceback" not in smoke.trained.stderr
    assert "Warning" not in smoke.trained.stderr


def test_a_run_folder_holds_settings_metrics_backbone_summary_pictures_and_checkpoints(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["project"] == "transfer"
    assert run["facts"]["classes"] == list(TARGET_CLASSES)
    assert (smoke.run_dir / "backbone.safetensors").exists()
    assert list((smoke.run_dir / "tensorboard").iterdir())
    steps = [folder.name for folder in sorted((smoke.run_dir / "checkpoints").iterdir())]
    assert f"step-{summary(smoke.run_dir)['best_step']:08d}" in steps
    for name in ("curves", "confusion", "mistakes", "gradcam"):
        with Image.open(smoke.run_dir / "plots" / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200


def test_the_loss_fell_and_few_pictures_were_enough(smoke: Smoke) -> None:
    lines = [json.loads(line) for line in (smoke.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert json.loads((smoke.run_dir / "run.json").read_text())["facts"]["num_train"] < 150
    assert summary(smoke.run_dir)["test_accuracy"] > 0.5


def test_export_writes_a_file_that_says_what_it_is_and_a_parity_report(smoke: Smoke) -> None:
    assert smoke.exported.returncode == 0, smoke.exported.stderr
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.transfer.infer {path}" in smoke.exported.stdout
    model = onnx.load(str(path))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["classes"]) == list(TARGET_CLASSES)
    assert json.loads(told["metrics"])["test_accuracy"] == summary(smoke.run_dir)["test_accuracy"]
    assert (told["project"], told["task"], told["backbone"]) == ("transfer", "image classification", "transfer:small")
    assert int(told["step"]) == summary(smoke.run_dir)["best_step"]
    assert str(smoke.run_dir) not in path.read_bytes().decode("latin-1")
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert len(report["checks"]) >= 4
    assert all(0 <= check["max_difference"] <= report["tolerance"] for check in report["checks"])


def test_the_8_bit_copy_is_smaller_and_nearly_as_right(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.int8.onnx"
    report = json.loads((smoke.run_dir / "model.int8.parity.json").read_text())
    assert path.stat().st_size < 0.7 * (smoke.run_dir / "model.onnx").stat().st_size
    assert report["int8"]["val_accuracy"] >= report["fp32"]["val_accuracy"] - 1 / 20
    assert not list(smoke.run_dir.glob(".tmp-*"))


def test_inference_without_torch_is_as_right_as_training_said(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    facts = json.loads((smoke.run_dir / "run.json").read_text())["facts"]
    pixels, labels = draw_pictures(NUM_TEST, 0, facts["side"], TARGET_CLASSES, "night")
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "test" / TARGET_CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:05}.png")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = [smoke.run_dir / "model.onnx", "test", "--json", "--output", "out"]
    done = program("projects.transfer.infer", *arguments, env={"PYTHONPATH": f"{blocked}:{ROOT}"})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    right = sum(line["label"] == Path(line["path"]).parent.name for line in lines)
    assert abs(right / NUM_TEST - summary(smoke.run_dir)["test_accuracy"]) <= 5 / NUM_TEST  # bf16 there, float32 here
    assert f"accuracy {right / NUM_TEST:.4f} of {NUM_TEST:,} pictures" in done.stderr
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == done.stdout
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        sheet.load()
        assert min(sheet.size) > 200


@pytest.mark.usefixtures("_quick")
def test_a_frozen_backbone_is_exported_from_the_run_folder_when_all_else_is_gone(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    """With the norm statistics of a target as well: one export for both promises."""
    folder, target = make_folder(train=10, test=3), make_folder("elsewhere", root=3)
    source = tmp_path / "source"
    shutil.copytree(source_run, source)
    given = ["--data", folder, *TINY, "--backbone", f"run:{source}", "--strategy", "head", "--crop", 0.8]
    main([*given, "--adapt", "adabn", "--target", target, "--run-dir", tmp_path / "run"])
    for gone in (source, folder, target):
        shutil.rmtree(gone)
    answers = []
    for adapted in (False, True):
        path = tmp_path / f"{adapted}.onnx"
        export(tmp_path / "run", "best", path, int8=False, adapted=adapted)
        told = {
            entry.key: json.loads(entry.value)
            for entry in onnx.load(str(path)).metadata_props
            if entry.key == "adapted"
        }
        assert told == {"adapted": adapted}
        picture = np.full((1, 30, 40, 3), 90, np.uint8)
        answers.append(open_session(path).run(None, {"image": picture})[0])
    assert answers[0].shape == (1, 3)
    assert not np.allclose(*answers, atol=1e-4)


@pytest.mark.parametrize(
    ("choice", "words"),
    [("999999", "step-00999999"), ("newest", "--checkpoint newest"), ("-1", "--checkpoint -1")],
)
def test_a_checkpoint_that_is_not_there_is_named(smoke: Smoke, choice: str, words: str, tmp_path: Path) -> None:
    assert_refused(lambda: export(smoke.run_dir, choice, tmp_path / "model.onnx", int8=False), words, tmp_path)


def test_a_run_that_was_not_adapted_is_not_exported_as_if_it_were(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the run was not adapted"):
        export(smoke.run_dir, "best", tmp_path / "model.onnx", int8=False, adapted=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"format": 1, "project": "cifar10"}'])
def test_a_folder_that_is_no_run_of_this_project_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert_refused(lambda: export(tmp_path, "best", None, int8=False), str(tmp_path), tmp_path)


def test_export_into_a_folder_that_is_not_there_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        export(smoke.run_dir, "best", tmp_path / "nowhere" / "model.onnx", int8=False)
