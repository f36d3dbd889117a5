"""A program that is killed while its kernels are compiled leaves no compiler behind, and the next start ends right."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cuda_ext import cache, compiler, kernel_library
from tests.cuda_ext.building import SAMPLE, Child, at_work_in, compute, plain_sources, run, start, wait_until

REACHED_WITHIN_SECONDS = 150.0
GONE_WITHIN_SECONDS = 5.0


def there(pattern: str) -> Callable[[Path], bool]:
    """Whether a file exists in the folder of libraries."""
    return lambda home: next(home.glob(pattern), None) is not None


def works(program: str) -> Callable[[Path], bool]:
    """Whether a program is at work there."""
    return lambda home: any(program in command for command in at_work_in(home))


INSTANTS = {
    "lock": there("*.lock"),
    "folder": there("*.part-*"),
    "sources": there("*.part-*/times_cpu.cpp"),
    "request": there("*.part-*/request.json"),
    "supervisor": works("compiler.py"),
    "ninja's file": there("*.part-*/build.ninja"),
    "compiler": works("cc1plus"),
    "object": there("*.part-*/times_cpu.o"),
    "library": there("*.part-*/atelier_cpu.so"),
    "end": there("*/build.json"),
}


def test_killed_at_ten_instants_the_next_start_ends_right_and_no_compiler_lives_on(home: Path, tmp_path: Path) -> None:
    for number, (instant, reached) in enumerate(INSTANTS.items()):
        child = start(tmp_path / str(number), SAMPLE, whole=True)
        assert wait_until(partial(reached, home), REACHED_WITHIN_SECONDS), (instant, child.stderr())
        child.kill()
        assert wait_until(lambda: not at_work_in(home), GONE_WITHIN_SECONDS), (instant, at_work_in(home))
        broken = [path for path in home.iterdir() if path.is_dir() and "." not in path.name and not cache.whole(path)]
        assert broken == [], instant
    answer = run(tmp_path / "last", SAMPLE, after=compute)
    assert answer.result == [[2.0, 2.0], True]
    assert not list(home.glob("*.part-*"))


@pytest.fixture
def compiling(home: Path, tmp_path: Path) -> Child:
    """A program whose C++ compiler has no end, at work on it, and patient for two seconds."""
    slow = tmp_path / "c++"
    slow.write_text('#!/bin/sh\ncase "$*" in *" -c "*) sleep 1000;; esac\nexec c++ "$@"\n', "utf-8")
    slow.chmod(0o755)

    def before() -> None:
        os.environ["CXX"] = str(slow)
        kernel_library.BUILD_SECONDS, compiler.GRACE_SECONDS = 2.0, 0.5

    child = start(tmp_path / "child", plain_sources(tmp_path / "csrc"), before=before)
    assert wait_until(lambda: works("sleep 1000")(home), REACHED_WITHIN_SECONDS), child.stderr()
    return child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_supervisor_that_is_killed_or_stopped_keeps_nobody_waiting(
    home: Path, compiling: Child, number: signal.Signals
) -> None:
    (supervisor,) = Path(f"/proc/{compiling.pid}/task/{compiling.pid}/children").read_text("utf-8").split()
    os.kill(int(supervisor), number)
    assert str(compiling.answer().reason).startswith("the compiling process was killed")
    assert wait_until(lambda: not at_work_in(home), GONE_WITHIN_SECONDS), at_work_in(home)


def test_a_compiler_without_end_is_ended_and_remembered(home: Path, compiling: Child) -> None:
    assert str(compiling.answer().reason).startswith("compiling took longer than 2 s (log: ")
    assert wait_until(lambda: not at_work_in(home), GONE_WITHIN_SECONDS), at_work_in(home)
    assert len(list(home.glob("*.failed.txt"))) == 1


def test_ctrl_c_while_compiling_ends_the_program_and_its_compilers(home: Path, compiling: Child) -> None:
    os.kill(compiling.pid, signal.SIGINT)
    os.waitpid(compiling.pid, 0)
    assert "KeyboardInterrupt" in compiling.stderr()
    assert wait_until(lambda: not at_work_in(home), GONE_WITHIN_SECONDS), at_work_in(home)
    assert not list(home.glob("*.part-*"))
