"""Forecasts a table with an exported file: python -m projects.forecast.infer MODEL.onnx SERIES.csv --horizon 96.

numpy and onnxruntime; no torch. Writes a CSV with the timestamps continued, and a plot of history, forecast and
interval beside it.
"""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.command_line import whole_number
from core.errors import RunError, UserError, printable, run_command
from core.files import write_atomically
from core.inference import OnnxModel
from core.program import infer_parser
from projects.forecast.config import NO_TIME_COLUMN, TASK, Config, ModelFacts
from projects.forecast.series import Series, read_series

_MAX_PANELS = 12
_ENDS = ("_lower", "_upper")  # of the outermost pair of quantiles
Levels = NDArray[np.float32]  # original units, [series, horizon, columns, levels]


def main() -> None:
    """The command line."""
    written = "FILE.csv, or a folder for forecast.csv and forecast.png (default: SERIES.forecast.csv in this folder)"
    parser = infer_parser(Config, None, written)
    parser.add_argument("series", type=Path, metavar="SERIES.csv", help="a table with the model's columns")
    parser.add_argument("--horizon", type=whole_number, metavar="N", help="rows to forecast (default: the model's)")
    arguments = parser.parse_args()
    table, plot = _output_paths(arguments.output, arguments.series)
    model = OnnxModel(arguments.model, task=TASK, facts=ModelFacts)
    horizon = _checked_horizon(arguments.horizon, model.facts)
    series = read_for(model.facts, arguments.series)
    levels = forecast(model, series)[:, :horizon]
    records = to_records(model.facts, series, levels)
    if arguments.json:
        print("\n".join(json.dumps(record) for record in records))
    replaced = [path for path in (table, plot) if path.exists()]
    table.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(table, _to_csv(records).encode())
    _plot(model.facts, series, levels, plot)
    if replaced:
        print(f"note: replaced {' and '.join(map(str, replaced))}", file=sys.stderr)
    if not arguments.json:
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
    results = []
    for each in series:
        outputs = model.run(series=each.values[None, -model.facts.lookback :].astype(np.float32))
        results.append(outputs["quantiles"][0] if "quantiles" in outputs else outputs["forecast"][0, ..., None])
        if not np.isfinite(results[-1]).all():
            where = f"{each.name} after {each.time_of(-1)}".strip()
            raise RunError("a forecast is not a finite number", where, "compare the table with the training data")
    levels: Levels = np.stack(results)
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


def _output_paths(output: Path | None, series: Path) -> tuple[Path, Path]:
    """The paths of the table and of the plot. Raises UserError where they would replace the input."""
    if output is None:
        table = Path(f"{series.stem}.forecast.csv")
    elif output.suffix.lower() == ".csv" and not output.is_dir():
        table = output
    else:
        table = output / "forecast.csv"
    in_the_way = [path for path in table.parents if path.exists() and not path.is_dir()]
    if in_the_way or table.is_dir():
        raise UserError("not a folder", f"--output {output}", "give a folder or a FILE.csv")
    paths = table, table.with_suffix(".png")
    for path in paths:
        if path.exists() and series.exists() and path.samefile(series):
            raise UserError("the output would replace the input", path, "give another --output")
    return paths


def _checked_horizon(wanted: int | None, facts: ModelFacts) -> int:
    """Rows to forecast, at most what the model can. Raises UserError for more."""
    most = facts.horizon
    if wanted is not None and not 1 <= wanted <= most:
        todo = f"give 1 to {most}, or train with --horizon {wanted}" if wanted > most else f"give 1 to {most}"
        raise UserError("the model forecasts no such horizon", f"--horizon {wanted}", todo)
    return most if wanted is None else wanted


def _to_csv(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


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
