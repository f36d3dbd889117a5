"""A tracker gets a run's settings, metrics by step, plots and network, once; a missing package is said."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.program import parse_training
from core.track import main
from tests import quick
from tests.conftest import ROOT


def make_run(folder: Path) -> Path:
    """A complete run with a plot and a network."""
    quick.train(parse_training(quick.Config, ["--epochs", "3", "--run-dir", str(folder)]))
    (folder / "plots").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "plots" / "curves.png")
    (folder / "model.onnx").write_bytes(b"network")
    return folder


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed_is_named(name: str, tmp_path: Path, program: Any) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    done = program("core.track", make_run(tmp_path / "run"), "--to", name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{name} is not installed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mlflow_gets_a_finished_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow_client(tmp_path, monkeypatch)
    run = make_run(tmp_path / "run")
    for _ in range(2):
        send(monkeypatch, run, "--to", "mlflow", "--uri", f"file://{tmp_path}/mlruns")
    (sent,) = runs_of(client)
    assert (sent.info.status, sent.info.run_name) == ("FINISHED", "run")
    assert (sent.data.params["lr"], sent.data.params["shape"]) == ("0.1", "flat")
    history = client.get_metric_history(sent.info.run_id, "val/loss")
    assert [(each.step, each.value) for each in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert history[1].timestamp - history[0].timestamp == 1000
    names = {each.path for each in client.list_artifacts(sent.info.run_id)}
    assert names == {"plots", "model.onnx", "run.json", "summary.json"}


def test_mlflow_follows_a_running_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow_client(tmp_path, monkeypatch)
    run = tmp_path / "run"
    words = ["--epochs", "4", "--pause", "1", "--run-dir", str(run)]
    with subprocess.Popen([sys.executable, "-m", "tests.quick", *words], cwd=ROOT) as training:
        while not (run / "metrics.jsonl").exists():
            assert training.poll() is None
            time.sleep(0.05)
        send(monkeypatch, run, "--to", "mlflow", "--uri", f"file://{tmp_path}/mlruns", "--follow")
    (sent,) = runs_of(client)
    assert sent.info.status == "FINISHED"
    assert [each.step for each in client.get_metric_history(sent.info.run_id, "val/loss")] == [1, 2, 3, 4]


def test_wandb_gets_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the optional package wandb is not installed")
    monkeypatch.chdir(tmp_path)
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    send(monkeypatch, make_run(tmp_path / "run"), "--to", "wandb")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list((folder / "files" / "media" / "images" / "plots").glob("curves_*.png"))
    assert (folder / "files" / "model.onnx").read_bytes() == b"network"


def send(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """core.track's main function with a command line."""
    monkeypatch.setattr(sys, "argv", ["track.py", *map(str, words)])
    main()


def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of MLflow's local file store, which newer releases ask to be allowed."""
    mlflow = pytest.importorskip("mlflow", reason="the optional package mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")


def runs_of(client: Any) -> list[Any]:
    """All runs in the experiment."""
    experiment = client.get_experiment_by_name("tests")
    return list(client.search_runs([experiment.experiment_id]))
