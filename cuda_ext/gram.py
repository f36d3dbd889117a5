"""The Gram matrix of feature maps, and how a derivative is written by hand.

Autograd differentiates G = F Fᵀ / s operation by operation: two matrix products backward, the sum of their results, and
a division, each of which writes something of the size of F. By hand it is one product. A small change dF changes G by
(dF Fᵀ + F dFᵀ) / s, so the gradient of F is (D + Dᵀ) F / s, where D is that of G. Rules for such a function:

- what backward needs is passed to save_for_backward, inputs and outputs only, and not set on ctx: autograd then detects
  changes in place, and frees the memory;
- backward uses operations that have derivatives themselves, so that there is a second derivative;
- torch.autograd.gradcheck and gradgradcheck test it, in float64 (tests/cuda_ext/test_gram.py).

https://docs.pytorch.org/docs/stable/notes/extending.html. Gatys et al. 2016, "Image Style Transfer Using Convolutional
Neural Networks"; the division by C·H·W is that of Johnson et al. 2016, https://arxiv.org/abs/1603.08155.
"""

from typing import Any

import torch
from torch import Tensor


def gram_matrix(features: Tensor) -> Tensor:
    """Products of all pairs of channels, summed over all positions and divided by C·H·W: [N, C, H, W] → [N, C, C].

    Computed and returned in the dtype of features, within autocast too. Raises ValueError.
    """
    if features.dim() != 4 or not features.is_floating_point():
        raise ValueError(
            f"features: {features.dtype} {list(features.shape)}; must be [N, C, H, W] of a floating point dtype"
        )
    if features.shape[1:].numel() == 0:
        raise ValueError(f"features: {list(features.shape)}; C, H and W must be 1 or more")
    kind = features.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):  # a sum over all positions is too inexact in half precision
            return gram_matrix(features)
    result: Tensor = _GramMatrix.apply(features.flatten(2))
    return result


class _GramMatrix(torch.autograd.Function):
    """F Fᵀ / (C·P) for F [N, C, P]."""

    @staticmethod
    def forward(features: Tensor) -> Tensor:
        """The value."""
        return _scaled_product(features, features.mT, features)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """What backward needs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient of features, from that of the result, [N, C, C]."""
        (features,) = ctx.saved_tensors
        both = grad + grad.mT
        if features.stride(1) == 1:  # channels_last: the transposed product gives a gradient of the same layout
            return _scaled_product(features.mT, both, features).mT
        return _scaled_product(both, features, features)


def _scaled_product(left: Tensor, right: Tensor, features: Tensor) -> Tensor:
    """left @ right / (C·P), scaled before rounding, because a sum may be too large for float16."""
    scale = 1 / features.shape[1:].numel()
    return torch.baddbmm(features.new_zeros(()), left, right, beta=0, alpha=scale)
