"""Says what an exported file or a run folder is: python -m core.inspect MODEL.onnx|RUN.

A file needs onnx alone, and may be of another program. Of a run it says how far it came, what it measured, whether its
checkpoints are as they were written, and what to run next. `--json` prints the same as one JSON object.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.command_line import Parser
from core.errors import UserError, printable, run_command, visible
from core.files import read_json
from core.folder_lock import is_locked
from core.model_file import describe_model, parse_loosely
from core.results import shown_command

_WIDTH = 120  # characters, where the output is no terminal
_MAX_CHARACTERS = 300  # of a value in the table
_AFTER_TRAINING = ("epochs", "max_steps", "patience")


def describe_run(run_dir: Path) -> dict[str, Any]:
    """Everything that is shown of a run folder, as plain data. Raises UserError for a folder that is none."""
    from core.run_record import read_run

    run = read_run(run_dir)
    config = run["config"] if isinstance(run.get("config"), dict) else {}
    checkpoints, best_step = _checkpoints(run_dir)
    summary: dict[str, Any] = {}
    if (run_dir / "summary.json").exists():
        summary = read_json(run_dir / "summary.json", "unreadable summary", "finish the run again")
    asked = summary.pop("config", None)
    done = isinstance(asked, dict) and all(asked.get(name) == config.get(name) for name in _AFTER_TRAINING)
    good = [each["step"] for each in checkpoints if each["fault"] is None]
    state = "running" if is_locked(run_dir) else "complete" if done else "stopped" if good else "without a checkpoint"
    latest = _last_values(run_dir / "metrics.jsonl")
    models = sorted(path.name for path in run_dir.glob("*.onnx"))
    return {
        "kind": "run",
        "folder": str(run_dir),
        "project": run.get("project"),
        "state": state,
        "steps": max([*good, *(step for step, _ in latest.values())], default=0),
        "best_step": best_step,
        "checkpoints": checkpoints,
        "metrics": summary,
        "last_values": {name: {"step": step, "value": value} for name, (step, value) in latest.items()},
        "models": models,
        "settings": config,
        "facts": run.get("facts"),
        "environment": run["environment"] if isinstance(run.get("environment"), dict) else {},
        "started": run.get("started"),
        "next": _next(run_dir, run, state, models),
    }


def _checkpoints(run_dir: Path) -> tuple[list[dict[str, Any]], int | None]:
    """A run's checkpoints, the oldest first, with what is wrong with each, and the best step as the newest says it."""
    from core import checkpoint

    found: list[dict[str, Any]] = []
    best_step = None
    for folder in checkpoint.folders(run_dir):
        size = sum(path.stat().st_size for path in folder.iterdir())
        step = folder.name.rpartition("-")[2]
        fault = None
        try:
            best_step = checkpoint.verify(folder)["best_step"]
        except checkpoint.Broken as error:
            fault = str(error)
        found.append({"step": int(step) if step.isdigit() else step, "bytes": size, "fault": fault})
    return found, best_step


def _last_values(path: Path) -> dict[str, tuple[int, Any]]:
    """The last value of each metric in metrics.jsonl, with its step. A torn last line, as a kill leaves it, is no
    line."""
    values: dict[str, tuple[int, Any]] = {}
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            record = parse_loosely(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                values |= {name: (record["step"], value) for name, value in record.items() if name != "step"}
    return values


def _next(run_dir: Path, run: Mapping[str, Any], state: str, models: Sequence[str]) -> str:
    """The command that a user wants now."""
    place, program = shlex.quote(str(run_dir)), f"python -m projects.{run.get('project')}"
    if state == "running":
        return "wait: a training is writing into it"
    if state == "complete" and models:
        model = "model.onnx" if "model.onnx" in models else models[0]
        return f"{program}.infer {shlex.quote(str(run_dir / model))} --help"
    if state == "complete":
        return f"{program}.export {place}"
    return f"{program}.train --resume {place}" if state == "stopped" else f"start anew: {shown_command(run)}"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the table shows: names and texts."""
    place = found["file"] if found["kind"] == "model" else found["folder"]
    what = f"{found['project']} run, {found['state']}" if found["kind"] == "run" else _model_in_words(found)
    yield place, what
    yield from (_model_rows if found["kind"] == "model" else _run_rows)(found)


def _model_in_words(found: Mapping[str, Any]) -> str:
    """What a file is."""
    if found["task"] is None:
        return "ONNX file of another program"
    return f"{found['task']}, exported by projects.{found['project']} (schema {found['schema_version']})"


def _model_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The table of a file."""
    yield "size", f"{found['bytes'] / 1e6:.2f} MB, SHA-256 {found['sha256']}"
    if found["fault"]:
        yield "fault", found["fault"]
    if found["classes"]:
        yield f"{len(found['classes']):,} classes", ", ".join(map(str, found["classes"]))
    for kind in ("inputs", "outputs"):
        for name, value in found[kind].items():
            shape = "of unknown shape" if value["shape"] is None else f"[{', '.join(map(str, value['shape']))}]"
            meaning = (value["meaning"] or "").partition("], ")[2]  # which begins with dtype and shape
            yield f"{kind[:-1]} {name}", f"{value['dtype']} {shape}  {meaning}"
    yield "metrics", _listed(found["metrics"])
    yield "parity", str(found["parity"] or "")
    yield "facts", _listed(found["facts"])
    yield "settings", _listed(found["settings"])
    yield "step", "" if found["step"] is None else f"{found['step']}"
    yield "commits", _listed(found["commits"])
    yield "versions", _listed(found["versions"])
    yield "operators", f"{sum(found['operators'].values()):,}: {_listed(found['operators'], ' ')}"
    yield "weights", f"{sum(found['weights'].values()):,}: {_listed(found['weights'], ' ')}"
    yield "other metadata", _listed(found["metadata"])


def _run_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The table of a run folder."""
    best = "" if found["best_step"] is None else f", best is step {found['best_step']}"
    yield "steps", f"{found['steps']:,}{best}"
    for each in found["checkpoints"]:
        yield f"step {each['step']}", f"{each['bytes'] / 1e6:.1f} MB, {each['fault'] or 'good'}"
    yield "metrics", _listed(found["metrics"])
    yield (
        "last values",
        _listed({name: f"{_short(e['value'])} at {e['step']}" for name, e in found["last_values"].items()}),
    )
    yield "models", ", ".join(found["models"])
    yield "facts", _listed(found["facts"] or {})
    yield "settings", _listed(found["settings"])
    yield "environment", _listed(found["environment"])
    yield "started", str(found["started"] or "")
    yield "next", found["next"]


def _listed(values: Mapping[str, Any], between: str = "=") -> str:
    """Names and values in a line."""
    return ", ".join(f"{name}{between}{_short(value)}" for name, value in values.items() if value is not None)


def _short(value: Any) -> str:
    """A value as the table shows it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else f"{value:,}" if type(value) is int else json.dumps(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}… ({len(text):,} characters)"


def _show(found: Mapping[str, Any]) -> None:
    """Prints the table; foreign text is shown as it is, without control characters."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    (place, what), *rows = _rows(found)
    console.print(Text(printable(place), style="bold"), Text(printable(what)))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", max_width=28)
    table.add_column(overflow="fold")
    for name, text in rows:
        if text:
            table.add_row(Text(printable(name)), Text(visible(" ".join(text.split()))))
    console.print(table)


def main() -> None:
    """The command line."""
    parser = Parser("core.inspect", "Says what an exported file or a run folder is.")
    parser.add_argument("path", type=Path, metavar="MODEL.onnx|RUN", help="an ONNX file, or the folder of a run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    path: Path = arguments.path
    if not path.exists():
        raise UserError("no such file or folder", path, "give an ONNX file or the folder of a run")
    found = describe_run(path) if path.is_dir() else describe_model(path)
    if arguments.json:
        print(json.dumps(found, allow_nan=False))
    else:
        _show(found)


if __name__ == "__main__":
    run_command(main)
