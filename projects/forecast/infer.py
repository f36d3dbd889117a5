"""Forecasts a table with an exported file: python -m projects.forecast.infer MODEL.onnx SERIES.csv --horizon 96.

numpy and onnxruntime; no torch. Writes a CSV with the timestamps continued, and a picture of history, forecast and
interval beside it.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.command_line import whole_number
from core.errors import UserError, run_command
from core.inference import OnnxModel
from core.program import infer_parser
from projects.forecast.config import NO_TIME_COLUMN, TASK, Config, ModelFacts
from projects.forecast.frequency import Frequency
from projects.forecast.series import Series, read_series

MOST_PANELS = 12
Levels = NDArray[np.float32]  # [horizon, columns, levels]


def main() -> None:
    """The command line."""
    written = "FILE.csv, or a folder for forecast.csv and forecast.png (default: SERIES.forecast.csv in this folder)"
    parser = infer_parser(Config, None, written)
    parser.add_argument("series", type=Path, metavar="SERIES.csv", help="a table with the model's columns")
    parser.add_argument("--horizon", type=whole_number, metavar="N", help="rows to forecast (default: the model's)")
    arguments = parser.parse_args()
    table, picture = where_to_write(arguments.output, arguments.series)
    model = OnnxModel(arguments.model, task=TASK, facts=ModelFacts)
    horizon = chosen_horizon(arguments.horizon, model)
    series = read_for(model, arguments.series)
    levels = forecast(model, series)[:horizon]
    times = [series.written(time) for time in series.frequency.after(series.times[-1], horizon)]
    records = as_records(model, times, levels)
    if arguments.json:
        print("\n".join(json.dumps(record) for record in records))
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(as_csv(records), encoding="utf-8")
    draw(model, series, levels, picture)
    if not arguments.json:
        print(f"{table}  {horizon} rows from {times[0]} to {times[-1]}, of {', '.join(series.columns)}\n{picture}")


def where_to_write(output: Path | None, series: Path) -> tuple[Path, Path]:
    """The paths of the table and of the picture. Raises UserError where they would replace the input."""
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


def chosen_horizon(wanted: int | None, model: OnnxModel[ModelFacts]) -> int:
    """Rows to forecast, at most what the model can. Raises UserError for more."""
    most = model.facts.horizon
    if wanted is not None and not 1 <= wanted <= most:
        todo = f"give 1 to {most}, or train with --horizon {wanted}" if wanted > most else f"give 1 to {most}"
        raise UserError("the model forecasts no such horizon", f"--horizon {wanted}", todo)
    return most if wanted is None else wanted


def read_for(model: OnnxModel[ModelFacts], path: Path) -> Series:
    """The table, as the model wants it. Raises UserError for other columns, another rhythm, or too few rows."""
    facts = model.facts
    series = read_series(
        path,
        time_column=NO_TIME_COLUMN if facts.time_column is None else facts.time_column,
        time_format=facts.time_format,
        target=facts.columns,
        fill=facts.fill,
    )
    if len(series) < facts.lookback:
        where = f"{path}: {len(series)} rows"
        raise UserError("too short a series", where, f"the model looks back on {facts.lookback} rows")
    trained = Frequency(facts.frequency_unit, facts.frequency_count)
    if series.frequency.count != trained.count or series.frequency.unit.split()[0] != trained.unit.split()[0]:
        where = f"{path}: rows are {series.frequency} apart"
        raise UserError("another frequency than the model's", where, f"it was trained on rows {trained} apart")
    return series


def forecast(model: OnnxModel[ModelFacts], series: Series) -> Levels:
    """All levels for the model's whole horizon, in original units; float32 [horizon, columns, levels]."""
    rows = series.values[-model.facts.lookback :].astype(np.float32)
    outputs = model.run(series=rows[None])
    found: Levels = outputs["quantiles"][0] if "quantiles" in outputs else outputs["forecast"][0, ..., None]
    return found


def as_records(model: OnnxModel[ModelFacts], times: Sequence[str], levels: Levels) -> list[dict[str, Any]]:
    """A record a row: its time, and for each column the forecast and the ends of its interval."""
    records = []
    names = [suffix(level, model.facts.quantiles) for level in model.facts.quantiles]
    order = sorted(range(len(names)), key=lambda k: names[k] != "")  # the forecast itself first
    for time, row in zip(times, levels, strict=True):
        record: dict[str, Any] = {model.facts.time_column or "row": time}
        for column, numbers in zip(model.facts.columns, row, strict=True):
            record |= {f"{column}{names[k]}": float(f"{numbers[k]:.7g}") for k in order}
        records.append(record)
    return records


def suffix(level: float, levels: Sequence[float]) -> str:
    """What a level's column has behind its name: nothing for the median, _lower and _upper for the outermost pair."""
    if level == levels[len(levels) // 2]:
        return ""
    return {levels[0]: "_lower", levels[-1]: "_upper"}.get(level, f"_q{level:g}")


def as_csv(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def draw(model: OnnxModel[ModelFacts], series: Series, levels: Levels, path: Path) -> None:
    """History, forecast and interval of each column, of the first MOST_PANELS."""
    from projects.forecast import pictures

    shown = min(model.facts.lookback, max(2 * len(levels), 24))
    panels = [
        {
            "caption": name,
            "history": series.values[-shown:, k],
            "truth": None,
            "forecast": levels[:, k].astype(np.float64),
        }
        for k, name in enumerate(series.columns[:MOST_PANELS])
    ]
    title = f"Forecast from {series.shown(-1)} on"
    pictures.forecast_grid(panels, model.facts.quantiles, path, title=title)


if __name__ == "__main__":
    run_command(main)
