"""Batches: of one model and key, never larger than allowed; a bad input costs its neighbors nothing. Replaced files."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.serving.batching import Batcher
from core.serving.model_files import ModelFile, ModelFiles, named_files


class Recorder:
    """A model that notes its batches, and works on the first one until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began, self.go = threading.Event(), threading.Event()

    def compute(self, model: str, inputs: Any) -> list[str]:
        self.batches.append(list(inputs))
        self.began.set()
        assert self.go.wait(10)
        if -1 in inputs:
            raise ValueError("a bad input")
        return [f"{model}{each}" for each in inputs]


def batcher(recorder: Recorder, **settings: Any) -> Batcher:
    return Batcher(recorder.compute, **{"workers": 1, "window_seconds": 0.0, "largest": 4, **settings})


def submit(made: Batcher, model: str, *inputs: tuple[str, int]) -> "Future[list[Any]]":
    future: Future[list[Any]] = Future()
    made.submit(model, inputs, future)
    return future


def busy(recorder: Recorder, made: Batcher) -> None:
    """Has the one thread work on input 0."""
    submit(made, "m", ("", 0))
    assert recorder.began.wait(10)


def test_what_waits_is_computed_together_by_model_and_key_in_batches_of_the_largest_size() -> None:
    recorder = Recorder()
    made = batcher(recorder)
    busy(recorder, made)
    future = submit(made, "m", *(("ab"[number % 2], number) for number in range(1, 13)))
    other = submit(made, "n", ("a", 101), ("a", 103))
    assert made.num_waiting == 14
    recorder.go.set()
    assert future.result(10) == [f"m{number}" for number in range(1, 13)]
    assert other.result(10) == ["n101", "n103"]
    assert sorted(map(len, recorder.batches)) == [1, 2, 2, 2, 4, 4]
    assert all(len({number % 2 for number in batch}) == 1 for batch in recorder.batches)
    made.stop()


def test_idle_threads_share_what_waits() -> None:
    recorder = Recorder()
    made = batcher(recorder, workers=2, largest=8)
    time.sleep(0.05)  # both threads wait
    future = submit(made, "m", *(("", number) for number in range(8)))
    recorder.go.set()
    assert future.result(10) == [f"m{number}" for number in range(8)]
    assert max(map(len, recorder.batches)) == 4
    made.stop()


def test_a_bad_input_fails_alone_a_cancelled_one_is_left_out_and_stopping_computes_the_rest() -> None:
    recorder = Recorder()
    made = batcher(recorder)
    busy(recorder, made)
    good, bad, cancelled, also_good = (submit(made, "m", ("", number)) for number in (1, -1, 2, 3))
    cancelled.cancel()
    stopping = threading.Thread(target=made.stop)
    stopping.start()
    recorder.go.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert (good.result(0), also_good.result(0)) == (["m1"], ["m3"])
    assert made.num_requests == 0
    with pytest.raises(ValueError, match="a bad input"):
        bad.result(0)
    with pytest.raises(CancelledError):
        cancelled.result(0)
    assert not any(2 in batch for batch in recorder.batches)


def test_an_input_waits_for_others_only_while_some_are_coming_and_no_longer_than_the_window() -> None:
    recorder, coming = Recorder(), [1]
    recorder.go.set()
    made = batcher(recorder, window_seconds=0.3, num_coming=lambda: coming[0])
    first = submit(made, "m", ("", 1))
    time.sleep(0.1)
    second = submit(made, "m", ("", 2))
    assert first.result(10) + second.result(10) == ["m1", "m2"]
    assert recorder.batches == [[1, 2]]
    coming[0] = 0
    began = time.monotonic()
    submit(made, "m", ("", 3)).result(10)
    assert time.monotonic() - began < 0.25
    made.stop()


@pytest.fixture
def load() -> Callable[[Path], Any]:
    """Opens a file: its text, unless that says that it is broken."""

    def load(path: Path) -> Any:
        text = path.read_text()
        if text.startswith("broken"):
            raise UserError("not a usable file", path, "export it again")
        return text

    return load


def replace(path: Path, text: str) -> None:
    path.with_name("new").write_text(text)
    path.with_name("new").replace(path)


def test_a_replaced_file_is_served_a_broken_or_missing_one_keeps_the_old(
    load: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("one")
    file: ModelFile[Any] = ModelFile("a", path, load)
    files = ModelFiles([file])
    assert file.reload_if_replaced() is None
    replace(path, "two")
    before = file.loaded
    assert file.reload_if_replaced() is True
    assert (before.model, file.loaded.model) == ("one", "two")
    spoils: tuple[Callable[[], object], ...] = (lambda: replace(path, "broken"), path.unlink)
    for spoil in spoils:
        spoil()
        assert file.reload_if_replaced() is False
        assert file.reload_if_replaced() is None  # it is said once
        assert file.loaded.model == "two"
        assert files.health()["status"] == "degraded"
        assert "a.onnx" in files.health()["models"]["a"]["error"]
    path.write_text("three")
    assert file.reload_if_replaced() is True
    assert (file.loaded.model, files.health()["status"]) == ("three", "ok")


def test_a_file_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("one")
    writing = [False]

    def load(path: Path) -> Any:
        text = path.read_text()
        if writing[0]:
            path.write_text(text + " more")
        return text

    file: ModelFile[Any] = ModelFile("a", path, load)
    path.write_text("half")
    writing[0] = True
    assert file.reload_if_replaced() is None
    assert file.loaded.model == "one"
    writing[0] = False
    assert file.reload_if_replaced() is True
    assert file.loaded.model == "half more"


def test_files_are_named_by_the_command_line_by_themselves_or_by_their_folder(
    load: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run 1/model.onnx", "b.onnx", "run 2/model.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = named_files(["run 1/model.onnx", "b.onnx", f"best={tmp_path / 'run 2/model.onnx'}"], load)
    assert {name: file.loaded.model for name, file in files.by_name.items()} == {
        "run-1": "run 1/model.onnx",
        "b": "b.onnx",
        "best": "run 2/model.onnx",
    }
    assert files.first.name == "run-1"
    for given, named in ((["b.onnx", "b=b.onnx"], "b.onnx"), (["c.onnx"], "c.onnx"), (["b=c.onnx"], "c.onnx")):
        with pytest.raises(UserError, match=named):
            named_files(given, load)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        named_files(["pipe"], load)
