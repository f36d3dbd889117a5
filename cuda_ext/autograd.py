"""Operators with derivatives, called in as little Python as there can be.

torch.library.register_autograd is what compilers need to see, but costs about 40 µs a call with its backward, more than
the kernels of a small layer. So outside of a trace a torch.autograd.Function calls the operator below autograd, with
the same two functions that are registered. https://docs.pytorch.org/docs/stable/notes/extending.html
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.library import Library, register_autograd

Call = Callable[..., Any]  # of an operator by its name


class Differentiable:
    """An operator and its derivative.

    save(ctx, inputs, output) keeps what differentiate(call, ctx, *grads) needs, which returns the gradients of all
    inputs and calls operators as call(name, *arguments).
    """

    def __init__(self, name: str, save: Callable[..., None], differentiate: Callable[..., Any]) -> None:
        class Direct(torch.autograd.Function):
            """The operator outside of a trace."""

            @staticmethod
            def forward(ctx: Any, *inputs: Any) -> Any:
                """The value."""
                output = _below_autograd(name, *inputs)
                save(ctx, inputs, output)
                return output

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                """The gradients of all inputs."""
                return differentiate(_below_autograd, ctx, *grads)

        self._name, self._save, self._differentiate, self._direct = name, save, differentiate, Direct

    def register(self, library: Library, namespace: str) -> None:
        """Registers the derivative with a namespace's operator."""
        operators = getattr(torch.ops, namespace)

        def call(name: str, *arguments: Any) -> Any:
            return getattr(operators, name)(*arguments)

        differentiate = partial(self._differentiate, call)
        register_autograd(f"{namespace}::{self._name}", differentiate, setup_context=self._save, lib=library)

    def __call__(self, *inputs: Any) -> Any:
        """Calls the operator."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return getattr(torch.ops.atelier, self._name)(*inputs)
        return self._direct.apply(*inputs)


def _below_autograd(name: str, *arguments: Any) -> Any:
    """Calls an operator; its own derivative is only in the way, unless a graph of the backward pass is made."""
    operator = getattr(torch.ops.atelier, name)
    if torch.is_grad_enabled():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator.default(*arguments)
