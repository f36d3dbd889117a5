"""A save that fails or is killed at any instant costs no older checkpoint, and says what happened."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core import checkpoint, files, retention
from core.checkpoint import load, load_newest, save, verify
from core.errors import RunError
from core.retention import rotate
from tests import forked

ROOT = Path(__file__).parents[2]


def state(step: int, num: int = 100) -> dict[str, Any]:
    """A state that tells its step."""
    return {"model": {"weight": torch.full((num,), float(step))}, "loop": {"step": step}}


def system(monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> None:
    """Replaces calls of the operating system, for checkpoints only."""
    monkeypatch.setattr(files, "os", SimpleNamespace(**{**vars(os), **replaced}))


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_costs_no_older_checkpoint(
    call: str, number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, count = save(tmp_path, 1, state(1), project="any"), 0

    def fail(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == number + 1:
            raise OSError(code, os.strerror(code))
        return getattr(os, call)(*arguments)

    system(monkeypatch, **{call: fail})
    if call == "write" and number > 3:  # three files are written, one of them in two pieces
        save(tmp_path, 2, state(2), project="any")
        return
    with pytest.raises(RunError) as caught:
        save(tmp_path, 2, state(2), project="any")
    assert "checkpoint of step 2 not written" in str(caught.value)
    assert os.strerror(code).lower() in str(caught.value)
    assert ("free some space" in str(caught.value)) == (code == errno.ENOSPC)
    verify(older)
    monkeypatch.undo()
    assert load_newest(tmp_path)[1]["loop"]["step"] in (1, 2)
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))
    save(tmp_path, 2, state(2), project="any")
    assert load_newest(tmp_path)[1]["loop"]["step"] == 2


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system(monkeypatch, write=lambda descriptor, data: os.write(descriptor, data[:7]))
    found = load(save(tmp_path, 1, state(1), project="any"))
    assert torch.equal(found["model"]["weight"], torch.ones(100))


def test_a_disk_that_stores_something_else_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = save(tmp_path, 1, state(1), project="any")
    system(monkeypatch, write=lambda descriptor, data: os.write(descriptor, bytes(len(data))))
    save(tmp_path, 2, state(2), project="any")
    with pytest.raises(RunError, match="look at the disk"):
        rotate(tmp_path, 1, [])
    monkeypatch.undo()
    assert load_newest(tmp_path)[0] == older


@pytest.mark.parametrize("where", ["a file in the way", "/proc/nothing"])
def test_a_folder_that_cannot_be_made_is_a_run_error(where: str, tmp_path: Path) -> None:
    (tmp_path / "a file in the way").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="checkpoint of step 1 not written"):
        save(tmp_path / where, 1, state(1), project="any")


FULL_DISK = """
import pathlib, sys, torch
from core import checkpoint
from core.errors import RunError
disk = pathlib.Path(sys.argv[1])
state = lambda step, num: {"model": {"weight": torch.full((num,), float(step))}}
older = checkpoint.save(disk, 1, state(1, 1000), project="any")
try:
    checkpoint.save(disk, 2, state(2, 1_000_000), project="any")
except RunError as error:
    print(error)
assert checkpoint.load_newest(disk)[0] == older
assert [p.name for p in (disk / "checkpoints").iterdir()] == [older.name]
"""


def test_a_disk_that_is_really_full_costs_no_older_checkpoint(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("unshare cannot make a mount namespace here")
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    if "mount" in done.stderr and "denied" in done.stderr:
        pytest.skip("no tmpfs may be mounted here")
    assert done.returncode == 0, done.stderr
    assert "checkpoint of step 2 not written, no space left on device" in done.stdout
    assert "free some space" in done.stdout


def save_until_killed(run_dir: Path, first: int, seconds: float) -> None:
    """In a child: one checkpoint after the other, until the alarm ends it as SIGKILL would."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    for step in range(first, first + 10_000):
        save(run_dir, step, state(step, 20_000), project="any")
        rotate(run_dir, 2, [1])


def test_a_save_that_is_killed_at_any_instant_leaves_a_good_newest_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1, state(1, 20_000), project="any")
    began = time.perf_counter()
    newest = save(tmp_path, 2, state(2, 20_000), project="any")
    duration, instants, left_half = time.perf_counter() - began, random.Random(0), 0
    for number in count(1):
        seconds, first = 1e-4 + instants.random() * 2 * duration, int(newest.name[5:]) + 1
        child = forked.fork()
        if child == 0:
            try:
                save_until_killed(tmp_path, first, seconds)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGALRM
        left_half += len(list((tmp_path / "checkpoints").glob(".tmp-*"))) > 0
        newest = load_newest(tmp_path)[0]
        assert newest == checkpoint.folders(tmp_path)[-1]
        found = load(newest)
        assert newest.name == f"step-{found['loop']['step']:08d}"
        assert torch.equal(found["model"]["weight"], state(found["loop"]["step"], 20_000)["model"]["weight"])
        retention.sweep(tmp_path)
        if number >= 20 and left_half:  # some were really in the middle
            break
        assert number < 500


def test_a_kill_while_the_same_step_is_saved_again_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save(tmp_path, 2, state(2), project="any")

    def killed_in_the_middle(path: Path, ignore_errors: bool = False) -> None:
        next(iter(sorted(path.iterdir()))).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "shutil", SimpleNamespace(rmtree=killed_in_the_middle))
    with contextlib.suppress(KeyboardInterrupt):
        save(tmp_path, 2, state(2), project="any")
    assert load_newest(tmp_path)[0] == newest


def renames_until(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The second rename of a save fails: the old folder has given up its name, and the new one has not got it."""
    rename, names = Path.rename, iter(range(9))

    def failing(path: Path, target: Path) -> Path:
        if next(names) == 1:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)


def test_a_replacement_that_fails_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save(tmp_path, 2, state(2), project="any")
    renames_until(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)))
    with pytest.raises(RunError, match="checkpoint of step 2 not written"):
        save(tmp_path, 2, state(2), project="any")
    assert load_newest(tmp_path)[0] == newest


def test_a_kill_between_the_renames_of_a_replacement_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save(tmp_path, 2, state(2), project="any")
    with monkeypatch.context() as patched:
        renames_until(patched, KeyboardInterrupt())
        with contextlib.suppress(KeyboardInterrupt):
            save(tmp_path, 2, state(2), project="any")
    assert not newest.exists()
    retention.sweep(tmp_path)  # as a resumed run begins
    assert load_newest(tmp_path)[0] == newest
    assert not list(tmp_path.glob("checkpoints/.tmp-*"))
