"""Inference continues any table that fits the model, and names in one line what does not."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from projects.forecast import infer
from projects.forecast.config import ModelFacts
from projects.forecast.frequency import HOUR, Frequency
from projects.forecast.series import Series
from projects.forecast.timestamps import TimeForm
from tests.projects.forecast.conftest import write, write_synthetic
from tests.refusals import assert_refused
from tests.smoke import Smoke

Infer = Callable[..., None]


@pytest.fixture
def run(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Infer:
    """Runs the program here, in an empty folder, with the smoke run's model."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["infer", *map(str, (smoke.run_dir / "model.onnx", *arguments))])
        infer.main()

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Enough rows, of columns in another order and one too many, as a user may have them."""
    path = write_synthetic(tmp_path / "recent.csv", 200)
    rows = [line.split(",") for line in path.read_text().splitlines()]
    return write(path, [[*row[2:], "note" if row[0] == "time" else "x", row[0], row[1]] for row in rows])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_json_has_an_object_a_row(run: Infer, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(table, "--json", "--horizon", 5)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["time"] for line in lines] == [f"2022-01-11 {hour:02}:00:00" for hour in range(8, 13)]
    assert lines[0]["wind_lower"] <= lines[0]["wind"] <= lines[0]["wind_upper"]


def test_without_horizon_it_is_the_models_and_without_output_the_files_are_named_after_the_table(
    run: Infer, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(table)
    assert capsys.readouterr().out.startswith(
        "recent.forecast.csv: 48 rows from 2022-01-11 08:00:00 to 2022-01-13 07:00:00, of homes, offices, works, wind\n"
    )
    assert files(tmp_path) == ["recent.csv", "recent.forecast.csv", "recent.forecast.png"]
    assert len((tmp_path / "recent.forecast.csv").read_text().splitlines()) == 49


def test_a_shorter_horizon_is_the_beginning_of_the_longer_one(run: Infer, table: Path, tmp_path: Path) -> None:
    run(table, "--output", "long.csv")
    run(table, "--output", "short.csv", "--horizon", 7)
    long, short = ((tmp_path / f"{name}.csv").read_text().splitlines() for name in ("long", "short"))
    assert short == long[:8]


def test_output_is_a_file_or_a_folder(run: Infer, table: Path, tmp_path: Path) -> None:
    run(table, "--output", tmp_path / "new" / "mine.csv", "--horizon", 3)
    run(table, "--output", tmp_path / "folder", "--horizon", 3)
    expected = ["folder/forecast.csv", "folder/forecast.png", "new/mine.csv", "new/mine.png", "recent.csv"]
    assert files(tmp_path) == expected


def test_several_tables_have_an_output_each_and_a_broken_one_is_left_out(
    run: Infer, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("x.csv", "y.csv"):
        shutil.copy(table, tmp_path / "a" / name)
    (tmp_path / "a" / "z.csv").write_text("no,table\n")
    run("a/*.csv", "--output", "out", "--horizon", 3, "--format", "jsonl")
    names = [f"out/{name}.forecast.{kind}" for name in ("x", "y") for kind in ("jsonl", "png")]
    assert [name for name in files(tmp_path) if name.startswith("out/")] == names
    assert "a/z.csv" in capsys.readouterr().err
    run("recent.csv", "--json", "--horizon", 3, "--output", "r.jsonl")
    assert (tmp_path / names[0]).read_text() == (tmp_path / "r.jsonl").read_text()
    assert (tmp_path / "r.jsonl").read_text().splitlines() == capsys.readouterr().out.splitlines()
    for argv, named in (
        (["a/*.csv", "--on-fault", "stop", "--output", "new"], "a/z.csv"),
        (["a/*.csv", "--output", "new.csv"], "new.csv"),
        (["recent.csv", "a/../recent.csv", "--output", "new"], "new/recent.forecast.csv"),
        (["b/*.csv"], "b/*.csv"),
        (["recent.csv", "--format", "csv", "--output", "new.jsonl"], "--format csv"),
    ):
        assert_refused(partial(run, *argv), named, tmp_path)


def test_only_the_newest_rows_count(run: Infer, table: Path, tmp_path: Path) -> None:
    run(table, "--output", "all.csv")
    rows = [line.split(",") for line in table.read_text().splitlines()]
    write(table, [rows[0], *rows[-168:]])
    run(table, "--output", "newest.csv")
    assert (tmp_path / "all.csv").read_text() == (tmp_path / "newest.csv").read_text()


Edit = Callable[[list[list[str]]], object]
BAD_TABLES: dict[str, tuple[Edit, str]] = {
    "too short": (lambda rows: [rows.pop(1) for _ in range(33)], "recent.csv: 167 rows"),
    "a column is gone": (lambda rows: [row.pop(0) for row in rows], "no such column: offices in recent.csv"),
    "no time": (lambda rows: [row.pop(4) for row in rows], "no such column: time in recent.csv"),
    "a value is missing": (lambda rows: rows[9].__setitem__(2, "NaN"), "recent.csv line 10, column wind: NaN"),
    "a decimal comma": (lambda rows: rows[9].__setitem__(2, '"1,5"'), "recent.csv line 10, column wind: 1,5"),
    "a gap": (lambda rows: rows.pop(20), "recent.csv line 21, column time"),
    "another frequency": (lambda rows: rows.__setitem__(slice(None), halved(rows)), "rows are 30 minutes apart"),
}


def halved(rows: list[list[str]]) -> list[list[str]]:
    """The same rows, half an hour apart."""
    for number, row in enumerate(rows[1:]):
        row[4] = f"2022-01-{3 + number // 48:02} {number // 2 % 24:02}:{30 * (number % 2):02}:00"
    return rows


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_does_not_fit_is_named_and_nothing_is_written(
    name: str, run: Infer, table: Path, tmp_path: Path
) -> None:
    edit, named = BAD_TABLES[name]
    rows = [line.split(",") for line in table.read_text().splitlines()]
    edit(rows)
    write(table, rows)
    before = table.read_bytes()
    with pytest.raises(UserError) as caught:
        run(table.name)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["recent.csv"]
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["recent.csv", "--horizon", 49], "train with --horizon 49"),
        (["recent.csv", "--horizon", 0], "--horizon 0"),
        (["recent.csv", "--output", "recent.csv"], "would replace the input"),
        (["recent.csv", "--output", "recent.csv/x"], "not a folder"),
        (["missing.csv"], "missing.csv"),
        (["."], "."),
        ([], "SERIES.csv"),
    ],
)
def test_a_wrong_command_line_is_named_and_nothing_is_written(
    arguments: list[object], named: str, run: Infer, table: Path, tmp_path: Path
) -> None:
    before = table.read_bytes()
    with pytest.raises(UserError) as caught:
        run(*arguments)
    assert named in str(caught.value)
    assert files(tmp_path) == ["recent.csv"]
    assert table.read_bytes() == before


def test_an_output_that_is_replaced_is_named(run: Infer, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(table, "--output", "mine.csv", "--horizon", 3)
    assert capsys.readouterr().err == ""
    run(table, "--output", "mine.csv", "--horizon", 3)
    assert "mine.csv and mine.png" in capsys.readouterr().err


def facts(columns: tuple[str, ...], **changes: Any) -> ModelFacts:
    """What a file knows that forecasts hours with the quantiles 0.1, 0.5, 0.9."""
    settings: dict[str, Any] = {
        "model": "segrnn",
        "num_train": 1,
        "data_sha256": "",
        "columns": columns,
        "time_column": "date",
        "time_format": None,
        "series_column": None,
        "frequency": Frequency("microsecond", HOUR),
        "season": 24,
        "mean": (0.0,) * len(columns),
        "std": (1.0,) * len(columns),
        "rows": (1, 1, 1),
        "lookback": 3,
        "horizon": 2,
        "fill": "none",
        "quantiles": (0.1, 0.5, 0.9),
    }
    return ModelFacts(**{**settings, **changes})


@pytest.mark.parametrize(
    ("columns", "changes", "expected"),
    [
        (("load", "load_lower"), {}, ["date", "load", "load__lower", "load__upper", "load_lower"]),
        (("load",), {"time_column": "load_upper"}, ["load_upper", "load", "load__lower", "load__upper"]),
        (("row",), {"time_column": None, "frequency": Frequency("row", 1)}, ["_row", "row", "row_lower", "row_upper"]),
        (("a",), {"quantiles": (0.1, 0.2, 0.5, 0.8, 0.9)}, ["date", "a", "a_lower", "a_q0.2", "a_q0.8", "a_upper"]),
        (("a",), {"series_column": "site"}, ["site", "date", "a", "a_lower", "a_upper"]),
    ],
)
def test_no_column_of_the_output_has_the_name_of_another(
    columns: tuple[str, ...], changes: dict[str, Any], expected: list[str]
) -> None:
    its_facts = facts(columns, **changes)
    times = np.arange(3).astype("datetime64[us]")
    form = None if its_facts.time_column is None else TimeForm("%Y")
    series = Series(columns, np.zeros((3, len(columns))), times, its_facts.frequency, form=form)
    levels = np.arange(2 * len(columns) * len(its_facts.quantiles), dtype=np.float32)
    records = infer.to_records(its_facts, [series], levels.reshape(1, 2, len(columns), -1))
    assert list(records[0])[: len(expected)] == expected
    num_values = len(columns) * len(its_facts.quantiles)
    assert len({value for value in records[0].values() if isinstance(value, float)}) == num_values
