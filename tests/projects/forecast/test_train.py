"""Wrong settings are refused in one line with nothing created; a train step learns; the numbers are what they say."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.errors import UserError
from core.learner import Learner
from core.program import ExportCommand, ProgramExportOptions, parse_training
from core.training_state import LoopState
from projects.forecast import infer
from projects.forecast import train as program
from projects.forecast.config import Config, settled
from projects.forecast.export import export
from projects.forecast.model import build_model
from projects.forecast.train import evaluate, train, train_step
from tests import forked
from tests.forked import summary
from tests.projects.forecast.conftest import TINY, MakeTable, waves, write
from tests.refusals import assert_refused

pytestmark = pytest.mark.usefixtures("no_plots")

WRONG = [
    ("--data", "nowhere.csv", []),
    ("--data", ".", []),
    ("--data", "", []),
    ("--data", "ett", []),
    *(("--target", text, []) for text in (" , ", "", "a,,b", '"a')),
    *(("--split", text, ["--data", "synthetic"]) for text in ("0.7/0.1", "0.7/0.1/0.3", "0.5/0/0.5", "a/b/c")),
    ("--split", "0.7/0.1/0.2", ["--data", "etth1"]),
    *(("--quantiles", text, []) for text in ("0.5,0.1,0.9", "0.1,0.9", "0,0.5,1", "0.1,0.2,0.5", "a", "")),
    ("--segment", "721", []),
    ("--segment", "48", ["--lookback", "20"]),
    ("--width", "7", []),
    ("--time-format", "%d %d", []),
    ("--time-format", "s", []),
    ("--target", "homes", ["--data", "synthetic"]),
    ("--series-column", "site", ["--data", "synthetic"]),
]


@pytest.mark.parametrize(("flag", "value", "more"), WRONG, ids=lambda part: part if isinstance(part, str) else "")
def test_settings_that_cannot_be_are_named_and_nothing_is_created(
    flag: str, value: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: parse_training(Config, [*more, flag, value]), f"{flag} ", tmp_path)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--batch-size", 400], "--batch-size 400"),
        (["--target", "height"], "height"),
        (["--horizon", 40], "val has 30"),
    ],
)
def test_what_only_the_table_can_refuse_is_refused_with_nothing_created(
    more: list[object], named: str, make_table: MakeTable, tmp_path: Path
) -> None:
    argv = ["--data", make_table(300), *TINY, *more, "--run-dir", tmp_path / "run"]
    with pytest.raises(UserError, match=named):
        run(argv)
    assert not (tmp_path / "run").exists()


def test_a_gap_in_a_table_is_refused_with_nothing_created_and_filled_when_asked_for(
    make_table: MakeTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_table(300, edit=lambda rows: rows.pop(100))
    argv = [str(value) for value in ("--data", path, *TINY, "--max-steps", 1, "--run-dir", tmp_path / "run")]
    with pytest.raises(UserError, match=r"rows are missing: .*line 101, column date"):
        run(argv)
    assert not (tmp_path / "run").exists()
    run([*argv, "--fill", "linear"])
    printed = capsys.readouterr().out
    assert "filled 2 missing numbers" in printed
    assert "300 rows 1 hour apart, date from 2024-02-28 00:00" in printed
    assert "2 columns tide, load" in printed


@pytest.mark.parametrize(
    "recipe",
    [
        ["--normalize", "revin", "--head", "point", "--loss", "huber"],
        ["--quantiles", "0.05,0.25,0.5,0.75,0.95", "--no-baselines", "--target", "load", "--backtest", 2],
    ],
    ids=lambda recipe: recipe[1],
)
def test_every_recipe_runs_to_the_end(recipe: list[object], make_table: MakeTable, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run(["--data", make_table(300), *TINY, *recipe, "--run-dir", run_dir])
    results = json.loads((run_dir / "test.json").read_text())
    own = results[json.loads((run_dir / "run.json").read_text())["facts"]["model"]]
    assert own["mse"] == summary(run_dir)["test_mse"]
    assert len(own["mse_by_step"]) == 6
    assert ("seasonal naive" in results) == ("--no-baselines" not in recipe)
    assert ("coverage" in own) == ("point" not in recipe)
    rates = [line["lr"] for line in read_metrics(run_dir) if "lr" in line]
    assert 0 <= rates[-1] < max(rates) <= 0.01


def test_the_summary_is_of_the_step_that_was_best_in_validation(make_table: MakeTable, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    argv = ["--data", make_table(300), *TINY, "--epochs", 3, "--ema", 0.5, "--backtest", 3, "--run-dir", run_dir]
    run(argv)
    numbers = summary(run_dir)
    errors = {line["step"]: line["val/mse"] for line in read_metrics(run_dir) if "val/mse" in line}
    assert numbers["steps"] == max(errors)
    assert numbers["best_val_mse"] == min(errors.values()) == errors[numbers["best_step"]]
    assert numbers["num_test_windows"] == 60 - 6 + 1
    result = json.loads((run_dir / "test.json").read_text())["segrnn"]
    assert len(result["backtest"]) == 3
    assert set(result["original_units"]) == {"tide", "load"}
    assert numbers["test_mase"] == pytest.approx(
        sum(column["mase"] for column in result["original_units"].values()) / 2
    )


def test_a_trained_dlinear_comes_near_the_closed_form(make_table: MakeTable, tmp_path: Path) -> None:
    argv = ["--data", make_table(600), *TINY, "--model", "dlinear", "--epochs", 8, "--run-dir", tmp_path / "run"]
    run(argv)
    numbers = summary(tmp_path / "run")
    assert numbers["test_mse"] < 1.25 * numbers["dlinear_closed_form_mse"]
    assert numbers["dlinear_closed_form_mse"] < numbers["seasonal_naive_mse"]


def test_seasonal_naive_is_scored_as_numpy_does(make_table: MakeTable, tmp_path: Path) -> None:
    argv = ["--data", make_table(300), *TINY, "--max-steps", 1, "--run-dir", tmp_path / "run"]
    run(argv)
    values = waves(300).round(4)
    scaled = (values - values[:210].mean(0)) / values[:210].std(0)
    errors = [scaled[origin : origin + 6] - scaled[origin - 24 : origin - 18] for origin in range(240, 295)]
    expected = sum((error**2).mean() for error in errors) / len(errors)
    assert summary(tmp_path / "run")["seasonal_naive_mse"] == pytest.approx(expected, rel=1e-4)


def test_a_smoke_run_that_is_not_better_than_the_naive_rule_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoopState, "check_learned", lambda self, ratio: None)  # so short a run has learned nothing yet
    argv = ["--smoke", *TINY, "--lr", 1e-9, "--max-steps", 3, "--num-synthetic", 400, "--run-dir", tmp_path / "run"]
    assert forked.run(forked.main_of(program), argv) == 1
    assert (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("model", ["lstm", "dlinear"])
def test_the_other_models_are_resumed_in_the_middle_of_an_epoch(model: str, tmp_path: Path) -> None:
    settings = ["--data", "synthetic", "--num-synthetic", 500, *TINY, "--model", model]
    assert forked.run(forked.main_of(program), ["--run-dir", tmp_path / "whole", *settings]) == 0
    assert forked.run(forked.stopping_at(5, program), ["--run-dir", tmp_path / "broken", *settings]) == 143
    assert forked.run(forked.main_of(program), ["--resume", tmp_path / "broken"]) == 0
    ends = [(forked.ending(path), summary(path)) for path in (tmp_path / "broken", tmp_path / "whole")]
    assert ends[0] == ends[1]


def test_one_network_is_trained_over_all_series_and_forecasts_each(
    make_table: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [line.split(",") for line in make_table(300).read_text().splitlines()]
    both = [[*row, site] for site in ("north", "south") for row in rows[1:]]
    path = write(tmp_path / "sites.csv", [[*rows[0], "site"], *both])
    run(["--data", path, "--series-column", "site", *TINY, "--max-steps", 2, "--run-dir", tmp_path / "run"])
    export(ExportCommand(tmp_path / "run", ProgramExportOptions()))
    monkeypatch.setattr("sys.argv", ["infer", f"{tmp_path}/run/model.onnx", str(path), "--output", str(tmp_path)])
    infer.main()
    lines = (tmp_path / "forecast.csv").read_text().splitlines()
    assert lines[0].startswith("site,date,tide,")
    assert [line.split(",")[:2] for line in lines[1::6]] == [[site, "2024-03-11 12:00"] for site in ("north", "south")]
    assert lines[1].replace("north", "south") == lines[7]


@pytest.mark.parametrize("head", ["point", "quantile"])
def test_a_train_step_learns_one_batch(head: str) -> None:
    losses = [float(loss) for loss in steps(150, head=head)]
    assert losses[-1] < 0.25 * losses[0]


def steps(num: int, head: Any) -> Iterator[Tensor]:
    """The losses of train steps on the same eight windows."""
    torch.manual_seed(0)
    accelerator = Accelerator(device="cpu", precision="fp32")
    config = settled(Config(lookback=24, horizon=6, segment=6, width=32, dropout=0.0, head=head))
    network = build_model(config, 2)
    windows = torch.randn(8, 30, 2)
    optimizer = AdamW(network.parameters(), lr=0.01, fused=True)
    learner: Learner[nn.Module] = Learner(network, optimizer, lambda step: 1.0, accelerator)
    for _ in range(num):
        metrics = train_step((windows[:, :24], windows[:, 24:]), learner=learner, config=config)
        assert not metrics["loss"].requires_grad
        yield metrics["loss"]


class Last(nn.Module):
    """Says the last row again, as the median between two levels."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, -1:, :, None].expand(-1, 3, -1, -1) + torch.tensor([-1.0, 0.0, 1.0])


class Batches:
    """Seven windows in uneven batches."""

    def __init__(self) -> None:
        self.inputs, self.targets = torch.randn(7, 5, 2), torch.randn(7, 3, 2)

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.inputs.split([5, 2]), self.targets.split([5, 2]), strict=True)


def test_evaluation_weighs_every_window_alike_and_takes_the_median() -> None:
    torch.manual_seed(0)
    loader = Batches()
    config = settled(Config())
    result = evaluate(loader, Last(), Accelerator(device="cpu", precision="fp32"), config)
    error = loader.inputs[:, -1:] - loader.targets
    assert result["mse"] == pytest.approx(float(error.square().mean()), rel=1e-5)
    assert result["mae"] == pytest.approx(float(error.abs().mean()), rel=1e-5)


def run(argv: Sequence[object]) -> None:
    """A training in this process."""
    train(parse_training(Config, [str(word) for word in argv]))


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
