"""A CUDA graph's rules on the CPU: the operations of a call are recorded with their numbers and tensors, and replayed.

What Python would do between them is not done again, so a number that the host changes from step to step stays as it was
at the capture, and a test that compares with ordinary steps fails. What a capture forbids raises here too.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from core import step_graphs, step_update

# A look at a number, a shape that depends on numbers, and a tensor made from the host's numbers.
_FORBIDDEN = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::lift_fresh", "aten::equal"}
Operation = tuple[Any, tuple[Any, ...], dict[str, Any], Any]


class _Recorder(TorchDispatchMode):
    """Does operations, notes them, and keeps what each tensor was that came from outside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self._known: set[int] = set()  # of tensors whose numbers are kept, or made by the recorded work
        self._kept: list[Any] = []  # so that no other tensor gets their id

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Called by torch for each operation."""
        if func._schema.name in _FORBIDDEN:
            raise RuntimeError(f"{func._schema.name} is not permitted while a stream is captured")
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):  # also what no schema says is written, such as running statistics
            if isinstance(tensor, Tensor) and id(tensor) not in self._known:
                self.before.append((tensor, tensor.clone()))
                self._known.add(id(tensor))
        result = func(*args, **kwargs)
        self._known.update(id(tensor) for tensor in tree_leaves(result))
        if torch.Tag.inplace_view not in func.tags:  # transpose_ changes a tensor's shape for good, and no memory
            aliases = tree_map(lambda each: each.detach() if isinstance(each, Tensor) else each, result)
            self.operations.append((func, args, kwargs, aliases))
            self._kept.append(result)
        return result


def capture(work: Callable[[], Any]) -> Callable[[], None]:
    """Records what a call does without a lasting effect; the result does it."""
    random = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch, _Recorder() as recorder:
        for module in ("ops", "resize"):  # operations look at the values of their arguments on a CPU only
            patch.setattr(f"cuda_ext.{module}.values_are_known", lambda tensor: False)
        work()
    torch.set_rng_state(random)
    with torch.no_grad():
        for tensor, old in reversed(recorder.before):
            tensor.copy_(old)
    return lambda: _replay(recorder.operations)


def training(main: Callable[[list[str]], None], *, replays: bool) -> Callable[[list[str]], None]:
    """A train program as a GPU runs it, whose updates never look at a number, for a child process of its own.

    replays: steps are captured, at least one of them, and replayed.
    """

    def run(argv: list[str]) -> None:
        made: list[step_graphs.StepGraphs[Any]] = []

        def graphs(train_step: Any, accelerator: Any, state: Any, key: Any, **modes: Any) -> Any:
            accelerator.keeps_gradients = replays and modes["accumulates"]
            made.append(step_graphs.StepGraphs(train_step, accelerator, key if replays else None, capture))
            return made[0], None

        def update(*args: Any, **rest: Any) -> step_update.StepUpdate:
            return step_update.StepUpdate(*args, **{**rest, "looks_at_once": False})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("core.accelerator.StepUpdate", update)
            patch.setattr("core.trainer.step_graphs", graphs)
            main(argv)
        assert bool(made[0].num_graphs) == replays

    return run


def _replay(operations: list[Operation]) -> None:
    """Does recorded operations again, each with the tensors of the recording. Gradients are on, as they were, because
    oneDNN's LSTM keeps what its backward pass reads only then; but no graph of them is built."""
    with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():
        for func, args, kwargs, result in operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
