"""Muon, an optimizer for matrices and filters."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Muon(Optimizer):
    """Momentum whose matrix is made orthogonal before it is applied: Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon. Filters [out, in, h, w] count as matrices [out, in × h × w].

    Weights of one shape are treated as one batch, because a network has many small ones. torch.optim.Muon takes plain
    matrices only. weight_decay is decoupled, as in AdamW. match_adam: moves as large as Adam's, so that one learning
    rate suits both (Liu et al. 2025, arXiv 2502.16982, section 2.2). fixed_norm: each weight is scaled to the norm of
    an orthogonal matrix, √out, before it moves, for layers with a norm behind them, where only the direction of a
    weight counts; lr is then about the share of it that a step renews (Jordan's airbench94_muon,
    https://github.com/KellerJordan/cifar10-airbench). A step with the attribute found_inf, a tensor on the device,
    changes nothing where that is 1, as with torch's fused optimizers.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        match_adam: bool = False,
        fixed_norm: bool = False,
    ) -> None:
        self._match_adam, self._fixed_norm = match_adam, fixed_norm
        params = list(params)
        if flat := [tuple(p.shape) for p in params if p.ndim < 2]:
            raise ValueError(f"Muon takes matrices and filters, not {flat[0]}; give these to another optimizer")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all weights that have a gradient. closure: not supported."""
        if closure is not None:
            raise ValueError("a closure; Muon takes none")
        for group in self.param_groups:
            by_shape: dict[tuple[Any, ...], list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault((weight.shape, weight.device, weight.dtype), []).append(weight)
            for weights in by_shape.values():
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: Mapping[str, Any]) -> None:
        """Moves weights of one shape."""
        gradients = torch.stack([w.grad for w in weights if w.grad is not None])
        buffers = [self.state[w].setdefault("momentum_buffer", torch.zeros_like(w)) for w in weights]
        old = torch.stack(buffers)
        momenta = old * group["momentum"] + gradients
        ahead = momenta * group["momentum"] + gradients  # Nesterov's momentum
        directions = orthogonalized(ahead.flatten(2))
        rows, columns = directions.shape[1:]
        # A tall matrix of orthonormal columns has shorter rows than a square one; this evens them out.
        scale = 0.2 * max(rows, columns) ** 0.5 if self._match_adam else max(1.0, rows / columns) ** 0.5
        moves = directions.view_as(ahead) * (scale * group["lr"])
        keep = torch.ones(len(weights), device=moves.device) - group["lr"] * group["weight_decay"]
        if self._fixed_norm:
            keep = keep * rows**0.5 / torch.stack(torch._foreach_norm(weights))
        if self.found_inf is not None:
            is_bad = self.found_inf.bool()
            momenta, moves = torch.where(is_bad, old, momenta), moves.masked_fill(is_bad, 0)
            keep = torch.where(is_bad, 1.0, keep)
        torch._foreach_copy_(buffers, list(momenta))
        torch._foreach_mul_(weights, list(keep))
        torch._foreach_sub_(weights, list(moves))


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest orthogonal matrices, roughly: singular values of 0.7 to 1.2 in place of the given ones.

    matrices: [N, rows, columns]; bfloat16 is enough on a GPU. A Newton-Schulz iteration whose coefficients Jordan chose
    so that small singular values grow fastest.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x.mT if matrices.shape[1] > matrices.shape[2] else x  # the smaller square product
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    x = x.mT if matrices.shape[1] > matrices.shape[2] else x
    result: Tensor = x.to(matrices.dtype)
    return result
