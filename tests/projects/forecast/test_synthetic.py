"""Generated series are a function of the seed, have seasons to learn and noise that varies, and go on for ever."""

import numpy as np
import pytest

from projects.forecast.synthetic import COLUMNS, generate

DAY, WEEK = 24, 168  # rows


def test_shapes_and_times() -> None:
    series = generate(500, seed=0)
    assert series.values.shape == (500, len(COLUMNS))
    assert np.isfinite(series.values).all()
    assert (series.time_of(0), series.time_of(499)) == ("2022-01-03 00:00:00", "2022-01-23 19:00:00")


def test_the_same_seed_gives_the_same_rows_and_leaves_the_global_state_alone() -> None:
    before = repr(np.random.get_state())
    assert np.array_equal(generate(300, seed=5).values, generate(300, seed=5).values)
    assert not np.allclose(generate(300, seed=5).values, generate(300, seed=6).values)
    assert repr(np.random.get_state()) == before


@pytest.mark.parametrize("num", [100, 101, 777])
def test_a_longer_series_begins_as_a_shorter_one(num: int) -> None:
    np.testing.assert_allclose(generate(1_000, seed=1).values[:num], generate(num, seed=1).values, rtol=1e-12)


def test_days_and_weeks_repeat_and_weekends_differ() -> None:
    values = generate(9_000, seed=0).values
    for column in range(3):
        wave = values[:, column] - values[:, column].mean()
        at = {lag: np.corrcoef(wave[lag:], wave[:-lag])[0, 1] for lag in (12, DAY, WEEK)}
        assert at[WEEK] > at[DAY] > 0.3 > at[12]
    offices = values[: 50 * WEEK, 1].reshape(50, 7, DAY)
    assert np.ptp(offices[:, :5].mean((0, 1))) > 1.5 * np.ptp(offices[:, 5:].mean((0, 1)))


def test_noise_is_louder_at_some_hours_than_at_others() -> None:
    values = generate(9_000, seed=0).values[: 53 * WEEK, 3]
    steps = np.abs(np.diff(values)[: 53 * WEEK - DAY].reshape(-1, DAY) - np.diff(values)[:DAY].mean()).mean(0)
    assert steps.max() > 1.5 * steps.min()


def test_levels_shift_for_long() -> None:
    days = generate(9_000, seed=3).values[: 53 * WEEK, 2].reshape(53, WEEK).mean(1)
    assert np.abs(np.diff(days)).max() > 4 * np.median(np.abs(np.diff(days)))
