"""A run folder belongs to one run and one process, and what stands in it is never lost."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.config import RunConfig
from core.distributed import World
from core.errors import UserError
from core.plain import to_plain
from core.program import TrainCommand
from core.run import RunFolder
from core.run_record import read_record, read_run
from tests import forked

Run = RunFolder[RunConfig, "Facts"]


@dataclass(frozen=True)
class Facts:
    """What a run knows beyond its settings."""

    classes: tuple[str, ...] = ("a", "b")
    mean: tuple[float, ...] = (0.5, 0.25)
    num_train: int = 2


def start(
    path: Path | None,
    *,
    resume: bool = False,
    config: RunConfig | None = None,
    facts: Facts | None = None,
    world: World | None = None,
    environment: dict[str, Any] | None = None,
) -> Run:
    """A run in a folder."""
    command = TrainCommand(config or RunConfig(), path, resume)
    return RunFolder.start(command, facts or Facts(), world or World(), environment)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of torchrun."""
    for name in ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def close(run: Run) -> None:
    """Ends a run, which gives its folder back."""
    run.summarize({})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A new run, with its folder."""
    made = start(tmp_path / "run")
    yield made
    if not (made.path / "summary.json").exists():
        close(made)


def test_a_new_run_says_what_it_is(run: Run) -> None:
    body = read_run(run.path, "core")
    assert body["config"] == to_plain(RunConfig())
    assert body["facts"] == json.loads(json.dumps(to_plain(Facts())))
    assert {"torch", "python", "processor", "threads", "ranks", "commit", "command"} <= set(body["environment"])
    assert body["history"] == []


def test_a_folder_that_is_not_empty_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="the run folder is not empty"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_run_is_not_overwritten_by_another(run: Run) -> None:
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UserError, match="--resume"):
        start(run.path)
    assert (run.path / "run.json").read_bytes() == before


def test_a_folder_in_use_names_the_process(run: Run) -> None:
    with pytest.raises(UserError, match=f"in use.*process {os.getpid()} on "):
        start(run.path, resume=True)


def test_a_killed_process_gives_its_folder_back(tmp_path: Path) -> None:
    child = forked.fork()
    if child == 0:
        try:
            start(tmp_path / "run")
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    close(start(tmp_path / "run", resume=True))


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/nothing/run")):
        with pytest.raises(UserError, match="the run folder cannot be written"):
            start(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_parent_is_a_user_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(UserError, match="permission denied"):
        start(tmp_path / "run")


def lines(*steps: int) -> list[str]:
    """Lines of metrics."""
    return [json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in steps]


def test_cut_metrics_stand_beside_the_file(run: Run) -> None:
    for line in lines(5, 10, 15, 20):
        run.log(json.loads(line))
    run.cut_metrics(2)
    assert (run.path / "metrics.jsonl").read_text("utf-8") == "".join(lines(5, 10))
    assert (run.path / "metrics.jsonl.1.bak").read_text("utf-8") == "".join(lines(15, 20))
    run.log({"step": 12, "train/loss": 1.0})
    run.cut_metrics(2)
    assert (run.path / "metrics.jsonl.2.bak").read_text("utf-8") == "".join(lines(12))
    assert (run.path / "metrics.jsonl.1.bak").read_text("utf-8") == "".join(lines(15, 20))
    run.cut_metrics(2)
    assert len(list(run.path.glob("*.bak"))) == 2
    close(run)


def test_of_two_lines_of_one_step_only_those_before_the_checkpoint_stay(run: Run) -> None:
    for line in lines(5, 10):
        run.log(json.loads(line))
    saved_at = run.num_lines
    run.log({"step": 10, "val/loss": 2.0})
    run.cut_metrics(saved_at)
    assert (run.path / "metrics.jsonl").read_text("utf-8") == "".join(lines(5, 10))
    assert run.num_lines == 2
    close(run)


def test_tensorboard_has_each_step_once_after_a_resume(run: Run) -> None:
    for line in lines(5, 10, 15):
        run.log(json.loads(line))
    close(run)
    (path,) = (run.path / "tensorboard").iterdir()
    with path.open("ab") as file:
        file.write(b"\x17\0\0\0\0\0\0\0half a record")
    again = start(run.path, resume=True)
    again.cut_metrics(2)
    again.log({"step": 11, "train/loss": 3.0})
    close(again)
    scalars = EventAccumulator(str(run.path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(each.step, each.value) for each in scalars] == [(5, 1.0), (10, 1.0), (11, 3.0)]


@pytest.mark.parametrize("half", [lines(15)[0][:9], lines(15)[0][:-1], "{", "\0\0\0"])
def test_half_a_line_of_a_killed_process_is_cut_off(half: str, run: Run) -> None:
    (run.path / "metrics.jsonl").write_text("".join(lines(5, 10)) + half, encoding="utf-8")
    run.cut_metrics(3)
    assert (run.path / "metrics.jsonl").read_text("utf-8") == "".join(lines(5, 10))
    assert (run.path / "metrics.jsonl.1.bak").read_text("utf-8") == half
    close(run)


def test_a_run_goes_on_with_its_facts_and_notes_what_changed(run: Run) -> None:
    close(run)
    close(start(run.path, resume=True))
    assert read_run(run.path)["history"] == []
    close(start(run.path, resume=True, config=RunConfig(epochs=99)))
    body = read_run(run.path)
    assert body["config"]["epochs"] == 99
    assert [entry["config"]["epochs"] for entry in body["history"]] == [99]


@pytest.mark.parametrize("facts", [Facts(classes=("a", "c")), Facts(num_train=3)])
def test_other_data_on_resume_is_refused_by_name(facts: Facts, run: Run) -> None:
    close(run)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"the data is not what the run began with: (classes|num_train)"):
        start(run.path, resume=True, facts=facts)
    assert (run.path / "run.json").read_bytes() == before


def test_another_projects_run_and_a_newer_format_are_refused(run: Run) -> None:
    with pytest.raises(UserError, match=r"made by projects\.core"):
        read_run(run.path, "other")
    body = read_run(run.path)
    (run.path / "run.json").write_text(json.dumps({**body, "format": 3}), encoding="utf-8")
    with pytest.raises(UserError, match="this version reads format 2"):
        read_run(run.path)


def test_a_run_is_complete_once_it_is_summed_up_for_its_length(run: Run) -> None:
    assert not run.is_complete
    run.summarize({"accuracy": 0.5})
    assert run.is_complete
    assert not replace(run, config=RunConfig(epochs=99)).is_complete


def test_what_a_run_is_judged_by_and_its_peak_memory_stand_in_its_folder(run: Run) -> None:
    run.set_monitor("accuracy", True)
    run.log({"step": 1, "val/accuracy": 0.5})
    assert read_record(run.path).status == "running"
    run.summarize({})
    record = read_record(run.path)
    assert (record.status, record.goal, record.best_step) == ("complete", ("val/accuracy", True), 1)
    assert record.peak_memory_mb is not None
    assert 20 < record.peak_memory_mb < 100_000


def test_checkpoints_are_rotated_with_the_best_kept(run: Run) -> None:
    for step in (1, 2, 3, 4):
        run.save(step, {"loop": {"step": step}}, best_step=1)
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == [f"step-{n:08d}" for n in (1, 3, 4)]


def test_names_of_new_runs_count_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [start(None), start(None)]
    assert [run.path.parent for run in runs] == [Path("runs", "core")] * 2
    assert [run.path.name.rpartition("-")[2] for run in runs] == ["1", "2"]
    for run in runs:
        close(run)


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(tmp_path / "run", world=World(1, 1, 2))
    run.log({"step": 1, "train/loss": 1.0})
    run.save(1, {}, None)
    run.summarize({})
    run.cut_metrics(0)
    run.say("hello")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_what_the_results_depend_on_besides_is_kept_and_a_change_of_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    close(start(tmp_path / "run", environment={"kernels": "cpu-1", "kernels_reason": None}))
    assert read_run(tmp_path / "run")["environment"]["kernels"] == "cpu-1"
    close(start(tmp_path / "run", resume=True, environment={"kernels": "plain PyTorch"}))
    assert "note: kernels was cpu-1, is plain PyTorch; the run goes on, but not bit for bit" in capsys.readouterr().err
    assert read_run(tmp_path / "run")["history"][0]["environment"]["kernels"] == "plain PyTorch"


@pytest.mark.parametrize("name", ["run.lock", "metrics.jsonl", "tensorboard", "tensorboard/events", "checkpoints"])
def test_nothing_is_written_through_a_link_in_a_run_folder(name: str, run: Run, tmp_path: Path) -> None:
    close(run)
    target, place = tmp_path / "outside", run.path / name
    if "." in name or "/" in name:
        target.write_text("precious")
    else:
        target.mkdir()
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    with pytest.raises(UserError, match=r"a link in the run folder|cannot be written"):
        start(run.path, resume=True)
    assert (target.is_dir() and not list(target.iterdir())) or target.read_text() == "precious"
