"""The ledger of results: numbers of complete runs with what they depend on, and the table that READMEs show.

`python -m core.results RUN_DIR... --output FILE --show test_accuracy:.4f` collects runs that differ only in their seed
into one JSON file, of which the table shows the named numbers; `python -m core.results FILE...` prints the table. A
README's table is that output, and a test compares them.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.command_line import Parser
from core.errors import UserError, run_command
from core.files import read_json, write_json

_VERSIONS = ("python", "torch", "onnxruntime")
_INVOCATION_ONLY = ("data", "seed")  # settings that may differ between the runs of one result


def collect(
    run_dirs: Sequence[Path], name: str, show: Mapping[str, str], *, allow_different_data: bool = False
) -> dict[str, Any]:
    """One result of complete runs: settings, command, seeds, and each number of their summaries with its spread.

    show: the numbers that the table shows, with their formats. allow_different_data: for data that each seed draws
    anew. Raises UserError for a run that is not complete, has the seed of another, or has other settings, data or
    another machine, and for a number that is not in the summaries.
    """
    runs = [read_json(path / "run.json", "not a run folder", "give folders of complete runs") for path in run_dirs]
    summaries = [read_json(path / "summary.json", "not a complete run", "finish it first") for path in run_dirs]
    first, seeds = runs[0], []
    for path, run in zip(run_dirs, runs, strict=True):
        for what, of in _WHAT_IS_EQUAL.items():
            if of(run) != of(first) and not (allow_different_data and what == _OTHER_DATA):
                todo = ", or give --allow-different-data" if what == _OTHER_DATA else ""
                raise UserError(f"runs {what}", path, f"collect them apart{todo}")
        if run["config"]["seed"] in seeds:
            raise UserError("a seed stands twice", f"{run['config']['seed']} in {path}", "give each run once")
        seeds.append(run["config"]["seed"])
    numbers = {}
    for key in summaries[0]:
        values: list[Any] = [summary.get(key) for summary in summaries]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers[key] = {"values": values, "mean": statistics.fmean(values), "spread": spread(values)}
    for key, form in show.items():
        if key not in numbers:
            raise UserError("no such number", f"--show {key}", f"choose from {', '.join(numbers)}")
        try:
            format(0.5, form)
        except ValueError as error:
            raise UserError("no format of a number", f"--show {key}:{form}", "give one such as .4f") from error
    environment = first["environment"]
    return {
        "name": name,
        "show": dict(show),
        "project": first["project"],
        "command": shown_command(first),
        "seeds": seeds,
        "numbers": numbers,
        "model": first["facts"].get("model"),
        "data_sha256": None if allow_different_data else first["facts"].get("data_sha256"),
        "commits": sorted({run["environment"]["commit"] or "unknown" for run in runs}),
        "processor": environment["processor"],
        "gpu": environment["gpu"],
        "threads": [run["environment"]["threads"] for run in runs],
        "versions": {name: environment[name] for name in _VERSIONS if name in environment},
    }


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the runs of one result share."""
    return {name: value for name, value in run["config"].items() if name not in _INVOCATION_ONLY}


_OTHER_DATA = "of different data"
_WHAT_IS_EQUAL: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "of different projects": lambda run: run["project"],
    _OTHER_DATA: lambda run: run["facts"].get("data_sha256"),
    "that differ in more than their seed": _settings,
    "of different machines": lambda run: (run["environment"]["processor"], run["environment"]["gpu"]),
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
    """A Markdown table with a column for each number, the machine below it, and the command of each result."""
    keys = list(dict.fromkeys(key for result in results for key in result["show"]))
    machines = list(dict.fromkeys(_machine(result) for result in results))
    titles = ["result", *(_words(key) for key in keys), "seconds (threads)", "seeds"]
    lines = [f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]
    for result in results:
        shown = [measured(result, key, result["show"][key]) if key in result["show"] else "" for key in keys]
        times = zip(result["numbers"]["seconds"]["values"], result["threads"], strict=True)
        seconds = ", ".join(f"{seconds:.0f} ({threads})" for seconds, threads in times)
        mark = f" ({machines.index(_machine(result)) + 1})" if len(machines) > 1 else ""
        seeds = ", ".join(str(seed) for seed in result["seeds"])
        lines.append(f"| {' | '.join([result['name'] + mark, *shown, seconds, seeds])} |")
    where = machines if len(machines) == 1 else [f"({n}) {machine}" for n, machine in enumerate(machines, start=1)]
    commands = [f"- {result['name']}: `{result['command']}`" for result in results]
    return "\n".join([*lines, "", f"Measured on {'; '.join(where)}.", "", *commands])


def _machine(result: Mapping[str, Any]) -> str:
    """Where a result was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['gpu'] or result['processor']} with {versions}"


def _words(key: str) -> str:
    """A summary's key as a reader wants it."""
    return key.replace("_", " ")


def measured(result: Mapping[str, Any], key: str, form: str) -> str:
    """A number, with its spread over seeds where there are several and it is not the same for all."""
    number = result["numbers"][key]
    mean = format(number["mean"], form)
    return f"{mean} ± {format(number['spread'], form)}" if number["spread"] else mean


def _read_result(path: Path) -> dict[str, Any]:
    """A stored result. Raises UserError for a file that is none."""
    what, todo = "not a result file", "give files that --output wrote"
    result = read_json(path, what, todo)
    try:
        table([result])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(what, path, todo) from error
    return result


def main() -> None:
    """The command line."""
    parser = Parser("core.results", "Collect runs into a result, or print results.")
    parser.add_argument("paths", type=Path, nargs="+", help="run folders with --output, result files without")
    parser.add_argument("--output", type=Path, help="the result file to write")
    parser.add_argument("--name", default="", help="what the table calls the result")
    text = "collect runs of different data too, where each seed draws its own"
    parser.add_argument("--allow-different-data", action="store_true", help=text)
    parser.add_argument("--show", nargs="+", default=[], metavar="KEY:FORMAT", help="what the table shows")
    arguments = parser.parse_args()
    if arguments.output is None:
        print(table([_read_result(path) for path in arguments.paths]))
        return
    show = dict(pair.partition(":")[::2] for pair in arguments.show)
    try:
        name, allowed = arguments.name or arguments.output.stem, arguments.allow_different_data
        result = collect(arguments.paths, name, show, allow_different_data=allowed)
    except (KeyError, TypeError, AttributeError) as error:
        where = f"{', '.join(map(str, arguments.paths))} ({type(error).__name__}: {error})"
        raise UserError("not runs of this version", where, "give run folders that this version made") from error
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, result)
    print(table([result]))


if __name__ == "__main__":
    run_command(main)
