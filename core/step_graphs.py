"""Train steps as CUDA graphs: the work of a whole step is recorded once and then started with a single call.

A step of a small network is hundreds of kernels of a few microseconds each, and Python needs longer to start them than
a GPU to run them. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs says what a graph can hold: no look
at a number, the same shapes, and nothing that the host changes from step to step but the content of tensors.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_flatten, tree_unflatten

from core.accelerator import Accelerator
from core.errors import RunError
from core.host_work import Noted
from core.training_state import Stateful

B = TypeVar("B")
Metrics = Mapping[str, Tensor]
Work = Callable[[], Any]
Capture = Callable[[Work], Work]  # records the work of a call, and gives what does it again
WARMUP_STEPS = 3  # ordinary steps before a capture: they choose algorithms and make the optimizer's buffers
MAX_GRAPHS = 8  # of one training; further steps are ordinary


class _Captured(NamedTuple):
    """A recorded step. inputs: the tensors that it reads its batch from. packed: float32 [number of metrics], which it
    writes. metrics, norms: the names, and the optimizers' ids, of those."""

    inputs: list[Tensor]
    replay: Work
    host: Noted
    packed: Tensor
    metrics: list[str]
    norms: list[int]


class StepGraphs(Generic[B]):
    """Calls a train step, or replays what it does.

    key: names the work of the next step. Steps with one key and one shape of batch do the same, and become one graph
    after a few ordinary ones; the rest are ordinary. None: no step can be captured. capture: how work is recorded.
    """

    def __init__(
        self,
        train_step: Callable[[B], Metrics],
        accelerator: Accelerator,
        key: Callable[[], Hashable] | None,
        capture: Capture | None = None,
    ) -> None:
        self._train_step, self._accelerator, self._key = train_step, accelerator, key
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Captured] = {}
        self._stream = torch.cuda.Stream(accelerator.device) if key is not None and capture is None else None
        # One pool of memory for all graphs: they run one after another, and what a step gives is copied at once.
        self._pool = torch.cuda.graph_pool_handle() if self._stream is not None else None
        self._capture = self._capture_on_gpu if capture is None else capture
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Work that is to be captured cannot be on the default stream; everything in between goes to another."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
            self._stack.enter_context(torch.cuda.stream(self._stream))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)

    @property
    def num_graphs(self) -> int:
        """How many different steps have been captured."""
        return len(self._graphs)

    def __call__(self, batch: B) -> Metrics:
        """The train step's metrics."""
        if self._key is None:
            return self._train_step(batch)
        leaves, structure = tree_flatten(batch)
        shapes = [(leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        name = (self._key(), self._accelerator.window, str(structure), *shapes)
        if name not in self._graphs:
            self._seen[name] += 1
            if self._seen[name] <= WARMUP_STEPS or len(self._graphs) == MAX_GRAPHS:
                return self._train_step(batch)
            self._graphs[name] = self._captured(leaves, structure)
        return self._replayed(self._graphs[name], leaves)

    def _captured(self, leaves: list[Any], structure: Any) -> _Captured:
        """Records a step. Raises RunError where it does what a graph cannot hold."""
        fixed = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        batch, update = tree_unflatten(fixed, structure), self._accelerator.update
        found: dict[str, Any] = {}

        def work() -> None:
            metrics = self._train_step(batch)
            norms = update.take_gradient_norms()
            found["packed"] = torch.stack([value.detach().float() for value in (*metrics.values(), *norms.values())])
            found["metrics"], found["norms"] = list(metrics), list(norms)

        try:
            with update.host.noting() as host:
                replay = self._capture(work)
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            todo = "resume with --graph no; if you changed the train step, see core/step_graphs.py"
            raise RunError("the train step cannot be captured as a CUDA graph", reason, todo) from error
        inputs = [leaf for leaf in fixed if isinstance(leaf, Tensor)]
        return _Captured(inputs, replay, host, found["packed"], found["metrics"], found["norms"])

    def _replayed(self, captured: _Captured, leaves: list[Any]) -> Metrics:
        """Does a recorded step with another batch."""
        for fixed, leaf in zip(captured.inputs, (each for each in leaves if isinstance(each, Tensor)), strict=True):
            fixed.copy_(leaf)
        for action in captured.host.before:
            action()
        captured.replay()
        for action in captured.host.after:
            action()
        values = captured.packed.clone().unbind()  # the next replay writes to the same place
        num = len(captured.metrics)
        self._accelerator.update.put_gradient_norms(dict(zip(captured.norms, values[num:], strict=True)))
        return dict(zip(captured.metrics, values[:num], strict=True))

    def _capture_on_gpu(self, work: Work) -> Work:
        """A CUDA graph of the work. Threads that pin memory may go on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        recording: AbstractContextManager[None] = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with recording:
            work()
        replay: Work = graph.replay
        return replay


def _why_not_captured(
    accelerator: Accelerator, state: Mapping[str, Stateful], key: Callable[[], Hashable] | None, *, profiles: bool
) -> str | None:
    """The reason why the steps of a training cannot be captured; None where they can."""
    if accelerator.device.type != "cuda":
        return "only a GPU has graphs"
    if accelerator.world.size > 1:
        return "several ranks exchange gradients in between"
    if profiles:
        return "--profile tells the phases of ordinary steps"
    if key is None:
        return "this project's steps differ from each other, or look at a number"
    optimizers = [thing for thing in state.values() if isinstance(thing, Optimizer)]
    if other := [type(each).__name__ for each in optimizers if not accelerator.update.is_gated(each)]:
        return f"{other[0]} cannot skip a bad gradient by itself; use one with fused=True"
    return None


def step_graphs(
    train_step: Callable[[B], Metrics],
    accelerator: Accelerator,
    state: Mapping[str, Stateful],
    key: Callable[[], Hashable] | None,
    *,
    mode: str,
    accumulates: bool,
    profiles: bool,
) -> tuple[StepGraphs[B], str | None]:
    """How --graph `mode` does train steps, and a note where they are ordinary on a GPU though auto was given.

    Raises RunError for "yes" where it cannot be.
    """
    reason = "--graph no" if mode == "no" else _why_not_captured(accelerator, state, key, profiles=profiles)
    if mode == "yes" and reason is not None:
        todo = "resume with --graph auto"
        raise RunError("train steps cannot be captured as CUDA graphs", f"--graph yes: {reason}", todo)
    accelerator.keeps_gradients = reason is None and accumulates  # a window's batches are several graphs
    note = mode == "auto" and reason is not None and accelerator.device.type == "cuda"
    return StepGraphs(train_step, accelerator, None if reason else key), reason if note else None
