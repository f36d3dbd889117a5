"""Runs are compared by their validation, seeds together; what does not compare is refused or said."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.comparison import Comparison, as_text
from core.errors import UserError
from core.run_record import FORMAT, read_record, read_records
from tests.conftest import Program


def make_run(
    folder: Path,
    losses: tuple[float, ...] = (2.0, 1.0, 1.5),
    *,
    data: str = "c0de",
    project: str = "any",
    seconds: tuple[float, ...] = (1.0, 2.0, 3.0),
    **settings: Any,
) -> Path:
    """A complete run with evaluations at steps 10, 20, 30."""
    folder.mkdir(parents=True)
    config = {
        "seed": 0,
        "data": "x",
        "lr": 0.1,
        "batch_size": 8,
        "epochs": 3,
        "max_steps": None,
        "patience": 0,
        **settings,
    }
    body = {
        "format": FORMAT,
        "project": project,
        "config": config,
        "facts": {"model": "fast", "data_sha256": data},
        "environment": {
            "command": ["train.py", "--lr", "0.1"],
            "commit": "c0ffee",
            "processor": "Z80",
            "torch": "2.11",
        },
        "started": "2026-01-01T00:00:00+00:00",
        "monitor": {"name": "loss", "larger_is_better": False},
    }
    (folder / "run.json").write_text(json.dumps(body))
    lines = [
        {"step": 10 * n, "val/loss": loss, "train/loss": 2 * loss, "samples_per_second": 50.0, "seconds": time}
        for n, (loss, time) in enumerate(zip(losses, seconds, strict=False), start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"config": config, "best_step": 20, "peak_memory_mb": 700.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_runs_are_lines_best_first_with_seeds_together(tmp_path: Path) -> None:
    make_run(tmp_path / "a", lr=0.3)
    make_run(tmp_path / "b", (2.0, 0.5, 0.7))
    make_run(tmp_path / "c", (2.0, 0.7, 0.9), seed=1, data="c0de")
    compared = Comparison.of(read_records([tmp_path / name for name in "abc"]))
    assert compared.metrics() == ["val/loss"]
    heading, *rows = compared.table(compared.metrics())
    assert heading == ["lr", "best val/loss", "last val/loss", "samples/s", "seconds", "peak MB", "runs"]
    assert rows == [
        ["0.1", "0.6 ± 0.14", "0.8 ± 0.14", "50 ± 0", "3 ± 0", "700 ± 0", "2"],
        ["0.3", "1", "1.5", "50", "3", "700", "1"],
    ]
    numbers = compared.data(["val/loss"])["groups"][0]["numbers"]["best val/loss"]
    assert numbers["values"] == [0.5, 0.7]
    assert numbers["mean"] == pytest.approx(0.6)
    assert str(tmp_path) not in json.dumps(compared.data(["val/loss"]))
    (together,) = Comparison.of(compared.runs, ignored=["lr"]).groups
    assert (together.name, len(together.runs)) == ("all runs", 3)


def test_time_adds_up_over_the_processes_that_worked_on_a_run(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "a", seconds=(4.0, 9.0, 2.0)))
    assert record.elapsed == {10: 4.0, 20: 9.0, 30: 11.0}


def test_what_is_unfinished_or_broken_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    stopped = make_run(tmp_path / "b", (2.0, 1.0), lr=0.2)
    (stopped / "summary.json").unlink()
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": "x"}\nnonsense\n')
        file.write(f'{{"step": 1{"0" * 400}}}\n{{"step": 20, "val/loss": 1{"0" * 400}}}\n{{"step": 30, "val/l')
    compared = Comparison.of(read_records([tmp_path / "a", stopped]))
    table = as_text(compared.table(["val/loss"]))
    assert "unfinished at step 20" in table
    assert [
        note for note in compared.notes if "3 lines of metrics.jsonl cannot be read" in note and "line 3, 4, 5" in note
    ]
    shorter = make_run(tmp_path / "c", epochs=2)
    (shorter / "run.json").write_text((tmp_path / "a" / "run.json").read_text())
    assert read_record(shorter).status == "unfinished"


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(UserError, match="a run is given twice"):
        read_records([run, tmp_path / "link"])
    with pytest.raises(UserError, match="runs of different projects"):
        Comparison.of(read_records([run, make_run(tmp_path / "b", project="other")]))
    with pytest.raises(UserError, match=r"no such setting: --ignore rate; choose from .*lr"):
        Comparison.of(read_records([run]), ignored=["rate"])
    records = read_records([run, make_run(tmp_path / "c", data="f00d")])
    with pytest.raises(UserError, match=f"runs of different data: {run} and .*--allow-different-data"):
        Comparison.of(records)
    assert Comparison.of(records, allow_different_data=True).table(["val/loss"])[0][0] == "data"


def test_data_that_is_generated_from_the_seed_may_differ_with_it(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(seed), data=f"data{seed}", seed=seed) for seed in (0, 1)]
    for run in runs:
        set_data(run, "synthetic")
    (group,) = Comparison.of(read_records(runs)).groups
    assert len(group.runs) == 2
    other = make_run(tmp_path / "other", data="other", seed=0)
    set_data(other, "synthetic")
    with pytest.raises(UserError, match="runs of different data"):
        Comparison.of(read_records([*runs, other]))


def set_data(run: Path, data: str) -> None:
    """Gives a run another value of --data."""
    body = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**body, "config": {**body["config"], "data": data}}))


def test_the_program_writes_a_table_and_a_picture_and_refuses_in_one_line(tmp_path: Path, program: Program) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", lr=0.2, batch_size=16)]
    done = program("core.compare", *runs, "--markdown", "--output", tmp_path / "new" / "out", torch=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("| lr | batch_size | best val/loss |")
    with Image.open(tmp_path / "new" / "out" / "curves.png") as image:
        assert image.width > image.height
    assert json.loads((tmp_path / "new" / "out" / "comparison.json").read_text())["goal"]["name"] == "val/loss"
    assert (tmp_path / "new" / "out" / "comparison.md").read_text() == done.stdout
    for words in ([*runs, tmp_path / "new"], [*runs, "--metric", "val/speed"], [runs[0], runs[0]]):
        done = program("core.compare", *words, "--output", tmp_path / "nothing", torch=False)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert not (tmp_path / "nothing").exists()
