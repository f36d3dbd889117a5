"""Loaders that resume: the batches of an epoch are a function of (seed, epoch), from any batch on.

BatchLoader is for data that fits into memory: the project makes a whole batch at once from a tensor of indices.
StreamLoader is for data that must be read and decoded: worker processes load samples one by one, each with random
numbers of its own, so 0, 1 and 2 workers give equal batches. Ranks share every batch between them.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from core import randomness
from core.distributed import World
from core.errors import RunError, UserError
from core.seeds import sample_generator
from core.worker_watch import WorkerWatch

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
_WORKER_TIMEOUT_SECONDS = 120


class Loader(Protocol[B_co]):
    """What the training loop needs of a loader."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[B_co]:
        """The batches of an epoch from number `start` on."""


@dataclass(frozen=True)
class Order:
    """Which samples are in which batch, and which of a batch are this rank's.

    batch_size: samples of a batch over all ranks. Training shuffles by (seed, epoch) and leaves out the last,
    partial batch, other samples each epoch; evaluation takes every sample once.
    """

    num_samples: int
    batch_size: int
    seed: int = 0
    training: bool = True
    world: World = World()

    def __post_init__(self) -> None:
        if self.training and self.num_samples < self.batch_size:
            raise UserError(
                "a batch is larger than the training data",
                f"--batch-size {self.batch_size}, {self.num_samples} samples",
                f"give at most {self.num_samples}",
            )
        if self.training and self.batch_size % self.world.size:
            raise UserError(
                "a batch does not divide among the ranks",
                f"--batch-size {self.batch_size}, {self.world.size} ranks",
                "give a multiple of the number of ranks",
            )

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.training)

    def indices(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """This rank's samples of each batch from number `start` on; int64, on the CPU; none is empty."""
        everything = torch.arange(self.num_samples)
        if self.training:
            everything = randomness.permutation(self.seed, epoch, self.num_samples)
        for batch in torch.split(everything, self.batch_size)[start : len(self)]:
            mine = batch[self.world.rank :: self.world.size] if self.world.size > 1 else batch
            if len(mine):
                yield mine


class BatchLoader(Generic[B]):
    """Batches made whole from the indices of their samples: `make_batch(indices, epoch)`, indices int64 [N]."""

    def __init__(self, make_batch: Callable[[Tensor, int], B], order: Order) -> None:
        self.make_batch, self.order = make_batch, order

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[B]:
        """The batches of an epoch from number `start` on."""
        for indices in self.order.indices(epoch, start):
            yield self.make_batch(indices, epoch)


class MappedLoader(Generic[B]):
    """Another loader's batches, each put through `finish(batch, epoch)`."""

    def __init__(self, loader: Loader[Any], finish: Callable[[Any, int], B]) -> None:
        self.loader, self.finish = loader, finish

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[B]:
        """The batches of an epoch from number `start` on."""
        for batch in self.loader.batches(epoch, start):
            yield self.finish(batch, epoch)


class Source(Protocol):
    """Samples that are loaded one by one."""

    def __len__(self) -> int:
        """Number of samples."""

    def load(self, index: int, random: np.random.Generator) -> Any:
        """A sample; `random` is this sample's own in this epoch."""

    def name(self, index: int) -> str:
        """What a message calls the sample, such as its path."""


class StreamLoader:
    """Batches of samples that `workers` processes load and decode.

    A sample that cannot be loaded, a worker that dies, and one that gives no batch for `timeout_seconds` raise RunError
    by name.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        *,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] = default_collate,
        pin_memory: bool = False,
        timeout_seconds: float = _WORKER_TIMEOUT_SECONDS,
    ) -> None:
        self.source, self.order, self.workers = source, order, workers
        self.collate, self.pin_memory, self.timeout_seconds = collate, pin_memory, timeout_seconds

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from number `start` on."""
        loader: DataLoader[Any] = DataLoader(
            _Samples(self.source, self.order.seed, epoch),
            batch_sampler=[indices.tolist() for indices in self.order.indices(epoch, start)],
            num_workers=self.workers,
            collate_fn=_Collate(self.collate),
            pin_memory=self.pin_memory,
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(0),  # the global generator must not notice a new iterator
        )
        iterator: Any = iter(loader)
        with WorkerWatch(getattr(iterator, "_workers", []), self.timeout_seconds) as watch:
            try:
                while True:
                    try:
                        with watch.waiting():
                            batch = next(iterator)
                    except StopIteration:
                        return
                    except (RuntimeError, OSError, EOFError) as error:
                        raise self._named(error, watch) from error
                    if isinstance(batch, _Fault):
                        where = f"{self.source.name(batch.index)} ({batch.message})"
                        raise RunError("a data worker failed", where, "look at this sample, or leave it out")
                    yield batch
            finally:
                if self.workers:
                    watch.kill()  # where the epoch was left early: torch would wait seconds for each that is stopped
                    with suppress(RuntimeError):  # a dead worker's signal must not strike somewhere else
                        iterator._shutdown_workers()

    def _named(self, error: Exception, watch: WorkerWatch) -> Exception:
        """The error of a failing, dead or hanging worker in words; any other as it is."""
        if watch.has_fired:
            limit = f"no batch for {self.timeout_seconds:g} seconds"
            return RunError("a data worker hangs", limit, "look at the disk, or try --workers 0")
        text = str(error)
        reason = (text.strip() or "its connection broke").splitlines()[-1]
        if not self.workers:
            return error
        if "shared memory" in text or "/torch_" in text:
            return RunError(
                "the data workers lack shared memory", reason, "/dev/shm is small: enlarge it, or give --workers 0"
            )
        if text.startswith("Caught "):  # an error of collate, with its traceback
            return RunError("a data worker failed", reason, "run again with --workers 0 --debug for the traceback")
        if "DataLoader worker" in text or isinstance(error, OSError | EOFError):
            return RunError("a data worker died", reason, "try fewer --workers; memory may be short")
        return error


@dataclass(frozen=True)
class _Fault:
    """A sample that could not be loaded, on its way from a worker to the training process."""

    index: int
    message: str


class _Samples(Dataset[Any]):
    """A source's samples in one epoch, as torch's DataLoader wants them."""

    def __init__(self, source: Source, seed: int, epoch: int) -> None:
        self.source, self.seed, self.epoch = source, seed, epoch

    def __getitem__(self, index: int) -> Any:
        random = sample_generator(self.seed, self.epoch, index, "sample")
        try:
            return self.source.load(index, random)
        except Exception as error:  # whatever a decoder raises becomes one line that names the sample
            return _Fault(index, f"{type(error).__name__}: {error}")


class _Collate:
    """Collates good samples; hands a fault through. A class, because workers may have to pickle it."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        fault = next((sample for sample in samples if isinstance(sample, _Fault)), None)
        return fault if fault is not None else self.collate(list(samples))


def _start_worker(number: int) -> None:
    """Leaves signals to the training process, which saves first and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives a killed training
