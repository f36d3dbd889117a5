"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.inference import OnnxModel
from core.program import ExportCommand, ProgramExportOptions, parse_training
from projects.forecast import infer
from projects.forecast.config import TASK, Config, ModelFacts
from projects.forecast.export import export
from projects.forecast.frequency import Frequency
from projects.forecast.synthetic import COLUMNS, generate
from projects.forecast.train import train
from tests.conftest import Program
from tests.forked import summary
from tests.projects.forecast.conftest import TINY, MakeTable, write_synthetic
from tests.smoke import Smoke


def test_the_loss_fell_and_the_network_beats_seasonal_naive_by_far(smoke: Smoke) -> None:
    numbers = summary(smoke.run_dir)
    assert numbers["test_mse"] < 0.7 * numbers["seasonal_naive_mse"]
    assert 0.65 < numbers["test_coverage"] < 0.95
    results = json.loads((smoke.run_dir / "test.json").read_text())
    assert list(results) == ["segrnn", "dlinear, closed form", "seasonal naive"]
    for name, result in results.items():
        assert f"MSE {result['mse']:.4f}, MAE {result['mae']:.4f}" in smoke.trained.stdout, name


def test_the_file_knows_what_inference_needs(smoke: Smoke) -> None:
    facts = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, facts=ModelFacts).facts
    assert facts.columns == COLUMNS
    assert (facts.lookback, facts.horizon, facts.quantiles) == (168, 48, (0.1, 0.5, 0.9))
    assert facts.frequency == Frequency("microsecond", 3_600_000_000)


def test_the_file_alone_scores_on_raw_test_rows_what_training_said(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    facts, config = run["facts"], run["config"]
    values = generate(config["num_synthetic"], config["seed"]).values.astype(np.float32)
    first = sum(facts["rows"][:2])
    origins = range(first, sum(facts["rows"]) - 48 + 1)
    model = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, facts=ModelFacts, threads=1)
    outputs = model.run(series=np.stack([values[origin - 168 : origin] for origin in origins]))
    truth = np.stack([values[origin : origin + 48] for origin in origins])
    mse = (((outputs["forecast"] - truth) / np.array(facts["std"])) ** 2).mean()
    assert mse == pytest.approx(summary(smoke.run_dir)["test_mse"], rel=0.01)  # bf16 there, float32 here
    lower, upper = outputs["quantiles"][..., 0], outputs["quantiles"][..., -1]
    coverage = ((truth > lower) & (truth <= upper)).mean()
    assert coverage == pytest.approx(summary(smoke.run_dir)["test_coverage"], abs=0.01)


def test_inference_writes_a_table_and_a_plot(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    table = write_synthetic(tmp_path / "recent.csv", 400, seed=7)
    done = program("projects.forecast.infer", smoke.run_dir / "model.onnx", table, "--horizon", 30, torch=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "recent.forecast.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time"] for row in rows][::29] == ["2022-01-19 16:00:00", "2022-01-20 21:00:00"]
    assert list(rows[0]) == ["time", *(f"{name}{end}" for name in COLUMNS for end in ("", "_lower", "_upper"))]
    model = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, facts=ModelFacts, threads=1)
    expected = model.run(series=generate(400, 7).values[None, -168:].astype(np.float32))
    for k, name in enumerate(COLUMNS):
        written = [[float(row[f"{name}{end}"]) for end in ("_lower", "", "_upper")] for row in rows]
        np.testing.assert_allclose(written, expected["quantiles"][0, :30, k], rtol=1e-5)
        assert all(lower <= middle <= upper for lower, middle, upper in written)
    with Image.open(tmp_path / "recent.forecast.png") as plot:
        plot.load()
        assert min(plot.size) > 200


@pytest.mark.parametrize(("model", "has_attention"), [("lstm", True), ("segrnn", False)])
def test_what_a_network_with_attention_looks_at_is_drawn(
    model: str, has_attention: bool, make_table: MakeTable, tmp_path: Path
) -> None:
    argv = ["--data", make_table(300), *TINY, "--model", model, "--max-steps", 1, "--run-dir", tmp_path / "run"]
    train(parse_training(Config, [str(value) for value in argv]))
    assert (tmp_path / "run" / "plots" / "attention.png").exists() == has_attention


@pytest.mark.parametrize(
    "recipe",
    [["--model", "lstm"], ["--model", "dlinear", "--head", "point", "--normalize", "revin", "--time-column", "-"]],
)
@pytest.mark.usefixtures("no_plots")
def test_the_other_models_export_and_infer_too(
    recipe: list[object], make_table: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, table = tmp_path / "run", make_table(300)
    argv = ["--data", table, *TINY, *recipe, "--max-steps", 2, "--run-dir", run_dir]
    train(parse_training(Config, [str(value) for value in argv]))
    table.rename(tmp_path / "moved.csv")  # export needs no data
    export(ExportCommand(run_dir, ProgramExportOptions(checkpoint="last", output=tmp_path / "last.onnx")))
    model = OnnxModel(tmp_path / "last.onnx", task=TASK, facts=ModelFacts, threads=1)
    assert model.metadata["step"] == 2
    outputs = model.run(series=np.ones((7, 24, 2), np.float32))
    assert outputs["forecast"].shape == (7, 6, 2)
    assert ("quantiles" in outputs) == ("lstm" in recipe)
    monkeypatch.setattr(
        "sys.argv", ["infer", f"{tmp_path}/last.onnx", f"{tmp_path}/moved.csv", "--output", f"{tmp_path}/out.csv"]
    )
    infer.main()
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    ends = ("", "_lower", "_upper") if "lstm" in recipe else ("",)
    first = ["date", "2024-03-11 12:00"] if "lstm" in recipe else ["row", "300"]
    assert [rows[0][0], rows[1][0]] == first
    assert rows[0][1:] == [f"{name}{end}" for name in ("tide", "load") for end in ends]
    assert len(rows) == 7
