"""Generated hourly loads, a stand-in for measured series that needs no download.

Four related columns: a daily shape that changes at weekends, a year's swing, a slow trend, sudden shifts of level that
stay, and noise that remembers its past and is louder by day and in windy spells. The season can be learned, the shifts
cannot be foreseen, and all columns differ.
"""

import numpy as np
from numpy.typing import NDArray

from projects.forecast.frequency import HOUR, Frequency
from projects.forecast.series import Series
from projects.forecast.timestamps import TimeForm

COLUMNS = ("homes", "offices", "works", "wind")
_START = "2022-01-03 00:00:00"  # a Monday
_TIME_FORM = TimeForm("%Y-%m-%d %H:%M:%S")
_DAY, _WEEK, _YEAR = 24, 168, 8766  # rows
_HOURS_BETWEEN_SHIFTS = 700
_SPELL = 60  # hours that a loud or quiet spell lasts

_Array = NDArray[np.float64]


def generate(num_rows: int, seed: int) -> Series:
    """The first `num_rows` hours of the endless series that belongs to a seed; values float64, of no real unit."""
    # One generator for each random quantity, so that a longer series begins as a shorter one.
    shape, jump, size, spell, fresh = (
        np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number])) for number in range(5)
    )
    hours = np.arange(num_rows, dtype=np.float64)[:, None]
    season = np.cos(2 * np.pi * (hours / _YEAR - 0.04)) * np.array([9.0, 4.0, 2.0, 5.0])
    trend = hours / _YEAR * np.array([1.5, 3.0, -2.0, 0.5])
    values = np.array([60.0, 80.0, 120.0, 40.0]) + season + trend
    values += _daily_shape(hours, shape) + _shifts(num_rows, jump, size) + _noise(hours, spell, fresh)
    times = np.datetime64(_START, "us") + np.arange(num_rows) * np.timedelta64(HOUR, "us")
    return Series(COLUMNS, values, times, Frequency("microsecond", HOUR), time_column="time", form=_TIME_FORM)


def _daily_shape(hours: _Array, generator: np.random.Generator) -> _Array:
    """Two humps a day on weekdays, a later, lower one at weekends; height and hour differ by column and seed."""
    height = np.array([14.0, 26.0, 18.0, 4.0]) * generator.uniform(0.85, 1.15, 4)
    moved = np.array([0.0, -2.0, -4.0, 3.0]) + generator.uniform(-1, 1, 4)
    angle = 2 * np.pi * (hours - 8 - moved) / _DAY
    weekday = np.cos(angle) + 0.55 * np.cos(2 * angle + 0.6) + 0.2 * np.cos(3 * angle)
    weekend = 0.45 * np.cos(angle - 0.9) - np.array([-0.2, 0.9, 0.5, 0.0])
    is_weekend = hours % _WEEK >= 5 * _DAY
    shape: _Array = np.where(is_weekend, weekend, weekday) * height
    return shape


def _shifts(num_rows: int, jump: np.random.Generator, size: np.random.Generator) -> _Array:
    """Levels that jump now and then and return to the old one within weeks."""
    happens = jump.random((num_rows, 4)) < 1 / _HOURS_BETWEEN_SHIFTS
    sizes = size.normal(0, 1, (num_rows, 4)) * np.array([7.0, 8.0, 12.0, 6.0])
    return _remembered(happens * sizes, keep=0.998)


def _noise(hours: _Array, spell: np.random.Generator, fresh: np.random.Generator) -> _Array:
    """Noise with a memory of hours, up to four times as loud by day and in spells."""
    by_day = 0.6 + 0.4 * np.cos(2 * np.pi * (hours - 14) / _DAY)
    loudness = np.exp(0.35 * _remembered(spell.normal(0, 1, (len(hours), 1)), keep=1 - 1 / _SPELL) / _SPELL**0.5)
    steps = fresh.normal(0, 1, (len(hours), 4)) * by_day * loudness
    loud: _Array = _remembered(steps, keep=0.8) * np.array([1.6, 1.8, 2.4, 2.6])
    return loud


def _remembered(steps: _Array, keep: float) -> _Array:
    """Each row is `keep` of the row before and the new step."""
    levels = np.empty_like(steps)
    level = np.zeros(steps.shape[1])
    for row, step in enumerate(steps):
        level = keep * level + step
        levels[row] = level
    return levels
