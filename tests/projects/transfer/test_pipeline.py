"""The smoke run's numbers, which the exported files agree with; and exports from a run folder alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.inference import OnnxModel
from core.parity import open_session
from core.program import ExportCommand
from projects.transfer.config import TASK, ExportOptions, ModelFacts
from projects.transfer.export import export
from projects.transfer.synthetic import TARGET_CLASSES, draw_images
from tests.conftest import Program
from tests.forked import summary
from tests.projects.transfer.conftest import TINY, MakeFolder, main
from tests.smoke import Smoke

NUM_TEST = 600


def test_few_images_were_enough_and_the_plots_are_there(smoke: Smoke) -> None:
    facts = json.loads((smoke.run_dir / "run.json").read_text())["facts"]
    assert facts["num_train"] < 150
    assert facts["classes"] == list(TARGET_CLASSES)
    assert summary(smoke.run_dir)["test_accuracy"] > 0.5
    assert {path.stem for path in (smoke.run_dir / "plots").iterdir()} == {"curves", "confusion", "mistakes", "gradcam"}


def test_the_8_bit_copy_is_smaller_and_nearly_as_right(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.int8.onnx"
    report = json.loads((smoke.run_dir / "model.int8.parity.json").read_text())
    assert path.stat().st_size < 0.7 * (smoke.run_dir / "model.onnx").stat().st_size
    assert report["int8"]["val_accuracy"] >= report["fp32"]["val_accuracy"] - 1 / 20


def test_inference_is_as_right_as_training_said(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    facts = json.loads((smoke.run_dir / "run.json").read_text())["facts"]
    pixels, labels = draw_images(NUM_TEST, 0, facts["side"], TARGET_CLASSES, "evening")
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "test" / TARGET_CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:05}.png")
    arguments = [smoke.run_dir / "model.onnx", "test", "--json", "--output", "out"]
    done = program("projects.transfer.infer", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    right = sum(line["label"] == Path(line["path"]).parent.name for line in lines)
    assert abs(right / NUM_TEST - summary(smoke.run_dir)["test_accuracy"]) <= 5 / NUM_TEST  # bf16 there, float32 here
    assert f"accuracy {right / NUM_TEST:.4f} of {NUM_TEST:,} images" in done.stderr


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("strategy", ["head", "full"])
def test_a_run_is_exported_from_its_folder_when_all_else_is_gone(
    strategy: str, make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    """With the norm statistics of a target as well: one export for both promises."""
    folder, target = make_folder(train=10, test=3), make_folder("elsewhere", root=3)
    source = tmp_path / "source"
    shutil.copytree(source_run, source)
    given = ["--data", folder, *TINY, "--backbone", f"run:{source}", "--strategy", strategy, "--crop", 0.8]
    main([*given, "--adapt", "adabn", "--target", target, "--run-dir", tmp_path / "run"])
    for gone in (source, folder, target):
        shutil.rmtree(gone)
    results = []
    for adapted in (False, True):
        path = tmp_path / f"{adapted}.onnx"
        export(ExportCommand(tmp_path / "run", ExportOptions(output=path, adapted=adapted)))
        assert OnnxModel(path, task=TASK, facts=ModelFacts).facts.adapted == adapted
        results.append(open_session(path).run(None, {"image": np.full((1, 30, 40, 3), 90, np.uint8)})[0])
    assert results[0].shape == (1, 3)
    assert np.abs(results[0] - results[1]).max() > 1e-4


def test_a_run_that_was_not_adapted_is_not_exported_as_if_it_were(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the run was not adapted"):
        export(ExportCommand(smoke.run_dir, ExportOptions(output=tmp_path / "model.onnx", adapted=True)))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_quick")
def test_8_bits_are_not_calibrated_on_other_data_than_the_runs(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    folder = make_folder(train=10, test=3)
    given = ["--data", folder, *TINY, "--backbone", f"run:{source_run}", "--max-steps", 2]
    main([*given, "--run-dir", tmp_path / "run"])
    for split in ("train", "test"):
        (folder / split / "blue").rename(folder / split / "azure")
    with pytest.raises(UserError, match=r"--data .* has changed"):
        export(ExportCommand(tmp_path / "run", ExportOptions(int8=True)))
    assert not list((tmp_path / "run").glob("*.onnx"))
