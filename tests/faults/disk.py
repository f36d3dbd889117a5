"""Full and broken disks: a call fails as the system would have it fail, or a small disk fills."""

import ctypes
import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import forked
from tests.faults.file_calls import KINDS, Fault
from tests.faults.programs import Outcome, Program, arguments, ending, is_alike, play, problem_with_newest
from tests.faults.tally import Tally

_ERRORS = (errno.ENOSPC, errno.ENOSPC, errno.EIO)
_CLONE_NEWNS, _CLONE_NEWUSER, _MS_REC, _MS_PRIVATE, _MS_REMOUNT = 0x20000, 0x10000000, 0x4000, 0x40000, 0x20
_PLENTY = "size=1g"


def disk_trial(program: Program, number: int, folder: Path, tally: Tally) -> None:
    """A run whose disk fails at a call, for once or from then on, and is then mended."""
    source = random.Random(f"disk {program.name} {number}")
    run_dir = folder / "disk" / "run"
    shutil.rmtree(run_dir.parent, ignore_errors=True)
    run_dir.parent.mkdir(parents=True)
    kind = source.choice(KINDS)
    at = source.randint(1, max(1, program.calls[kind]))
    fault = Fault(kind, at, error_number=source.choice(_ERRORS), lasting=source.random() < 0.5)
    tally.count("failing disks")
    _fail_and_go_on(program, f"{program.name} {number}: {fault}", run_dir, fault, lambda: None, tally)


def small_disk_trial(program: Program, number: int, folder: Path, tally: Tally) -> None:
    """A run on a file system in memory that becomes full, and is then made larger; counted only where one may be
    mounted here."""
    source = random.Random(f"small disk {program.name} {number}")
    disk = folder / "small-disk"
    disk.mkdir(exist_ok=True)
    size = source.randint(8, max(9, int(1.1 * program.kilobytes)))
    reader, writer = os.pipe()
    child = forked.fork()
    if child == 0:
        inner = Tally()
        try:
            if _mount(disk, f"size={size}k"):
                inner.count("failing disks")
                where = f"{program.name} {number}: disk of {size} kB"
                _fail_and_go_on(program, where, disk / "run", None, lambda: _mount(disk, _PLENTY, again=True), inner)
            os.write(writer, json.dumps([inner.tried, inner.wrong, inner.cases]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    tally.merge(*(json.loads(content) if content else ({}, {"others": 1}, [f"{program.name} {number}: no answer"])))


def _fail_and_go_on(
    program: Program, where: str, run_dir: Path, fault: Fault | None, mend: Callable[[], Any], tally: Tally
) -> None:
    """Runs a program on a disk that fails, looks at what it says and leaves, and resumes it on the mended disk."""
    outcome = play(program, arguments(program, run_dir), run_dir, fault)
    if problem := _problem_of_end(outcome):
        tally.add("others", f"{where}: {problem}")
        return
    mend()
    if lost := problem_with_newest(run_dir, outcome.saved):
        tally.add("lost", f"{where}: {lost}")
        return
    if outcome.code != 0:
        tally.count("failed runs")
        outcome = play(program, arguments(program, run_dir), run_dir)
        if outcome.code != 0:
            last = outcome.lines[-1] if outcome.lines else "no line"
            tally.add("others", f"{where}: on a good disk exit {outcome.code}: {last}")
            return
    # A plot that could not be written is said, and costs nothing else.
    without_plots = any(line.startswith("note: a plot is missing") for line in outcome.lines)
    if not is_alike(ending(run_dir), program.ending, without_plots=without_plots):
        tally.add("unequal", where)


def _problem_of_end(outcome: Outcome) -> str:
    """What is wrong with how a program on a failing disk ended; empty if nothing is."""
    last = outcome.lines[-1] if outcome.lines else "no line"
    errors = [line for line in outcome.lines if line.startswith("error: ")]
    if any("Traceback" in line for line in outcome.lines):
        return f"traceback, {last}"
    if outcome.code == 0:
        return f"exit 0, {last}" if errors else ""
    if outcome.code != 1 and not (outcome.code == 2 and not outcome.saved):
        return f"exit {outcome.code}: {last}"
    if errors != [last] or "Error" in last.split(":")[1]:
        return f"not one line that a user understands: {' / '.join(outcome.lines[-3:])}"
    return ""


def _mount(folder: Path, options: str, *, again: bool = False) -> bool:
    """Mounts a file system in memory for this process and its children alone; whether that may be done here."""
    system = ctypes.CDLL(None, use_errno=True)
    if again:
        return not system.mount(b"none", bytes(folder), b"tmpfs", _MS_REMOUNT, options.encode())
    if system.unshare(_CLONE_NEWNS) and system.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
        return False
    if system.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        return False
    return not system.mount(b"none", bytes(folder), b"tmpfs", 0, options.encode())
