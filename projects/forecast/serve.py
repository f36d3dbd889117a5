"""Serves exported files over HTTP: python -m projects.forecast.serve MODEL.onnx, then open http://127.0.0.1:8000.

numpy, onnxruntime and FastAPI; no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import option
from core.inference import OnnxModel
from core.serving.program import run_serving
from core.serving.service import Asked, Record, Service
from projects.forecast.config import TASK, Config, ModelFacts
from projects.forecast.infer import checked_horizon, forecast, read_for, to_records
from projects.forecast.series import Series


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    horizon: int | None = option(None, "rows to forecast; none stands for the model's", low=1)


Request = Asked[tuple[Series, ...], Options]


def load(path: Path, threads: int) -> OnnxModel[ModelFacts]:
    """The forecaster."""
    return OnnxModel(path, task=TASK, facts=ModelFacts, threads=threads)


def read(model: OnnxModel[ModelFacts], path: Path) -> tuple[Series, ...]:
    """A table's series. Raises UserError."""
    return read_for(model.facts, path)


def predict(model: OnnxModel[ModelFacts], requests: Sequence[Request]) -> Sequence[Record]:
    """The next rows of each table as `infer --json` prints them, and the rows that the model has looked at."""
    facts, records, start = model.facts, [], 0
    horizons = [checked_horizon(each.options.horizon, facts) for each in requests]
    levels = forecast(model, [series for each in requests for series in each.input])
    for (table, _), horizon in zip(requests, horizons, strict=True):
        its_levels, start = levels[start : start + len(table), :horizon], start + len(table)
        history = {series.name: _history(facts, series) for series in table}
        rows = to_records(facts, table, its_levels)
        records.append({"rows": rows, "history": history if facts.series_column else history[table[0].name]})
    return records


def _history(facts: ModelFacts, series: Series) -> dict[str, Any]:
    """The numbers of each column in the rows that the model looks back on."""
    last = series.values[-facts.lookback :].tolist()
    return {column: [row[number] for row in last] for number, column in enumerate(facts.columns)}


SERVICE = Service(
    kind="table", options=Options, load=load, read=read, predict=predict, batch_key=lambda request: len(request.input)
)

if __name__ == "__main__":
    run_serving(Config, SERVICE)
