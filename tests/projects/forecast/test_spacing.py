"""How far apart rows are is detected, and continued as a calendar does."""

import numpy as np
import pytest

from core.errors import UserError
from projects.forecast.frequency import DAY, HOUR, MINUTE, Frequency
from projects.forecast.spacing import Times, find_spacing, times_after


def times(*texts: str) -> Times:
    return np.array(texts, dtype="datetime64[us]")


def detected(some: Times, expected: Frequency | None = None) -> Frequency:
    return find_spacing(some, [f"row {number}: {time}" for number, time in enumerate(some)], expected).frequency


def test_rows_of_a_quarter_of_an_hour() -> None:
    some = np.datetime64("2024-01-01", "us") + np.arange(20) * np.timedelta64(15, "m")
    assert str(detected(some)) == "15 minutes"
    assert times_after(detected(some), some[-1], 2).tolist() == times("2024-01-01T05:00", "2024-01-01T05:15").tolist()


@pytest.mark.parametrize(
    ("rows", "text", "next_ones"),
    [
        (("2024-01-01", "2024-02-01", "2024-03-01"), "1 month", ("2024-04-01", "2024-05-01")),
        (("2023-10-15", "2024-01-15", "2024-04-15"), "3 months", ("2024-07-15", "2024-10-15")),
        (("2024-01-31", "2024-02-29", "2024-03-31"), "1 month end", ("2024-04-30", "2024-05-31")),
        (("2022-06-30", "2022-09-30", "2022-12-31"), "3 month ends", ("2023-03-31", "2023-06-30")),
        (("2020-02-29", "2021-02-28", "2022-02-28"), "12 months", ("2023-02-28", "2024-02-29")),
        (("2020-07-01", "2021-07-01", "2022-07-01"), "12 months", ("2023-07-01", "2024-07-01")),
        (("2023-11-30", "2023-12-30", "2024-01-30"), "1 month", ("2024-02-29", "2024-03-30")),
        (("2023-12-29", "2024-01-29", "2024-02-29", "2024-03-29"), "1 month", ("2024-04-29", "2024-05-29")),
        (("2022-12-31", "2023-01-31", "2023-02-28"), "1 month end", ("2023-03-31", "2023-04-30")),
        (("2024-02-28", "2024-02-29", "2024-03-01", "2024-03-04"), "1 business day", ("2024-03-05", "2024-03-06")),
        (("2024-02-29", "2024-03-01", "2024-03-04"), "1 business day", ("2024-03-05", "2024-03-06")),
        (("2024-02-26", "2024-02-27", "2024-02-28"), "1 day", ("2024-02-29", "2024-03-01")),
        (("2024-01-01", "2024-01-08", "2024-01-15"), "7 days", ("2024-01-22", "2024-01-29")),
    ],
)
def test_calendars_go_on_as_people_expect(rows: tuple[str, ...], text: str, next_ones: tuple[str, ...]) -> None:
    frequency = detected(times(*rows))
    assert str(frequency) == text
    assert times_after(frequency, times(*rows)[-1], 2).tolist() == times(*next_ones).tolist()


def test_a_missing_month_is_a_step_of_two() -> None:
    some = times("2024-01-01", "2024-02-01", "2024-04-01", "2024-05-01", "2024-06-01")
    assert find_spacing(some, [""] * 5).steps.tolist() == [1, 1, 2, 1, 1]


def test_a_missing_business_day_is_a_step_of_two() -> None:
    some = times("2024-02-29", "2024-03-01", "2024-03-04", "2024-03-06", "2024-03-07")
    assert find_spacing(some, [""] * 5).steps.tolist() == [1, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("2024-04-30", "2024-06-30", "2024-08-31"), Frequency("month", 2, 31)),
        (("2024-03-04", "2024-03-05", "2024-03-06"), Frequency("business day", 1)),
        (("2024-03-04", "2024-03-05", "2024-03-06"), Frequency("microsecond", DAY)),
    ],
)
def test_a_short_table_is_read_with_the_frequency_that_is_expected(rows: tuple[str, ...], expected: Frequency) -> None:
    assert detected(times(*rows), expected) == expected


def test_rows_further_apart_than_expected_are_not_taken_for_gaps() -> None:
    some = times("2024-03-04", "2024-03-06", "2024-03-08")
    assert detected(some, Frequency("microsecond", DAY)) == Frequency("microsecond", 2 * DAY)


def test_no_forecast_goes_beyond_the_year_9999() -> None:
    assert len(times_after(Frequency("month", 1, 1), np.datetime64("9999-06-01", "us"), 6)) == 6
    for frequency in (Frequency("month", 1, 1), Frequency("microsecond", 31 * DAY)):
        with pytest.raises(UserError, match="9999"):
            times_after(frequency, np.datetime64("9999-06-01", "us"), 7)


@pytest.mark.parametrize(
    ("frequency", "longest", "rows"),
    [
        (Frequency("microsecond", HOUR), 720, 24),
        (Frequency("microsecond", 15 * MINUTE), 720, 96),
        (Frequency("microsecond", 15 * MINUTE), 50, 4),
        (Frequency("microsecond", DAY), 720, 7),
        (Frequency("microsecond", 7 * DAY), 720, 52),
        (Frequency("microsecond", 7 * HOUR), 720, 1),
        (Frequency("month", 1, 1), 36, 12),
        (Frequency("month", 3, 31), 36, 4),
        (Frequency("month", 12, 1), 36, 1),
        (Frequency("business day", 1), 36, 5),
        (Frequency("row", 1), 36, 1),
    ],
)
def test_the_season_is_the_longest_natural_one_that_fits(frequency: Frequency, longest: int, rows: int) -> None:
    assert frequency.season(longest) == rows
