"""Forecasts a table with an exported file: python -m projects.forecast.infer MODEL.onnx SERIES.csv --horizon 96.

numpy and onnxruntime; no torch. Writes a CSV with the timestamps continued, and a plot of history, forecast and
interval beside it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.benchmark import benchmark
from core.command_line import whole_number
from core.errors import RunError, UserError, note_saved, printable, run_command
from core.files import temporary_beside
from core.inference import OnnxModel
from core.patterns import expanded
from core.program import infer_parser
from core.progress import counted
from core.records import FORMATS, RecordWriter, check_parquet
from projects.forecast.config import NO_TIME_COLUMN, TASK, Config, ModelFacts
from projects.forecast.series import Series, read_series

_BATCH_SIZE, _MAX_PANELS = 64, 12
_ENDS = ("_lower", "_upper")  # of the outermost pair of quantiles
Levels = NDArray[np.float32]  # original units, [series, horizon, columns, levels]


def main() -> None:
    """The command line."""
    arguments = _parse_arguments()
    model = OnnxModel.named_by(arguments, task=TASK, facts=ModelFacts)
    facts = model.facts
    if arguments.benchmark:
        row = np.asarray(facts.mean, dtype=np.float32)
        benchmark(model, lambda num: {"series": np.tile(row, (num, facts.lookback, 1))}, as_json=arguments.json)
        return
    sources = expanded(arguments.series)
    places = _output_paths(arguments.output, sources, arguments.format)
    horizon = checked_horizon(arguments.horizon, facts)
    skip = arguments.on_fault == "skip" and len(sources) > 1
    if not skip and len(sources) > 1:
        for source in sources:  # before anything is written
            read_for(facts, source)
    num_done = 0
    for source, (table, plot) in zip(counted(sources, len(sources), "tables"), places, strict=True):
        try:
            _forecast_table(model, source, table, plot, horizon, as_json=arguments.json)
        except (UserError, RunError) as error:
            if not skip:
                raise
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
            continue
        num_done += 1
        note_saved(f"the forecasts of {num_done:,} tables are written")
    if not num_done:
        raise UserError("no usable table", f"{len(sources):,} given", "see the lines above")


def _parse_arguments() -> argparse.Namespace:
    """The command line. Raises UserError."""
    written = (
        "a .csv, .jsonl or .parquet, or a folder for forecast.csv and forecast.png (default: SERIES.forecast.csv in "
    )
    written += "this folder); of several tables a folder for SERIES.forecast.csv and .png of each"
    parser = infer_parser(Config, None, written)
    named = "tables with the model's columns, or patterns such as 'data/*.csv'"
    parser.add_argument("series", nargs="+", default=[], metavar="SERIES.csv", help=named).required = False
    parser.add_argument("--horizon", type=whole_number, metavar="N", help="rows to forecast (default: the model's)")
    parser.add_argument("--format", choices=FORMATS, help="of the table in a folder (default: csv)")
    faults = "a table of several that cannot be used: leave it out and name it, or stop before any is written "
    parser.add_argument("--on-fault", choices=("stop", "skip"), default="skip", help=f"{faults}(default: skip)")
    arguments = parser.parse_args()
    if not arguments.series and not arguments.benchmark:
        parser.error("the following arguments are required: SERIES.csv")
    return arguments


def _forecast_table(
    model: OnnxModel[ModelFacts], source: Path, table: Path, plot: Path, horizon: int, *, as_json: bool
) -> None:
    """Forecasts one table; writes and prints the result. Raises UserError and RunError before anything is written."""
    series = read_for(model.facts, source)
    levels = forecast(model, series)[:, :horizon]
    records = to_records(model.facts, series, levels)
    if as_json:
        print("\n".join(json.dumps(record) for record in records))
    replaced = [path for path in (table, plot) if path.exists()]
    table.parent.mkdir(parents=True, exist_ok=True)
    _write_table(records, table)
    _plot(model.facts, series, levels, plot)
    if replaced:
        print(f"note: replaced {' and '.join(map(str, replaced))}", file=sys.stderr)
    if not as_json:
        times = [series[0].write_time(time) for time in series[0].times_after(horizon)]
        several = f" of each of {len(series):,} series" if len(series) > 1 else f" from {times[0]} to {times[-1]}"
        print(printable(f"{table}: {horizon} rows{several}, of {', '.join(model.facts.columns)}"))
        print(printable(str(plot)))


def read_for(facts: ModelFacts, path: Path) -> tuple[Series, ...]:
    """The table, as the model expects it. Raises UserError for other columns, another frequency, or too few rows."""
    if path.is_dir():
        raise UserError("a folder in place of a table", path, "give a CSV file")
    result = read_series(
        path,
        time_column=NO_TIME_COLUMN if facts.time_column is None else facts.time_column,
        time_format=facts.time_format,
        series_column=facts.series_column,
        target=facts.columns,
        fill=facts.fill,
        frequency=facts.frequency,
    )
    for series in result:
        where = f"{path}, {series.name}" if series.name else str(path)
        if len(series) < facts.lookback:
            todo = f"the model looks back on {facts.lookback} rows"
            raise UserError("too short a series", f"{where}: {len(series)} rows", todo)
        if not series.frequency.is_like(facts.frequency):
            todo = f"it was trained on rows {facts.frequency} apart"
            raise UserError("another frequency than the model's", f"{where}: rows are {series.frequency} apart", todo)
    return result


def forecast(model: OnnxModel[ModelFacts], series: Sequence[Series]) -> Levels:
    """All levels for the model's whole horizon. Raises RunError where a number is not finite."""
    windows = [each.values[-model.facts.lookback :].astype(np.float32) for each in series]
    results = []
    for start in range(0, len(series), _BATCH_SIZE):
        outputs = model.run(series=np.stack(windows[start : start + _BATCH_SIZE]))
        results.append(outputs["quantiles"] if "quantiles" in outputs else outputs["forecast"][..., None])
    levels: Levels = np.concatenate(results)
    for each, its_levels in zip(series, levels, strict=True):
        if not np.isfinite(its_levels).all():
            where = f"{each.name} after {each.time_of(-1)}".strip()
            raise RunError("a forecast is not a finite number", where, "compare the table with the training data")
    return levels


def to_records(facts: ModelFacts, series: Sequence[Series], levels: Levels) -> list[dict[str, Any]]:
    """A record a row: its series where there are several, its time, and for each column the forecast and the ends of
    its interval. No two entries have the same name."""
    suffixes = _suffixes(facts)
    order = sorted(range(len(suffixes)), key=lambda k: suffixes[k] != "")  # the forecast itself first
    time_name = facts.time_column or "row"
    names = {f"{column}{suffix}" for column in facts.columns for suffix in suffixes} | {facts.series_column}
    while facts.time_column is None and time_name in names:
        time_name = f"_{time_name}"
    records = []
    for each, its_levels in zip(series, levels, strict=True):
        for time, row in zip(each.times_after(len(its_levels)), its_levels, strict=True):
            record: dict[str, Any] = {} if facts.series_column is None else {facts.series_column: each.name}
            record[time_name] = each.write_time(time)
            for column, numbers in zip(facts.columns, row, strict=True):
                record |= {f"{column}{suffixes[k]}": float(f"{numbers[k]:.7g}") for k in order}
            records.append(record)
    return records


def _suffixes(facts: ModelFacts) -> list[str]:
    """What each level's column has behind its name: nothing for the median, _lower and _upper for the outermost pair;
    with more underscores where another column has that name, as with the columns load and load_lower."""
    levels = facts.quantiles
    outermost = {levels[0]: _ENDS[0], levels[-1]: _ENDS[1]}
    suffixes = [outermost.get(level, f"_q{level}") for level in levels]
    suffixes[len(levels) // 2] = ""
    taken = {*facts.columns, facts.time_column, facts.series_column}
    while {f"{column}{suffix}" for column in facts.columns for suffix in suffixes if suffix} & taken:
        suffixes = [f"_{suffix}" if suffix else "" for suffix in suffixes]
    return suffixes


def _output_paths(output: Path | None, sources: Sequence[Path], given_format: str | None) -> list[tuple[Path, Path]]:
    """The paths of the table and of the plot for each source. Raises UserError where they would replace an input."""
    ending = None if output is None or output.is_dir() else output.suffix.lower()[1:]
    is_file = ending in FORMATS
    if is_file and given_format not in (None, ending):
        raise UserError("two formats", f"--format {given_format} and --output {output}", "leave out --format")
    suffix = f".{given_format or 'csv'}"
    if len(sources) > 1:
        if is_file:
            raise UserError("one output for many tables", f"--output {output}", "give a folder")
        tables = [(output or Path()) / f"{source.stem}.forecast{suffix}" for source in sources]
        if twice := [table for table in tables if tables.count(table) > 1]:
            raise UserError("two tables of one name", twice[0], "give one of them in another command")
    elif output is None:
        tables = [Path(f"{sources[0].stem}.forecast{suffix}")]
    else:
        tables = [output if is_file else output / f"forecast{suffix}"]
    for table in tables:
        in_the_way = [path for path in table.parents if path.exists() and not path.is_dir()]
        if in_the_way or table.is_dir():
            raise UserError("not a folder", f"--output {output}", "give a folder or a FILE.csv")
        for path in (table, table.with_suffix(".png")):
            if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
                raise UserError("the output would replace the input", path, "give another --output")
    if suffix == ".parquet" or tables[0].suffix.lower() == ".parquet":
        check_parquet()
    return [(table, table.with_suffix(".png")) for table in tables]


def checked_horizon(wanted: int | None, facts: ModelFacts) -> int:
    """Rows to forecast, at most what the model can. Raises UserError for more."""
    most = facts.horizon
    if wanted is not None and not 1 <= wanted <= most:
        todo = f"give 1 to {most}, or train with --horizon {wanted}" if wanted > most else f"give 1 to {most}"
        raise UserError("the model forecasts no such horizon", f"--horizon {wanted}", todo)
    return most if wanted is None else wanted


def _write_table(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Replaces a table as a whole, in the format that its name ends in."""
    temporary = temporary_beside(path)
    temporary = temporary.with_name(f"{temporary.name}{path.suffix}")
    try:
        with RecordWriter(temporary, {name: type(value) for name, value in records[0].items()}) as writer:
            for record in records:
                writer.add(record)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plot(facts: ModelFacts, series: Sequence[Series], levels: Levels, path: Path) -> None:
    """History, forecast and interval of each column of each series, of the first _MAX_PANELS."""
    from projects.forecast.plots import Panel, plot_forecasts

    num = min(facts.lookback, max(2 * levels.shape[1], 24))
    panels = [
        Panel(f"{each.name} {column}".strip(), each.values[-num:, k], its_levels[:, k].astype(np.float64))
        for each, its_levels in zip(series, levels, strict=True)
        for k, column in enumerate(facts.columns)
    ]
    plot_forecasts(panels[:_MAX_PANELS], facts.quantiles, path, title=f"Forecast after {series[0].time_of(-1)}")


if __name__ == "__main__":
    run_command(main)
