"""SIGINT, SIGTERM and SIGHUP save at the exact step and leave with 130, 143 and 129, and say what is saved."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from core import checkpoint
from core.data import StreamLoader
from core.errors import run_command
from core.run import RunFolder
from tests import forked, toy

LONG = ["--epochs", 100_000, "--log-every", 1]


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(toy.main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", "--epochs", 1])


def wait_for_training(run_dir: Path) -> None:
    """Returns when the first step has been logged."""
    deadline = time.monotonic() + 60
    while not (run_dir / "metrics.jsonl").exists():
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_at_the_step_and_leaves(number: int, code: int, workers: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG, "--workers", workers])
    wait_for_training(run_dir)
    sent = time.monotonic()
    os.kill(child, number)
    assert forked.wait(child) == code
    assert time.monotonic() - sent < 10
    newest = checkpoint.load_newest(run_dir)[0]
    logged = forked.metrics(run_dir)[-1]["step"]
    assert checkpoint.load(newest)["loop"]["step"] == logged, "the step that was logged last is the one that was saved"


def test_the_whole_process_group_interrupted_as_by_the_keyboard(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG, "--workers", 2], own_group=True)
    wait_for_training(run_dir)
    os.killpg(child, signal.SIGINT)
    assert forked.wait(child) == 130
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(child, 0)
    assert checkpoint.folders(run_dir)


def calls_in_a_step(report: Callable[[tuple[str, int]], object]) -> forked.Main:
    """The toy's training that reports every call of a function of core or contextlib from step 5 on to step 6."""

    def main(argv: list[str]) -> None:
        inner, num_steps, num_calls = toy.train_step, itertools.count(1), Counter[str]()

        def look(frame: FrameType, event: str, _: object) -> None:
            name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"
            if event == "call" and ("/core/" in frame.f_code.co_filename or name.startswith("contextlib.")):
                num_calls[name] += 1
                report((name, num_calls[name]))

        def train_step(*arguments: Any, **rest: Any) -> Any:
            number = next(num_steps)
            sys.setprofile(look if number == 5 else None)
            return inner(*arguments, **rest)

        setattr(toy, "train_step", train_step)  # noqa: B010
        toy.main(argv)

    return main


def strike(place: tuple[str, int], call: tuple[str, int]) -> None:
    """Sends this process SIGTERM where it comes to a place."""
    if call == place:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_is_answered_with_a_save_wherever_in_a_step_it_comes(tmp_path: Path) -> None:
    def told(argv: list[str]) -> None:
        with (tmp_path / "calls").open("a") as file:
            calls_in_a_step(lambda call: file.write(f"{call[0]} {call[1]}\n"))(argv)

    assert forked.run(told, ["--run-dir", tmp_path / "whole", "--epochs", 1]) == 0
    calls = {(name, int(number)) for name, number in map(str.split, (tmp_path / "calls").read_text().splitlines())}
    assert len(calls) > 10
    for index, place in enumerate(sorted(calls)):
        main = calls_in_a_step(partial(strike, place))
        assert forked.run(main, ["--run-dir", tmp_path / f"{index}", "--epochs", 1]) == 143
        assert checkpoint.load_newest(tmp_path / f"{index}")[1]["loop"]["step"] in (5, 6), place


def test_a_signal_does_not_wait_for_a_batch_and_the_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", "--epochs", 2]) == 0

    def main(argv: list[str]) -> None:
        inner = StreamLoader.batches

        def batches(loader: StreamLoader, epoch: int, start: int = 0) -> Iterator[Any]:
            for number, batch in enumerate(inner(loader, epoch, start)):
                if loader.order.training and epoch == 1 and number == 4:
                    signal.raise_signal(signal.SIGTERM)
                    os._exit(98)  # it would be a wait of minutes
                yield batch

        setattr(StreamLoader, "batches", batches)  # noqa: B010
        toy.main(argv)

    assert forked.run(main, ["--run-dir", tmp_path / "run", "--epochs", 2]) == 143
    assert checkpoint.load_newest(tmp_path / "run")[1]["loop"]["step"] == 15
    assert forked.run(toy.main, ["--resume", tmp_path / "run"]) == 0
    assert forked.ending(tmp_path / "run") == forked.ending(tmp_path / "whole")


def last_words(main: forked.Main, argv: list[object]) -> tuple[int, str]:
    """Exit code and standard error of main(argv) in a forked child."""
    return forked.last_words(lambda: main([str(argument) for argument in argv]))


def signalled_in(name: str, numbers: Sequence[int], then: Callable[[], object] = lambda: None) -> forked.Main:
    """The toy's training that is sent signals before a function of its own is called."""

    def main(argv: list[str]) -> None:
        inner = getattr(toy, name)

        def outer(*arguments: Any, **rest: Any) -> Any:
            for number in numbers:
                signal.raise_signal(number)
            then()
            return inner(*arguments, **rest)

        setattr(toy, name, outer)
        toy.main(argv)

    return main


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_an_evaluation_ends_it_and_the_run_goes_on_as_if_it_had_not_been(
    number: int, code: int, tmp_path: Path
) -> None:
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", "--epochs", 1]) == 0
    argv = ["--run-dir", tmp_path / "run", "--epochs", 1]
    assert forked.run(signalled_in("evaluate", [number], then=lambda: os._exit(98)), argv) == code
    assert checkpoint.load_newest(tmp_path / "run")[1]["loop"]["step"] == 11
    assert forked.run(toy.main, ["--resume", tmp_path / "run"]) == 0
    assert forked.ending(tmp_path / "run") == forked.ending(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_after_training_says_what_is_saved(number: int, code: int, tmp_path: Path) -> None:
    def main(argv: list[str]) -> None:
        setattr(RunFolder, "summarize", lambda *_: signal.raise_signal(number))  # noqa: B010
        toy.main(argv)

    got, text = last_words(main, ["--run-dir", tmp_path / "run", "--epochs", 1])
    assert got == code
    assert text.splitlines()[-1] == f"stopped; step 11 is saved; continue with --resume {tmp_path / 'run'}"
    assert forked.run(toy.main, ["--resume", tmp_path / "run"]) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_before_training_says_that_nothing_is_saved(number: int, code: int, tmp_path: Path) -> None:
    got, text = last_words(signalled_in("parse_training", [number]), ["--run-dir", tmp_path / "run"])
    assert (got, text) == (code, "stopped; nothing was saved\n")


def test_two_interrupts_do_not_wait_for_the_step_and_say_what_is_saved(tmp_path: Path) -> None:
    argv = ["--run-dir", tmp_path / "run", "--epochs", 1]
    code, text = last_words(signalled_in("train_step", [signal.SIGINT] * 2), argv)
    assert (code, text) == (130, "stopped; nothing was saved\n")
    assert forked.run(forked.stopping_at(3, toy), ["--run-dir", tmp_path / "second"]) == 143
    code, text = last_words(signalled_in("train_step", [signal.SIGINT] * 2), ["--resume", tmp_path / "second"])
    assert code == 130
    assert f"--resume {tmp_path / 'second'}" in text
    assert "nothing was saved" not in text


def test_a_signal_that_was_ignored_by_nohup_stays_ignored(tmp_path: Path) -> None:
    def main(argv: list[str]) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        run_command(lambda: signalled_in("train_step", [signal.SIGHUP])(argv))

    assert forked.run(main, ["--run-dir", tmp_path / "run", "--epochs", 1]) == 0


def test_training_goes_on_where_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tests.toy", "--run-dir", str(tmp_path / "run"), "--epochs", "2"]
    done = subprocess.run(command, stdout=writer, stderr=writer, cwd=Path(__file__).parents[2])
    os.close(writer)
    assert done.returncode == 0
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_killed_training_leaves_no_worker_behind(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG, "--workers", 2], own_group=True)
    wait_for_training(run_dir)
    os.kill(child, signal.SIGKILL)
    assert forked.wait(child) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while group_is_alive(child):
        assert time.monotonic() < deadline, "a worker outlived the training"
        time.sleep(0.05)


def group_is_alive(group: int) -> bool:
    """Whether a process of a group is running; those that only wait to be reaped do not count."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_holds_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG])
    wait_for_training(run_dir)
    assert forked.run(toy.main, ["--resume", run_dir]) == 2
    os.kill(child, signal.SIGTERM)
    assert forked.wait(child) == 143
