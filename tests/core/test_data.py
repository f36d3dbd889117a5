"""Batches are a function of (seed, epoch, number), whoever loads them; a worker that fails is named, not waited for."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from core.data import BatchLoader, Loader, Order, StreamLoader
from core.distributed import World
from core.errors import RunError, UserError
from core.worker_watch import WorkerWatch
from tests import forked


class Numbers:
    """Samples (index, a random number of its own); one of them may misbehave."""

    def __init__(self, num: int = 23, fault: str = "", at: int = 13) -> None:
        self.num, self.fault, self.at = num, fault, at

    def __len__(self) -> int:
        return self.num

    def load(self, index: int, random: np.random.Generator) -> tuple[int, float]:
        """A sample."""
        if index == self.at:
            if self.fault == "raises":
                raise ValueError("no image")
            if self.fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "hangs":
                threading.Event().wait()
        return index, float(random.random())

    def name(self, index: int) -> str:
        """What messages call it."""
        return f"folder/image-{index}.jpg"


ORDER = Order(num_samples=23, batch_size=4, seed=5)


def make(kind: str) -> Loader[Any]:
    """A loader of each kind over the same samples."""
    if kind == "resident":
        return BatchLoader(lambda indices, epoch: (indices, epoch), ORDER)
    return StreamLoader(Numbers(), ORDER, workers=int(kind))


def plain(batches: Iterator[Any]) -> list[Any]:
    """Batches as lists."""
    return [[part.tolist() if isinstance(part, torch.Tensor) else part for part in batch] for batch in batches]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_do_not_depend_on_the_number_of_workers(workers: str, epoch: int) -> None:
    assert plain(make(workers).batches(epoch)) == plain(make("0").batches(epoch))


@pytest.mark.parametrize("kind", ["resident", "0"])
def test_an_epoch_from_any_batch_on_is_the_tail_of_the_whole(kind: str) -> None:
    loader = make(kind)
    whole = plain(loader.batches(2))
    assert len(whole) == len(loader) == 5
    for start in range(6):
        assert plain(loader.batches(2, start)) == whole[start:]


def test_workers_too_can_begin_at_any_batch() -> None:
    assert plain(make("2").batches(2, 3)) == plain(make("0").batches(2))[3:]


def test_random_numbers_of_a_sample_differ_by_epoch_and_sample() -> None:
    drawn = {
        (epoch, i): r
        for epoch in (0, 1)
        for ids, rs in plain(make("0").batches(epoch))
        for i, r in zip(ids, rs, strict=True)
    }
    assert len(set(drawn.values())) == len(drawn) == 40


def test_an_epoch_shows_no_sample_twice_and_leaves_out_others_each_time() -> None:
    seen = [torch.cat(list(ORDER.indices(epoch))).tolist() for epoch in range(4)]
    assert all(len(set(indices)) == len(indices) == 20 for indices in seen)
    assert len({frozenset(range(23)) - frozenset(indices) for indices in seen}) == 4
    assert torch.cat(list(Order(23, 4, seed=6).indices(0))).tolist() != seen[0]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_share_each_batch_between_them(size: int) -> None:
    whole = [batch.tolist() for batch in ORDER.indices(1)]
    orders = [Order(23, 4, seed=5, world=World(rank, rank, size)) for rank in range(size)]
    shares = [list(order.indices(1)) for order in orders]
    for number, batch in enumerate(whole):
        parts = [share[number].tolist() for share in shares]
        assert {len(part) for part in parts} == {4 // size}
        assert sorted(index for part in parts for index in part) == sorted(batch)


@pytest.mark.parametrize(("num", "batch_size", "size"), [(10, 4, 3), (10, 4, 1), (3, 100, 2), (1, 4, 4), (12, 4, 2)])
def test_evaluation_takes_every_sample_once_over_uneven_shards(num: int, batch_size: int, size: int) -> None:
    worlds = [World(rank, rank, size) for rank in range(size)]
    orders = [Order(num, batch_size, training=False, world=world) for world in worlds]
    found = [list(order.indices(0)) for order in orders]
    assert sorted(int(i) for share in found for batch in share for i in batch) == list(range(num))
    assert all(len(batch) for share in found for batch in share)
    assert {len(order) for order in orders} == {-(-num // batch_size)}


def test_a_batch_larger_than_the_data_is_a_user_error() -> None:
    with pytest.raises(UserError, match="--batch-size 8"):
        Order(num_samples=7, batch_size=8)
    assert len(Order(num_samples=7, batch_size=8, training=False)) == 1


def test_a_batch_that_ranks_cannot_share_is_a_user_error() -> None:
    with pytest.raises(UserError, match="--batch-size 8, 3 ranks"):
        Order(num_samples=70, batch_size=8, world=World(0, 0, 3))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_loaded_is_named(workers: int) -> None:
    with pytest.raises(RunError, match=r"folder/image-13\.jpg \(ValueError: no image\)"):
        list(StreamLoader(Numbers(fault="raises"), Order(23, 4, training=False), workers=workers).batches(0))


def load_all(loader: StreamLoader) -> None:
    list(loader.batches(0))


@pytest.mark.parametrize("at", [0, 13, 22])
def test_a_worker_that_is_killed_is_named(at: int) -> None:
    loader = StreamLoader(Numbers(fault="dies", at=at), Order(23, 4, training=False), workers=1, timeout_seconds=9)
    for _ in range(6):  # there is more than one way to notice, and chance decides
        code, text = forked.last_words(lambda: load_all(loader))
        assert text.startswith("error: a data worker died: ")
        assert (code, text.count("\n")) == (1, 1)


@pytest.mark.parametrize("fault", ["hangs", "is stopped", "is stopped with a batch queued"])
def test_a_worker_that_gives_no_batch_ends_the_wait_in_the_stated_time(fault: str) -> None:
    source = Numbers(fault=fault, at=13 if fault == "hangs" else -1)
    loader = StreamLoader(source, Order(23, 2, training=False), workers=2, timeout_seconds=1)
    batches, began = loader.batches(0), time.monotonic()
    next(batches)
    if fault != "hangs":
        if "queued" in fault:
            time.sleep(0.5)  # the tensors of a queued batch have to be fetched from the worker all the same
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGSTOP)
        os.kill(multiprocessing.active_children()[1].pid or 0, signal.SIGSTOP)
    with pytest.raises(RunError, match="a data worker hangs: no batch for 1 seconds"):
        list(batches)
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


def test_news_of_a_dead_worker_do_not_keep_the_next_one_alive() -> None:
    killed: list[str] = []

    def kill(self: object) -> None:
        """As torch's handler of SIGCHLD strikes: in the killing of another worker than the one that has died."""
        killed.append("struck" if not killed else "done")
        if killed == ["struck"]:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    worker: Any = type("Worker", (), {"kill": kill})()
    WorkerWatch([worker], limit_seconds=1.0).kill()
    assert killed == ["struck", "done"]


def test_leaving_with_a_stopped_worker_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # torch waits this long for its end
    batches = make("1").batches(0)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGSTOP)
    batches.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Caught RuntimeError in DataLoader worker process 0.\nTraceback\nRuntimeError: </torch_1> full", "full"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It may be out of shared memory.", "Bus error"),
    ],
)
def test_too_little_shared_memory_is_named_with_its_reason_and_its_cure(text: str, where: str) -> None:
    def collate(samples: list[Any]) -> Any:
        raise RuntimeError(text)

    with pytest.raises(RunError, match=rf"{where}.*/dev/shm.*--workers 0") as caught:
        list(StreamLoader(Numbers(), ORDER, workers=1, collate=collate).batches(0))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_do_not_fit_together_are_not_called_a_dead_worker(workers: int) -> None:
    def collate(samples: list[Any]) -> Any:
        raise RuntimeError("stack expects each tensor to be equal size")

    loader = StreamLoader(Numbers(), ORDER, workers=workers, collate=collate)
    with pytest.raises((RunError, RuntimeError), match="equal size") as caught:
        list(loader.batches(0))
    assert "died" not in str(caught.value)


def test_leaving_an_epoch_early_leaves_no_worker_behind() -> None:
    before, batches = set(multiprocessing.active_children()), make("2").batches(0)
    assert len(list(islice(batches, 2))) == 2
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()  # type: ignore[attr-defined]
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("workers", ["0", "1"])
def test_loading_leaves_the_global_generators_alone(workers: str) -> None:
    numpy_state: Any = np.random.get_state
    before = torch.get_rng_state(), numpy_state()[2]
    list(make(workers).batches(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy_state()[2] == before[1]
