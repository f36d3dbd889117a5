"""Compiled kernels come without being asked for, come once, and never in a way that ends a program."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from cuda_ext import build
from tests.cuda_ext.building import SAMPLE, Answer, compute, plain_sources, run
from tests.cuda_ext.conftest import NUM_PROCESSES

ROOT = Path(__file__).parents[2]


def test_eight_programs_at_once_compile_once_and_all_have_the_kernels(race: tuple[Path, list[Answer]]) -> None:
    answers = race[1]
    assert [answer.result for answer in answers] == [[[2.0, 2.0], True]] * NUM_PROCESSES
    assert sum(answer.built for answer in answers) == 1
    assert "".join(answer.stderr for answer in answers).count("compiling the cpu kernels (once, about 10 s) ...") == 1
    assert len({answer.library for answer in answers}) == 1


def test_the_cache_is_private_and_holds_nothing_but_the_library(race: tuple[Path, list[Answer]]) -> None:
    folder = race[0]
    (entry,) = [path for path in folder.iterdir() if path.is_dir()]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in entry.iterdir()} == {"atelier_cpu.so", "build.json"}
    assert {path.name for path in folder.iterdir()} == {entry.name, f"{entry.name}.lock"}


SECOND_START = """
import sys
from pathlib import Path
from cuda_ext import build, kernel_library
kernel_library.CSRC = Path(sys.argv[1])
events = []
sys.addaudithook(lambda name, arguments: events.append((name, arguments)) if watching else None)
watching = True
assert build.ensure("cpu")
watching = False
assert not [name for name, _ in events if name in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system")]
assert not [a for name, a in events if name == "open" and isinstance(a[1], str) and not set(a[1]).isdisjoint("wax+")]
assert not {"torch.utils.cpp_extension", "filelock", "setuptools"} & set(sys.modules)
"""


def test_a_second_start_runs_no_program_writes_no_file_and_leaves_torchs_builder_alone(compiled: Path) -> None:
    command = [sys.executable, "-c", SECOND_START, str(SAMPLE)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ATELIER_EXT": "require"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=compiled.parent, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_header_gives_a_new_library(compiled: Path, tmp_path: Path) -> None:
    sources = tmp_path / "csrc"
    sources.mkdir()
    for path in SAMPLE.iterdir():
        (sources / path.name).write_text(path.read_text("utf-8").replace("FACTOR = 2.0", "FACTOR = 3.0"), "utf-8")
    new = run(tmp_path / "new", sources, after=compute)
    old = run(tmp_path / "old", SAMPLE, after=compute)
    assert (new.result, new.built) == ([[3.0, 3.0], True], True)
    assert (old.result, old.built) == ([[2.0, 2.0], True], False)


@pytest.mark.parametrize("kept", [0, 1000, 0.5, -1])
def test_a_truncated_library_is_compiled_again(plain_library: tuple[Path, Path], tmp_path: Path, kept: float) -> None:
    path, sources = plain_library
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    answer = run(tmp_path / "child", sources)
    assert answer.built
    assert path.read_bytes()[:1000] == whole[:1000]
    assert len(path.read_bytes()) == len(whole)


def test_a_library_with_one_changed_byte_is_not_loaded(compiled: Path, tmp_path: Path, no_compiler: None) -> None:
    content = bytearray(compiled.read_bytes())
    content[len(content) // 2] ^= 1
    compiled.write_bytes(content)
    assert not run(tmp_path / "child", SAMPLE).active


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"file": "x", "sha256": "0"}', '{"file": null, "sha256": 1}'])
def test_a_library_without_its_facts_is_not_loaded(
    compiled: Path, tmp_path: Path, no_compiler: None, damage: str
) -> None:
    (compiled.parent / "build.json").write_text(damage, "utf-8")
    assert not run(tmp_path / "child", SAMPLE).active


def test_a_library_is_used_where_its_compiler_has_gone(compiled: Path, tmp_path: Path, no_compiler: None) -> None:
    answer = run(tmp_path / "child", SAMPLE, after=compute)
    assert (answer.result, answer.stderr) == ([[2.0, 2.0], True], "")


def test_sources_that_do_not_compile_are_said_and_tried_once(home: Path, tmp_path: Path) -> None:
    sources = plain_sources(tmp_path / "csrc", source='#include "answer.h"\nint answer( { return ANSWER; }\n')
    first, second = run(tmp_path / "first", sources), run(tmp_path / "second", sources)
    (log,) = home.glob("*.failed.txt")
    progress, notice = first.stderr.splitlines()
    assert progress == "compiling the cpu kernels (once, about 10 s) ..."
    assert notice.startswith("note: plain PyTorch in place of the compiled cpu kernels, same results: compiling failed")
    assert re.search(r"compiling failed: answer_cpu\.cpp:2:\d+: error: ", notice)
    assert f"(log: {log}); python -m cuda_ext build tries again" in notice
    assert f"compiling failed before (log: {log})" in second.stderr
    assert "compiling the cpu" not in second.stderr
    assert re.search(r"answer_cpu\.cpp:2:\d+: error: ", log.read_text("utf-8"))
    assert not list(home.glob("*.part-*"))


def test_a_library_that_crashes_when_loaded_crashes_another_process(home: Path, tmp_path: Path) -> None:
    crash = "#include <csignal>\nstatic int now = std::raise(SIGSEGV);\n"
    answer = run(tmp_path / "child", plain_sources(tmp_path / "csrc", source=crash))
    assert not answer.active
    assert answer.reason is not None
    assert answer.reason.startswith("compiling or loading ended with signal 11")


def test_a_build_that_the_system_killed_is_tried_again(home: Path, tmp_path: Path) -> None:
    fake = tmp_path / "c++"
    message = "c++: fatal error: Killed signal terminated program cc1plus"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *" -c "*) echo "{message}"; exit 1;; esac\nexec c++ "$@"\n')
    fake.chmod(0o755)
    answer = run(tmp_path / "child", SAMPLE, before=lambda: os.environ.update(CXX=str(fake)))
    assert not answer.active
    assert str(answer.reason).endswith("the next start tries again")
    assert not list(home.glob("*.failed.txt"))


def test_nothing_is_known_before_anything_was_asked_for() -> None:
    for device, reason in (("cuda", "not needed so far"), ("mps", "there are none for this device")):
        status = build.Status(device, False, reason)
        if device not in build._statuses:
            assert build.status(device) == status
            assert not build.is_active(device)
    assert not build.ensure("mps")
    assert not build.ensure("meta")


def test_a_status_is_one_line_and_plain_data() -> None:
    path = Path("/cache/kernels/cpu-1-2/atelier_cpu.so")
    loaded, compiled = build.Status("cpu", True, None, path, 0.0123), build.Status("cpu", True, None, path, 9.87, True)
    missing = build.Status("cpu", False, "no ninja; install it")
    assert str(loaded) == f"cpu kernels: loaded in 0.01 s, {path}"
    assert str(compiled) == f"cpu kernels: compiled in 9.87 s, {path}"
    assert str(missing) == "cpu kernels: plain PyTorch (no ninja; install it)"
    assert loaded.plain() == {"kernels": "cpu-1-2", "kernels_reason": None}
    assert loaded.plain() == compiled.plain()
    assert missing.plain() == {"kernels": "plain PyTorch", "kernels_reason": "no ninja; install it"}


def test_off_looks_for_nothing_and_says_nothing(compiled: Path, tmp_path: Path) -> None:
    answer = run(tmp_path / "child", SAMPLE, before=lambda: os.environ.update(ATELIER_EXT="off"))
    assert (answer.active, answer.reason, answer.stderr) == (False, "switched off by ATELIER_EXT=off", "")


def test_require_is_an_error_with_the_reason_each_time(home: Path, tmp_path: Path, no_compiler: None) -> None:
    def first_time() -> None:
        os.environ["ATELIER_EXT"] = "require"
        with pytest.raises(build.ExtensionError, match="no C"):
            build.ensure("cpu")

    answer = run(tmp_path / "child", SAMPLE, before=first_time)
    assert str(answer.error).startswith("no compiled cpu kernels, and ATELIER_EXT=require: no C++ compiler (c++, ")
    assert answer.stderr == ""


def test_an_unknown_value_is_an_error_that_names_the_known_ones(compiled: Path, tmp_path: Path) -> None:
    answer = run(tmp_path / "child", SAMPLE, before=lambda: os.environ.update(ATELIER_EXT="yes"))
    assert answer.error == "unknown value: ATELIER_EXT=yes; choose from auto, require, off"


def test_a_missing_compiler_is_said_once(home: Path, tmp_path: Path, no_compiler: None) -> None:
    answer = run(tmp_path / "child", SAMPLE, after=lambda: [build.ensure("cpu") for _ in range(3)])
    assert answer.result == [False] * 3
    (notice,) = answer.stderr.splitlines()
    assert notice.startswith("note: ")
    assert "no C++ compiler" in notice
    assert not home.exists()


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"RANK": "0", "LOCAL_RANK": "3"}])
def test_only_the_first_rank_says_so(home: Path, tmp_path: Path, no_compiler: None, variables: dict[str, str]) -> None:
    answer = run(tmp_path / "child", SAMPLE, before=lambda: os.environ.update(variables))
    assert (answer.active, answer.stderr) == (False, "")


def test_threads_load_once(compiled: Path, tmp_path: Path) -> None:
    loads: list[str] = []

    def count() -> None:
        load = torch.ops.load_library

        def counted(path: str) -> None:
            loads.append(path)
            load(path)  # type: ignore[no-untyped-call]

        torch.ops.load_library = counted  # type: ignore[method-assign]

    def ask() -> list[object]:
        build._active.clear()
        build._statuses.clear()
        loads.clear()
        answers: list[bool] = []
        threads = [threading.Thread(target=lambda: answers.append(build.ensure("cpu"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers, len(loads)]

    assert run(tmp_path / "child", SAMPLE, before=count, after=ask).result == [[True] * 8, 1]


def test_a_fork_while_another_thread_asks_does_not_wait_for_it(compiled: Path, tmp_path: Path) -> None:
    def fork_with_lock_held() -> bool:
        build._active.clear()
        build._statuses.clear()
        with build._locks[os.getpid()]:
            return bool(run(tmp_path / "grandchild", SAMPLE).active)

    assert run(tmp_path / "child", SAMPLE, after=fork_with_lock_held).result is True


class Asks(torch.utils.data.Dataset[bool]):
    """A dataset whose samples say whether the kernels are active where they are read."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> bool:
        return build.ensure("cpu")


def test_workers_of_a_loader_have_the_kernels(compiled: Path, tmp_path: Path) -> None:
    def load() -> list[bool]:
        build._active.clear()
        build._statuses.clear()
        loader = DataLoader(Asks(), batch_size=None, num_workers=2, multiprocessing_context="fork")
        return [bool(active) for active in loader]

    assert run(tmp_path / "child", SAMPLE, after=load).result == [True] * 4
