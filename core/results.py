"""The ledger of results: numbers of complete runs with what they depend on, and the table that READMEs show.

`python -m core.results RUN_DIR... --output FILE --show test_accuracy:.4f` collects runs that differ only in their seed
into one JSON file, of which the table shows the named numbers; `python -m core.results FILE...` prints the table. A
README's table is that output, and a test compares them.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.command_line import Parser
from core.errors import UserError, run_command
from core.files import read_json

_VERSIONS = ("python", "torch", "onnxruntime")
_INVOCATION_ONLY = ("data", "seed")  # settings that may differ between the runs of one result


def collect(run_dirs: Sequence[Path], name: str, show: Mapping[str, str]) -> dict[str, Any]:
    """One result of complete runs: settings, command, seeds, and each number of their summaries with its spread.

    show: the numbers that the table shows, with their formats. Raises UserError for a run that is not complete, or
    whose settings, data or machine differ from the others', and for a number that is not in the summaries.
    """
    runs = [read_json(path / "run.json", "not a run folder", "give folders of complete runs") for path in run_dirs]
    summaries = [read_json(path / "summary.json", "not a complete run", "finish it first") for path in run_dirs]
    first = runs[0]
    for path, run in zip(run_dirs, runs, strict=True):
        if run["project"] != first["project"]:
            raise UserError("runs of different projects", path, "collect them apart")
        settings = [{k: v for k, v in r["config"].items() if k not in _INVOCATION_ONLY} for r in (run, first)]
        if settings[0] != settings[1] or run["environment"]["processor"] != first["environment"]["processor"]:
            raise UserError("runs that differ in more than their seed", path, "collect them apart")
    numbers = {}
    for key in summaries[0]:
        values = [summary[key] for summary in summaries]
        if all(isinstance(value, int | float) for value in values):
            numbers[key] = {"values": values, "mean": statistics.fmean(values), "spread": spread(values)}
    for key in show:
        if key not in numbers:
            raise UserError("no such number", f"--show {key}", f"choose from {', '.join(numbers)}")
    environment = first["environment"]
    return {
        "name": name,
        "show": dict(show),
        "project": first["project"],
        "command": shown_command(first),
        "seeds": [run["config"]["seed"] for run in runs],
        "numbers": numbers,
        "model": first["facts"].get("model"),
        "commits": sorted({run["environment"]["commit"] or "unknown" for run in runs}),
        "processor": environment["processor"],
        "gpu": environment["gpu"],
        "threads": [run["environment"]["threads"] for run in runs],
        "versions": {name: environment[name] for name in _VERSIONS if name in environment},
    }


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def shown_command(run: Mapping[str, Any]) -> str:
    """The command that made a run, with the user's own folder names left out."""
    words = [str(word) for word in run["environment"]["command"][1:]]
    for flag, stand_in in (("--data", ["DIR"]), ("--seed", ["SEED"]), ("--run-dir", [])):
        at = words.index(flag) if flag in words else -1
        if at >= 0 and (flag != "--data" or "/" in words[at + 1]):
            words[at if not stand_in else at + 1 : at + 2] = stand_in
    words = ["run:RUN_DIR" if word.startswith("run:") else word for word in words if word != "--debug"]
    return " ".join([f"python -m projects.{run['project']}.train", *words])


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, and the command of each result."""
    lines = ["| result | measured | seconds (threads) | seeds | machine |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        shown = [f"{words(key)} {measured(result, key, form)}" for key, form in result["show"].items()]
        times = zip(result["numbers"]["seconds"]["values"], result["threads"], strict=True)
        seconds = ", ".join(f"{seconds:.0f} ({threads})" for seconds, threads in times)
        seeds = ", ".join(str(seed) for seed in result["seeds"])
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        machine = f"{result['gpu'] or result['processor']}; {versions}"
        lines.append(f"| {result['name']} | {', '.join(shown)} | {seconds} | {seeds} | {machine} |")
    commands = [f"- {result['name']}: `{result['command']}`" for result in results]
    return "\n".join([*lines, "", *commands])


def words(key: str) -> str:
    """A summary's key as a reader wants it."""
    return key.replace("_", " ")


def measured(result: Mapping[str, Any], key: str, form: str) -> str:
    """A number, with its spread over seeds where there are several."""
    number = result["numbers"][key]
    mean = format(number["mean"], form)
    return f"{mean} ± {format(number['spread'], form)}" if len(result["seeds"]) > 1 else mean


def main() -> None:
    """The command line."""
    parser = Parser("core.results", "Collect runs into a result, or print results.")
    parser.add_argument("paths", type=Path, nargs="+", help="run folders with --output, result files without")
    parser.add_argument("--output", type=Path, help="the result file to write")
    parser.add_argument("--name", default="", help="what the table calls the result")
    parser.add_argument("--show", nargs="+", default=[], metavar="KEY:FORMAT", help="what the table shows")
    arguments = parser.parse_args()
    if arguments.output is None:
        todo = "give files that --output wrote"
        print(table([read_json(path, "not a result file", todo) for path in arguments.paths]))
    else:
        show = dict(pair.partition(":")[::2] for pair in arguments.show)
        result = collect(arguments.paths, arguments.name or arguments.output.stem, show)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(table([result]))


if __name__ == "__main__":
    run_command(main)
