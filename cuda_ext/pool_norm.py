"""Max pooling, batch normalization and activation as one operation: what stands between two convolutions.

Batch normalization: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167. GELU: Hendrycks and Gimpel 2016,
https://arxiv.org/abs/1606.08415. Where there is no compiled kernel, torch's own operations compute it one by one.
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.library import Library, register_fake

from cuda_ext import reference
from cuda_ext.autograd import Call, Differentiable
from cuda_ext.checks import HALF_OR_SINGLE, described, has_kernel

Activation = Literal["gelu", "relu"]
_SCHEMAS = (
    "pool_norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training,"
    " float eps, bool gelu, bool pool, bool keep) -> (Tensor y, Tensor pooled, Tensor codes, Tensor statistics)",
    "pool_norm_act_backward(Tensor grad, Tensor pooled, Tensor codes, Tensor statistics, Tensor? weight, Tensor? bias,"
    " int height, int width, bool training, bool gelu, bool pool) -> (Tensor grad_x, Tensor sums)",
)


def pool_norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: Activation = "gelu",
    pool: bool = True,
) -> Tensor:
    """GELU or ReLU of batch normalization of 2×2 max pooling: [N, C, H, W] → [N, C, H // 2, W // 2].

    x: float32, float16, bfloat16 (or float64, in plain PyTorch); channels_last, other layouts are copied to it.
    weight, bias: [C], None for 1 and 0; converted to float32. running_mean, running_var: [C], float32 (float64
    for such an x). training: normalizes with mean and variance of this batch, and moves the running averages, unless
    they are None, by the share `momentum` towards its mean and unbiased variance, as nn.BatchNorm2d does; otherwise
    normalizes with the running averages. eps: > 0, added to the variance. activation: "gelu", the exact one that is
    torch's default, or "relu". pool: False for none, [N, C, H, W] → [N, C, H, W].
    Of equal maxima the first gets the gradient, and NaN is larger than all numbers, as in torch.
    Returns x's dtype and layout; computed in float32, rounded once. Backward keeps the pooled x, two bits for each of
    its numbers, and 3·C statistics (without pooling: x and the statistics); sums are equal each time for the same
    input. Nothing waits for the device, so a CUDA graph can hold it. Autocast changes no dtypes. Raises ValueError.
    """
    _check(x, weight, bias, running_mean, running_var, training, momentum, eps, activation, pool)
    gelu, computed = activation == "gelu", torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if part is None else part.to(computed) for part in (weight, bias))
    if computed == torch.float64 or not has_kernel(x.device):
        return reference.pool_norm_act(x, weight, bias, running_mean, running_var, training, momentum, eps, gelu, pool)
    keep = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, weight, bias))
    known_mean, known_var = (None, None) if training else (running_mean, running_var)
    y: Tensor
    y, _, _, statistics = _OPERATOR(
        x.contiguous(memory_format=torch.channels_last),
        weight,
        bias,
        known_mean,
        known_var,
        training,
        eps,
        gelu,
        pool,
        keep,
    )
    if training and running_mean is not None and running_var is not None:
        torch._foreach_lerp_([running_mean, running_var], [statistics[0], statistics[2]], momentum)
    return y if x.is_contiguous(memory_format=torch.channels_last) or not x.is_contiguous() else y.contiguous()


def _check(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    activation: str,
    pool: bool,
) -> None:
    """Raises ValueError for arguments that pool_norm_act does not take."""
    if x.dim() != 4 or x.dtype not in (*HALF_OR_SINGLE, torch.float64):
        raise ValueError(f"x: {described(x)}; must be float [N, C, H, W]")
    num, channels, height, width = x.shape
    if pool and min(height, width) < 2:
        raise ValueError(f"x: {described(x)}; must have two rows and two columns or more, to be pooled")
    if num * height * width >= 2**31:
        raise ValueError(f"x: {described(x)}; must have less than 2^31 pixels")
    if training and num * (height // 2 * (width // 2) if pool else height * width) < 2:
        raise ValueError(f"x: {described(x)}; must have two values or more for each channel, for a variance")
    known = torch.promote_types(x.dtype, torch.float32)
    for name, part in (
        ("weight", weight),
        ("bias", bias),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if part is None:
            continue
        if part.shape != (channels,) or not part.is_floating_point() or not part.is_contiguous():
            raise ValueError(f"{name}: {described(part)}; must be float [{channels}], contiguous")
        if name.startswith("running") and part.dtype != known:
            raise ValueError(f"{name}: {described(part)}; must be {str(known).removeprefix('torch.')} [{channels}]")
        if part.device != x.device:
            raise ValueError(f"{name}: on {part.device}; must be on {x.device}, where x is")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean, running_var: one of them alone; must be both or none")
    if not training and running_mean is None:
        raise ValueError("running_mean: None; must be there where training is False")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum: {momentum}; must be from 0 to 1")
    if not 0 < eps < math.inf:
        raise ValueError(f"eps: {eps}; must be more than 0, and finite")
    if activation not in get_args(Activation):
        raise ValueError(f"activation: {activation!r}; choose from {', '.join(get_args(Activation))}")


def register(library: Library, namespace: str) -> None:
    """Adds the operator to a namespace: schema, shapes and derivative. Without a library it has no kernel."""
    for schema in _SCHEMAS:
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    register_fake(f"{namespace}::pool_norm_act", _fake, lib=library)
    register_fake(f"{namespace}::pool_norm_act_backward", _fake_backward, lib=library)
    _OPERATOR.register(library, namespace)


def _images(like: Tensor, height: int, width: int) -> Tensor:
    """An empty result."""
    shape = (*like.shape[:2], height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _fake(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    eps: float,
    gelu: bool,
    pool: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The results' shapes."""
    num, channels, height, width = x.shape
    if pool:
        height, width = height // 2, width // 2
    stores = pool and (training or keep)
    num_bytes = num * height * width * ((channels + 3) // 4) if stores else 0
    return (
        _images(x, height, width),
        _images(x, height, width) if stores else x.new_empty(0),
        x.new_empty(num_bytes, dtype=torch.uint8),
        x.new_empty((3, channels), dtype=torch.float32),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Saves what the derivative needs; the value before the activation is computed again."""
    x, weight, bias, _, _, ctx.training, _, ctx.gelu, ctx.pool, keep = inputs
    _, pooled, codes, statistics = output
    ctx.size, ctx.is_complete = x.shape[2:], ctx.training or keep or not ctx.pool
    ctx.save_for_backward(pooled if ctx.pool else x, codes, statistics, weight, bias)
    ctx.mark_non_differentiable(pooled, codes, statistics)
    ctx.set_materialize_grads(False)


def _differentiate(call: Call, ctx: Any, grad: Tensor, *unused: None) -> tuple[Tensor | None, ...]:
    """The gradients of all inputs."""
    if not ctx.is_complete:
        raise RuntimeError("pool_norm_act: called with keep=False, so there is no derivative")
    if torch.is_grad_enabled():  # with create_graph=True; the pooled x that was kept would count as a constant
        raise NotImplementedError("pool_norm_act: there is no second derivative; use cuda_ext.reference for one")
    pooled, codes, statistics, weight, bias = ctx.saved_tensors
    grad_x, sums = call(
        "pool_norm_act_backward",
        grad.contiguous(memory_format=torch.channels_last),
        pooled,
        codes,
        statistics,
        weight,
        bias,
        *ctx.size,
        ctx.training,
        ctx.gelu,
        ctx.pool,
    )
    grad_bias, grad_weight = sums.unbind(0)
    return grad_x, None if weight is None else grad_weight, None if bias is None else grad_bias, *[None] * 7


def _fake_backward(
    grad: Tensor,
    pooled: Tensor,
    codes: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    height: int,
    width: int,
    training: bool,
    gelu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    """The results' shapes."""
    return _images(pooled, height, width), pooled.new_empty((2, pooled.shape[1]), dtype=torch.float32)


_OPERATOR = Differentiable("pool_norm_act", _save, _differentiate)
