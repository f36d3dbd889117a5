"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.inference import OnnxModel
from projects.forecast import infer
from projects.forecast.export import TASK, export
from projects.forecast.synthetic import COLUMNS, generate
from projects.forecast.train import parse_arguments, train
from tests.conftest import ROOT, Program
from tests.projects.forecast.conftest import TINY, MakeTable, summary, write_synthetic
from tests.refusals import assert_refused
from tests.smoke import Smoke


def test_training_says_where_everything_is_and_what_to_run_next(smoke: Smoke) -> None:
    run_dir, said = smoke.run_dir, smoke.trained.stdout
    assert f"run folder     {run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.forecast.export {run_dir}")
    assert "Traceback" not in smoke.trained.stderr
    assert "Warning" not in smoke.trained.stderr


def test_a_run_folder_holds_settings_metrics_scores_pictures_and_checkpoints(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["project"] == "forecast"
    assert run["config"]["data"] == "synthetic"
    assert run["facts"]["columns"] == list(COLUMNS)
    assert list((smoke.run_dir / "tensorboard").iterdir())
    steps = [folder.name for folder in sorted((smoke.run_dir / "checkpoints").iterdir())]
    assert f"step-{summary(smoke.run_dir)['best_step']:08d}" in steps
    for name in ("curves", "forecasts", "worst", "errors", "calibration"):
        with Image.open(smoke.run_dir / "plots" / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200


def test_the_loss_fell_and_the_network_beats_seasonal_naive_by_far(smoke: Smoke) -> None:
    numbers = summary(smoke.run_dir)
    assert numbers["test_mse"] < 0.7 * numbers["seasonal_naive_mse"]
    assert 0.65 < numbers["test_coverage"] < 0.95
    results = json.loads((smoke.run_dir / "test.json").read_text())
    assert list(results) == ["segrnn", "dlinear, closed form", "seasonal naive"]
    for name, result in results.items():
        assert f"{name:<22}{result['mse']:>8.4f}{result['mae']:>9.4f}" in smoke.trained.stdout


def test_export_writes_a_file_that_says_what_it_is_and_a_parity_report(smoke: Smoke) -> None:
    assert smoke.exported.returncode == 0, smoke.exported.stderr
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.forecast.infer {path}" in smoke.exported.stdout
    told = OnnxModel(path, task=TASK).metadata
    assert told["columns"] == list(COLUMNS)
    assert (told["lookback"], told["horizon"], told["quantiles"]) == (168, 48, [0.1, 0.5, 0.9])
    assert told["frequency"] == {"unit": "microsecond", "count": 3_600_000_000}
    assert told["metrics"]["test_mse"] == summary(smoke.run_dir)["test_mse"]
    assert told["step"] == summary(smoke.run_dir)["best_step"]
    assert str(smoke.run_dir) not in path.read_bytes().decode("latin-1")
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert {check["input_shapes"][0][0] for check in report["checks"]} == {1, 2, 3, 8}
    assert all(0 <= check["max_difference"] <= report["tolerance"] for check in report["checks"])


def test_the_file_alone_scores_on_raw_test_rows_what_training_said(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    facts, config = run["facts"], run["config"]
    values = generate(config["num_synthetic"], config["seed"]).values.astype(np.float32)
    first = sum(facts["rows"][:2])
    origins = range(first, sum(facts["rows"]) - 48 + 1)
    model = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, threads=1)
    outputs = model.run(series=np.stack([values[origin - 168 : origin] for origin in origins]))
    truth = np.stack([values[origin : origin + 48] for origin in origins])
    mse = (((outputs["forecast"] - truth) / np.array(facts["std"])) ** 2).mean()
    assert mse == pytest.approx(summary(smoke.run_dir)["test_mse"], rel=0.01)  # bf16 there, float32 here
    lower, upper = outputs["quantiles"][..., 0], outputs["quantiles"][..., -1]
    coverage = ((truth > lower) & (truth <= upper)).mean()
    assert coverage == pytest.approx(summary(smoke.run_dir)["test_coverage"], abs=0.01)


def test_inference_without_torch_writes_a_table_and_a_picture(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    table = write_synthetic(tmp_path / "recent.csv", 400, seed=7)
    done = program(
        "projects.forecast.infer",
        *(smoke.run_dir / "model.onnx", table, "--horizon", 30),
        env={"PYTHONPATH": f"{blocked}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "recent.forecast.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time"] for row in rows][::29] == ["2022-01-19 16:00:00", "2022-01-20 21:00:00"]
    assert list(rows[0]) == ["time", *(f"{name}{end}" for name in COLUMNS for end in ("", "_lower", "_upper"))]
    model = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, threads=1)
    expected = model.run(series=generate(400, 7).values[None, -168:].astype(np.float32))
    for k, name in enumerate(COLUMNS):
        found = [[float(row[f"{name}{end}"]) for end in ("_lower", "", "_upper")] for row in rows]
        np.testing.assert_allclose(found, expected["quantiles"][0, :30, k], rtol=1e-5)
        assert all(lower <= middle <= upper for lower, middle, upper in found)
    with Image.open(tmp_path / "recent.forecast.png") as picture:
        picture.load()
        assert min(picture.size) > 200


def test_torch_really_is_blocked_there(program: Program, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = program("projects.forecast.export", "nothing", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode != 0
    assert "import of torch halted" in done.stderr


@pytest.mark.parametrize(
    "recipe",
    [["--model", "lstm"], ["--model", "dlinear", "--head", "point", "--normalize", "revin", "--time-column", "-"]],
)
def test_the_other_models_export_and_infer_too(
    recipe: list[object], make_table: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, table = tmp_path / "run", make_table(300)
    argv = ["--data", table, *TINY, *recipe, "--max-steps", 2, "--run-dir", run_dir]
    train(parse_arguments([str(value) for value in argv]))
    export(run_dir, "last", tmp_path / "last.onnx")
    model = OnnxModel(tmp_path / "last.onnx", task=TASK, threads=1)
    assert model.metadata["step"] == 2
    outputs = model.run(series=np.ones((7, 24, 2), np.float32))
    assert outputs["forecast"].shape == (7, 6, 2)
    assert ("quantiles" in outputs) == ("lstm" in recipe)
    monkeypatch.setattr("sys.argv", ["infer", f"{tmp_path}/last.onnx", str(table), "--output", f"{tmp_path}/out.csv"])
    infer.main()
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    ends = ("", "_lower", "_upper") if "lstm" in recipe else ("",)
    first = ["date", "2024-03-11 12:00"] if "lstm" in recipe else ["row", "300"]
    assert [rows[0][0], rows[1][0]] == first
    assert rows[0][1:] == [f"{name}{end}" for name in ("tide", "load") for end in ends]
    assert len(rows) == 7


@pytest.mark.parametrize(
    ("choice", "words"),
    [("999999", "step-00999999"), ("newest", "--checkpoint newest"), ("-1", "--checkpoint -1")],
)
def test_a_checkpoint_that_is_not_there_is_named(smoke: Smoke, choice: str, words: str, tmp_path: Path) -> None:
    assert_refused(lambda: export(smoke.run_dir, choice, tmp_path / "model.onnx"), words, tmp_path)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"format": 1, "project": "gan"}'])
def test_a_folder_that_is_no_run_of_this_project_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert_refused(lambda: export(tmp_path, "best", None), str(tmp_path), tmp_path)


def test_export_into_a_folder_that_is_not_there_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        export(smoke.run_dir, "best", tmp_path / "nowhere" / "model.onnx")
