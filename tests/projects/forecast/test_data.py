"""Windows lie where the literature's lie, nothing of the future reaches an input, and every test window counts."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.accelerator import Accelerator
from core.distributed import World
from core.errors import UserError
from core.program import parse_training
from projects.forecast import data as data_module
from projects.forecast.config import Config, settled
from projects.forecast.data import Data, Windows, evaluation_loader, load_data, training_loader
from projects.forecast.datasets import FILES
from projects.forecast.model import solve_dlinear
from projects.forecast.series import Series
from projects.forecast.synthetic import generate
from tests.projects.forecast.conftest import TINY, MakeTable

CPU = torch.device("cpu")


def settings(path: object, *more: object) -> Config:
    argv = [str(value) for value in ("--data", path, *TINY, *more)]
    return settled(parse_training(Config, argv).config)


def all_of(windows: Windows) -> tuple[Tensor, Tensor]:
    return windows.batch(torch.arange(len(windows)))


@pytest.fixture
def hourly(monkeypatch: pytest.MonkeyPatch) -> Series:
    """20 months of hours and more, in place of a downloaded file."""
    series = generate(17_420, seed=0)
    monkeypatch.setattr(data_module, "load_series", lambda config: (series,))
    return series


def test_ett_is_split_into_12_4_and_4_months_and_the_rest_is_left_alone(hourly: Series) -> None:
    data = load_data(settled(Config(data="etth1", lookback=336, horizon=96)), CPU)
    assert data.rows == ((8640, 2880, 2880),)
    assert (len(data.train), len(data.val), len(data.test)) == (8640 - 336 - 96 + 1, 2880 - 96 + 1, 2880 - 96 + 1)
    assert (int(data.val.starts[0]), int(data.test.starts[0])) == (8640 - 336, 11520 - 336)
    inputs, targets = data.test.batch(torch.tensor([0, len(data.test) - 1]))
    standardized = (hourly.values - data.mean) / data.std
    np.testing.assert_allclose(inputs[0], standardized[11520 - 336 : 11520], atol=1e-5)
    np.testing.assert_allclose(targets[0], standardized[11520 : 11520 + 96], atol=1e-5)
    np.testing.assert_allclose(targets[1], standardized[14400 - 96 : 14400], atol=1e-5)


def test_the_scaler_is_that_of_the_training_rows(hourly: Series) -> None:
    data = load_data(settled(Config(data="etth1")), CPU)
    np.testing.assert_allclose(data.mean, hourly.values[:8640].mean(axis=0))
    np.testing.assert_allclose(data.std, hourly.values[:8640].std(axis=0))


def test_no_forecast_of_training_reaches_a_row_of_validation(make_table: MakeTable) -> None:
    data = load_data(settings(make_table(300)), CPU)
    first, last = data.train.batch(torch.tensor([0, len(data.train) - 1]))[1][:, :, 0]
    standardized = torch.from_numpy((data.series[0].values[:, 0] - data.mean[0]) / data.std[0]).float()
    torch.testing.assert_close(first, standardized[24:30])
    torch.testing.assert_close(last, standardized[data.rows[0][0] - 6 : data.rows[0][0]])


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_another_future_changes_no_input_and_no_scaler(
    part: str, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(make_table(300))
    data = load_data(config, CPU)
    windows: Windows = getattr(data, part)
    inputs, targets = all_of(windows)
    for window in (0, len(windows) // 2, len(windows) - 1):
        origin = int(windows.starts[window]) + windows.lookback
        changed = dataclasses.replace(data.series[0], values=data.series[0].values.copy())
        changed.values[max(origin, data.rows[0][0]) :] += 1000
        other = with_series(changed, config, monkeypatch)
        np.testing.assert_array_equal(other.mean, data.mean)
        np.testing.assert_array_equal(other.std, data.std)
        new_inputs, new_targets = all_of(getattr(other, part))
        assert torch.equal(new_inputs[: window + 1], inputs[: window + 1])
        assert part == "train" or not torch.isclose(new_targets[window], targets[window]).any()


def test_another_past_does_change_inputs(make_table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(make_table(300))
    data = load_data(config, CPU)
    changed = dataclasses.replace(data.series[0], values=data.series[0].values.copy())
    changed.values[data.rows[0][0] :] += 1000
    other = with_series(changed, config, monkeypatch)
    assert not torch.equal(all_of(other.val)[0][1:], all_of(data.val)[0][1:])


def with_series(series: Series, config: Config, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setattr(data_module, "load_series", lambda config: (series,))
    return load_data(config, CPU)


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("auto", (210, 30, 60)),
        ("0.5/0.25/0.25", (150, 75, 75)),
        ("200/50/30", (200, 50, 30)),
    ],
)
def test_parts_follow_one_another_in_time(split: str, rows: tuple[int, int, int], make_table: MakeTable) -> None:
    data = load_data(settings(make_table(300), "--split", split), CPU)
    assert data.rows == (rows,)
    assert int(data.val.starts[0]) + data.val.lookback == rows[0]
    assert int(data.test.starts[0]) + data.test.lookback == rows[0] + rows[1]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--lookback", 200, "--horizon", 20], "train has 210 rows"),
        (["--horizon", 31], "val has 30 rows"),
        (["--split", "0.7/0.2/0.1", "--horizon", 31], "test has 30 rows"),
        (["--split", "200/100/1"], "--split 200/100/1"),
        (["--split", "ett"], "20 months"),
        (["--season", 25], "--season 25"),
        (["--target", "height"], "height"),
        (["--time-column", "when"], "when"),
    ],
)
def test_what_the_table_cannot_give_is_named(more: list[object], named: str, make_table: MakeTable) -> None:
    with pytest.raises(UserError) as caught:
        load_data(settings(make_table(300), *more), CPU)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_that_never_changes_is_forecast_without_a_division_by_zero(make_table: MakeTable) -> None:
    def still(rows: list[list[str]]) -> None:
        for row in rows[1:]:
            row[2] = "7.25"

    data = load_data(settings(make_table(300, edit=still)), CPU)
    assert data.std[1] == 1
    assert not all_of(data.train)[0][..., 1].any()


def test_large_levels_keep_their_small_movements_and_too_large_ones_are_refused(make_table: MakeTable) -> None:
    def raised(level: float) -> Data:
        def edit(rows: list[list[str]]) -> None:
            for row in rows[1:]:
                row[1] = f"{float(row[1]) + level:.4f}"

        return load_data(settings(make_table(300, edit=edit)), CPU)

    torch.testing.assert_close(all_of(raised(1e5).test)[1], all_of(raised(0).test)[1], atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="movements too small for the level: tide"):
        raised(1e9)


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_test_window_is_scored_once_the_last_partial_batch_too(world_size: int, hourly: Series) -> None:
    data = load_data(settled(Config(data="etth1", horizon=720)), CPU)
    assert len(data.test) == 2161
    firsts = []
    for rank in range(world_size):
        loader = evaluation_loader(data.test, World(rank, rank, world_size))
        firsts += [target[0] for _, targets in loader.batches(0) for target in targets[:, :, 0].tolist()]
    expected = all_of(data.test)[1][:, 0, 0].tolist()
    assert sorted(firsts) == sorted(expected)


def test_training_batches_are_shuffled_windows_that_differ_by_epoch_and_seed(make_table: MakeTable) -> None:
    accelerator = Accelerator(device="cpu", precision="fp32")
    path = make_table(300)

    def first(epoch: int, *more: object, start: int = 0) -> Tensor:
        config = settings(path, *more)
        batches = list(training_loader(load_data(config, CPU), config, accelerator).batches(epoch, start))
        assert all(inputs.shape == (20, 24, 2) and targets.shape == (20, 6, 2) for inputs, targets in batches)
        return batches[0][0]

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert not torch.equal(first(0), first(0, "--seed", 1))
    assert not torch.equal(first(0), first(0, start=1))


def test_the_pinned_files_are_four_and_a_wrong_one_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({(file.sha256, file.size) for file in FILES.values()}) == 4
    assert all(len(file.sha256) == 64 and len(file.urls) == 2 for file in FILES.values())
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path))
    (tmp_path / "ETTh1.csv").write_text("date,OT\n2016-07-01,1\n")
    with pytest.raises(UserError, match=r"ETTh1\.csv"):
        load_data(settled(Config(data="etth1")), CPU)


def test_the_real_file_is_the_pinned_one_and_a_linear_model_makes_its_published_error(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DLinear's paper has 0.375 for 96 hours ahead from 336; the least-squares optimum lies a little below."""
    path = real_data / "ett" / "ETTh1.csv"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FILES["etth1"].sha256
    monkeypatch.setenv("ATELIER_CACHE", str(path.parent))
    pinned = load_data(settled(Config(data="etth1", model="dlinear")), CPU)
    own = load_data(settled(Config(data=str(path), model="dlinear", split="ett")), CPU)
    assert pinned.sha256 == own.sha256
    assert pinned.rows == own.rows
    linear = solve_dlinear([own.train.values[: own.rows[0][0]]], 336, 96)
    total = 0.0
    with torch.inference_mode():
        for inputs, targets in evaluation_loader(own.test, World()).batches(0):
            total += float((linear(inputs)[..., 0] - targets).double().square().mean((1, 2)).sum())
    assert total / len(own.test) == pytest.approx(0.375, abs=0.005)


def two_sites(rows: list[list[str]]) -> None:
    """The second half of the rows as another series over the same time, three times as large."""
    half = (len(rows) - 1) // 2
    rows[0].append("site")
    for number, row in enumerate(rows[1:]):
        row.append("north" if number < half else "south")
        if number >= half:
            row[:3] = [rows[1 + number - half][0], *(f"{3 * float(value):.4f}" for value in row[1:3])]


def test_no_window_reaches_from_one_series_into_another(make_table: MakeTable) -> None:
    data = load_data(settings(make_table(600, edit=two_sites), "--series-column", "site"), CPU)
    assert data.rows == ((210, 30, 60),) * 2
    assert data.num_rows == (420, 60, 120)
    north = load_data(settings(make_table(300)), CPU)
    for part in ("train", "val", "test"):
        one, both = getattr(north, part), getattr(data, part)
        assert both.starts.tolist() == [*one.starts.tolist(), *(one.starts + 300).tolist()]
    values = np.concatenate(data.train_values)
    np.testing.assert_allclose(data.mean, values.mean(axis=0))
    assert data.time_of(300) == f"south {north.time_of(0)}"


def test_windows_of_the_test_that_stand_in_the_training_rows_are_counted(make_table: MakeTable) -> None:
    def repeat(rows: list[list[str]]) -> None:
        for row, other in zip(rows[-60:], rows[101:], strict=False):
            row[1:] = other[1:]

    assert not any("copies" in note for note in load_data(settings(make_table(300)), CPU).notes)
    (note,) = (note for note in load_data(settings(make_table(300, edit=repeat)), CPU).notes if "copies" in note)
    assert note.startswith("55 of 55 test windows")
