"""Sends runs to a tracker: python -m core.track RUN... --to mlflow|wandb [--follow].

A tracker gets a run's settings, its metrics by step, its plots and files, and the exported network. It reads the run
folder alone, so that no training depends on a tracker, and a run can be sent while it is trained or years later; one
that is sent again goes on where it was. MLflow (https://mlflow.org) and Weights & Biases (https://wandb.ai) are
optional packages. Loads no torch.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from core.command_line import Parser
from core.errors import UserError, note_saved, printable, run_command
from core.run_record import RunRecord, Status, is_finite, read_record, read_records

_SECONDS_BETWEEN_LOOKS = 2.0
_MLFLOW_BATCH = 100  # settings, or lines, of one request
_MLFLOW_TEXT = 500  # characters of a setting's value
_STATUS = {"complete": "FINISHED", "running": "RUNNING", "unfinished": "KILLED"}  # in MLflow's words


class _Tracker(Protocol):
    """One run at a tracker. num_sent: lines of metrics.jsonl that it has."""

    num_sent: int

    def send(self, record: RunRecord) -> None:
        """Sends the lines that the tracker does not have yet."""

    def finish(self, record: RunRecord, status: Status) -> None:
        """Sends plots and files, and how the run stands."""


class _Mlflow:
    """A run at an MLflow server, or in a folder or database of MLflow's."""

    def __init__(self, record: RunRecord, experiment: str, uri: str | None) -> None:
        try:
            from mlflow.entities import Metric, Param
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("mlflow", error, "mlflow-skinny") from error
        try:
            self._metric, self._client = Metric, MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
        except MlflowException as error:
            raise UserError("MLflow cannot be used", printable(str(error)), "give another --uri") from error
        number = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        tag = f"tags.`run_folder` = '{_identity(record)}'"
        runs = self._client.search_runs([number], filter_string=tag, max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            self.num_sent = int(runs[0].data.tags.get("lines_sent", 0))
            return
        tags = {"run_folder": _identity(record), "commit": str(record.body["environment"].get("commit"))}
        began = self._milliseconds(record, 0.0)
        run = self._client.create_run(number, start_time=began, tags=tags, run_name=record.path.resolve().name)
        self._run, self.num_sent = run.info.run_id, 0
        settings = [Param(name, str(value)[:_MLFLOW_TEXT]) for name, value in _settings(record).items()]
        for begin in range(0, len(settings), _MLFLOW_BATCH):
            self._client.log_batch(self._run, params=settings[begin : begin + _MLFLOW_BATCH])

    def send(self, record: RunRecord) -> None:
        """Sends the lines that the tracker does not have yet."""
        elapsed = record.elapsed
        while self.num_sent < len(record.lines):
            lines = record.lines[self.num_sent : self.num_sent + _MLFLOW_BATCH]
            metrics = [
                self._metric(name, float(value), self._milliseconds(record, elapsed.get(step, 0.0)), step)
                for step, line in ((line["step"], line) for line in lines)
                for name, value in _numbers(line).items()
            ]
            for begin in range(0, len(metrics), 1000):  # as many as MLflow takes at once
                self._client.log_batch(self._run, metrics=metrics[begin : begin + 1000])
            self.num_sent += len(lines)
            self._client.set_tag(self._run, "lines_sent", str(self.num_sent))

    def finish(self, record: RunRecord, status: Status) -> None:
        """Sends plots and files, and how the run stands."""
        for path, folder in _files(record.path):
            self._client.log_artifact(self._run, str(path), folder)
        if status == "running":
            self._client.update_run(self._run, status="RUNNING")
        else:
            end = self._milliseconds(record, max(record.elapsed.values(), default=0.0))
            self._client.set_terminated(self._run, _STATUS[status], end_time=end)

    @staticmethod
    def _milliseconds(record: RunRecord, seconds: float) -> int:
        """The time of day of something that was measured some seconds into the training, as MLflow wants it."""
        return int(1000 * (datetime.fromisoformat(str(record.body["started"])).timestamp() + seconds))


class _Wandb:
    """A run at Weights & Biases, or offline in the folder wandb/; which of them, WANDB_MODE says."""

    def __init__(self, record: RunRecord, experiment: str, uri: str | None) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", error, "wandb") from error
        if uri is not None:
            raise UserError("no option of wandb", f"--uri {uri}", "set WANDB_BASE_URL")
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=experiment,
                id=_identity(record),
                name=record.path.resolve().name,
                config=_settings(record),
                resume="allow",
                reinit="create_new",
            )
        except wandb.errors.UsageError as error:
            raise UserError("wandb refuses", printable(str(error)), "wandb login, or WANDB_MODE=offline") from error
        self.num_sent = int(self._run.summary.get("lines_sent", 0))

    def send(self, record: RunRecord) -> None:
        """Sends the lines that the tracker does not have yet."""
        for line in record.lines[self.num_sent :]:
            self.num_sent += 1
            self._run.log({**_numbers(line), "lines_sent": self.num_sent}, step=line["step"])

    def finish(self, record: RunRecord, status: Status) -> None:
        """Sends plots and files, and how the run stands."""
        for path, folder in _files(record.path):
            if folder == "plots":
                self._run.log({f"plots/{path.stem}": self._wandb.Image(str(path))}, step=max(record.last_step, 0))
            else:
                self._run.save(str(path), base_path=str(record.path), policy="now")
        self._run.finish(exit_code=0 if status != "unfinished" else 1)


_TRACKERS: Mapping[str, type[_Mlflow] | type[_Wandb]] = {"mlflow": _Mlflow, "wandb": _Wandb}


def main() -> None:
    """The command line."""
    parser = Parser("core.track", "Send runs to a tracker.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, finished or not")
    parser.add_argument("--to", choices=list(_TRACKERS), required=True, help="an optional package of this name")
    parser.add_argument("--uri", help="of MLflow: a server, folder or database (default: MLflow's own choice)")
    parser.add_argument("--experiment", help="MLflow's experiment, wandb's project (default: a run's project)")
    parser.add_argument("--follow", action="store_true", help="go on sending until the runs' trainings have ended")
    arguments = parser.parse_args()
    trackers: list[tuple[Path, _Tracker]] = []
    for record in read_records(arguments.runs):
        experiment = arguments.experiment or str(record.body["project"])
        trackers.append((record.path, _TRACKERS[arguments.to](record, experiment, arguments.uri)))
    note_saved("what the runs had measured is sent; the same command goes on")
    _send(trackers, follow=arguments.follow)


def _send(trackers: Sequence[tuple[Path, _Tracker]], *, follow: bool) -> None:
    """Sends runs, once or until they have ended."""
    waiting = list(trackers)
    while waiting:
        for path, tracker in list(waiting):
            status = read_record(path).status  # asked first: what a run writes before its end is then sent
            record, before = read_record(path), tracker.num_sent
            tracker.send(record)
            if status != "running" or not follow:
                tracker.finish(record, status)
                waiting.remove((path, tracker))
                sent = f"{tracker.num_sent - before} new lines of metrics, up to step {record.last_step}"
                print(printable(f"{path}: {status}; {sent}"), flush=True)
                for note in record.notes:
                    print(printable(f"note: {note}"), flush=True)
        if waiting:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _missing(name: str, error: ImportError, distribution: str) -> UserError:
    """The error of an optional package that is not installed."""
    return UserError(f"{name} is not installed", f"--to {name} ({error})", f"python -m pip install {distribution}")


def _identity(record: RunRecord) -> str:
    """What a run is found by at a tracker: the same wherever its folder lies, and however often it is resumed."""
    text = f"{record.body['project']} {record.body.get('started')} {record.path.resolve().name}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings(record: RunRecord) -> dict[str, Any]:
    """The settings, and the facts that are one number or word."""
    facts = {name: value for name, value in record.body["facts"].items() if isinstance(value, str | int | float)}
    return {**{f"facts.{name}": value for name, value in facts.items()}, **record.config}


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line of metrics, without its step."""
    return {name: value for name, value in line.items() if name != "step" and is_finite(value)}


def _files(path: Path) -> list[tuple[Path, str | None]]:
    """What a tracker gets of a run folder besides numbers: each file with the folder that it goes into."""
    files: list[tuple[Path, str | None]] = [(each, "plots") for each in sorted((path / "plots").glob("*.png"))]
    names = ("run.json", "summary.json", "model.onnx", "model.int8.onnx")
    return files + [(path / name, None) for name in names if (path / name).is_file()]


if __name__ == "__main__":
    run_command(main)
