"""The public operations: each checks its arguments and chooses the kernel or the plain reference.

While torch traces for compile and no compiled kernel is active on that device, and always while it traces for export,
the plain reference is called and becomes a part of the graph. Otherwise the registered operator is called, which runs
the compiled kernel where there is one, and the plain one elsewhere.
"""

import math

import torch
from torch import Tensor

from cuda_ext import reference, register
from cuda_ext.checks import HALF_OR_SINGLE, check_range, described, use_operator, values_are_known

_NUM_CHOICES = 5


def augment(images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """Gathers images, crops them (with reflected borders), flips, cuts out and normalizes, in one pass.

    images: uint8 [M, H, W, C], contiguous, the resident set. indices: int64 [N]. params: int64 [N, 5], the random
    choices: row and column of the crop in [0, 2·padding], flip in {0, 1}, row and column of the cutout's center in
    [0, H), [0, W). table: [C, 256], the normalized value of each byte in each channel; its dtype, any floating one, is
    the result's. padding < H, W. cutout: side of the square that is set to 0 (the mean), in pixels; 0 for none.
    Returns [N, C, H, W] in channels_last memory format. No derivative.
    Raises ValueError; on a GPU an index or a choice out of range fails as a device assertion.
    """
    _check_augment(images, indices, params, table, padding, cutout)
    if not use_operator(images.device):
        return reference.augment(images, indices, params, table, padding, cutout)
    operator = torch.ops.atelier.augment
    result: Tensor = operator(images, indices.contiguous(), params.contiguous(), table.contiguous(), padding, cutout)
    return result


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The sum of focal losses of independent classes: -(1 - p)^gamma · log(p), where p is the
    probability of the true answer, "is of this class" or "is not".

    logits: [..., C], float32, float16, bfloat16 (or float64, in plain PyTorch). labels: int64 [...], a class in [0, C),
    -1 for background (none of the classes), -2 for rows that are ignored. alpha: weight of the true class, 1 - alpha is
    that of the other classes; -1 for no weights. gamma ≥ 0.
    Returns a scalar in float32 (float64 for float64); it and its gradient are finite for all finite logits, and equal
    each time for the same input. Divide it by the number of objects. Autocast does not change dtypes: logits may be of
    half precision. Raises ValueError; on a GPU a label out of range fails as a device assertion.
    """
    _check_focal(logits, labels, alpha, gamma)
    logits, labels = logits.reshape(labels.numel(), logits.shape[-1]), labels.flatten()
    if logits.dtype == torch.float64 or not use_operator(logits.device):
        return reference.sigmoid_focal_loss(logits, labels, alpha, gamma)
    result: Tensor = register.FOCAL(logits.contiguous(), labels.contiguous(), alpha, gamma)
    return result


def instance_norm_act(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    """ReLU of (x - mean) / deviation · weight + bias + residual, statistics over each channel of each sample.

    x: [N, C, H, W] of two pixels or more, float32, float16, bfloat16 (or float64, in plain PyTorch), channels_last or
    contiguous; another layout is copied to one of the two. weight, bias: both or none; [C], or [N, C] for
    conditional normalization; float32, or converted to it. residual: like x, None for 0. relu: False for none.
    eps: > 0, added to the variance, which is divided by H·W.
    Returns x's shape, dtype and layout; computed in float32. Backward keeps x (and residual, where ReLU follows it) and
    N·C statistics; sums are equal each time for the same input. Autocast does not change dtypes: x may be of
    half precision with parameters in float32. Raises ValueError.
    """
    _check_norm(x, weight, bias, residual, eps)
    if x.dtype != torch.float64:
        weight, bias = None if weight is None else weight.float(), None if bias is None else bias.float()
    if x.dtype == torch.float64 or not use_operator(x.device):
        return reference.instance_norm_act(x, weight, bias, residual, relu, eps)[0]
    if not x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous(memory_format=torch.channels_last if x.stride(1) == 1 else torch.contiguous_format)
    y: Tensor = register.NORM(
        x,
        None if weight is None else weight.contiguous(),
        None if bias is None else bias.contiguous(),
        None if residual is None else residual.contiguous(memory_format=register.layout_of(x)),
        relu,
        eps,
    )[0]
    return y


def _check_augment(images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int) -> None:
    """Raises ValueError for arguments that augment does not take."""
    if images.dtype != torch.uint8 or images.dim() != 4 or 0 in images.shape[1:] or not images.is_contiguous():
        raise ValueError(f"images: {described(images)}; must be uint8 [M, H, W, C], contiguous")
    if images.shape[1:].numel() >= 2**30:
        raise ValueError(f"images: {described(images)}; one must have less than 2^30 numbers")
    if indices.dtype != torch.int64 or indices.dim() != 1:
        raise ValueError(f"indices: {described(indices)}; must be int64 [N]")
    num, height, width, channels = len(indices), *images.shape[1:]
    if params.dtype != torch.int64 or params.shape != (num, _NUM_CHOICES):
        raise ValueError(f"params: {described(params)}; must be int64 [{num}, {_NUM_CHOICES}], a row for each index")
    if not table.is_floating_point() or table.shape != (channels, 256) or table.itemsize not in (2, 4, 8):
        raise ValueError(f"table: {described(table)}; must be floating point [{channels}, 256]")
    if table.requires_grad:
        raise ValueError("table: requires a gradient; augment has no derivative")
    if not 0 <= padding < min(height, width):
        raise ValueError(f"padding: {padding}; must be from 0 to {min(height, width) - 1}, below height and width")
    if not 0 <= cutout < 2**31:
        raise ValueError(f"cutout: {cutout}; must be from 0 to {2**31 - 1}")
    for name, other in (("indices", indices), ("params", params), ("table", table)):
        if other.device != images.device:
            raise ValueError(f"{name}: on {other.device}; must be on {images.device}, where images are")
    if values_are_known(images):
        check_range("indices", indices, len(images))
        for name, column, high in zip(
            ("row of the crop", "column of the crop", "flip", "row of the cutout", "column of the cutout"),
            params.unbind(1),
            (2 * padding + 1, 2 * padding + 1, 2, height, width),
            strict=True,
        ):
            check_range(f"params, {name}", column, high)


def _check_focal(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> None:
    """Raises ValueError for arguments that sigmoid_focal_loss does not take."""
    if logits.dim() == 0 or logits.dtype not in (*HALF_OR_SINGLE, torch.float64):
        raise ValueError(f"logits: {described(logits)}; must be float [..., C]")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels: {described(labels)}; must be int64 {list(logits.shape[:-1])}, one for each row")
    if labels.device != logits.device:
        raise ValueError(f"labels: on {labels.device}; must be on {logits.device}, where logits are")
    if not (alpha == -1 or 0 <= alpha <= 1):
        raise ValueError(f"alpha: {alpha}; must be from 0 to 1, or -1 for no weights")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma: {gamma}; must be 0 or more, and finite")
    if values_are_known(labels):
        check_range("labels", labels.flatten(), logits.shape[-1], low=reference.IGNORED)


def _check_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, eps: float) -> None:
    """Raises ValueError for arguments that instance_norm_act does not take."""
    if x.dim() != 4 or x.dtype not in (*HALF_OR_SINGLE, torch.float64):
        raise ValueError(f"x: {described(x)}; must be float [N, C, H, W]")
    if x.shape[2] * x.shape[3] < 2:
        raise ValueError(f"x: {described(x)}; must have two pixels or more, for a variance")
    if (weight is None) != (bias is None):
        raise ValueError("weight, bias: one of them alone; must be both or none")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is None:
            continue
        if not parameter.is_floating_point() or parameter.shape not in (x.shape[1:2], x.shape[:2]):
            raise ValueError(f"{name}: {described(parameter)}; must be float [{x.shape[1]}] or {list(x.shape[:2])}")
    if weight is not None and bias is not None and weight.dim() != bias.dim():
        raise ValueError(f"bias: {described(bias)}; must be of weight's shape, {list(weight.shape)}")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(f"residual: {described(residual)}; must be {described(x)}, like x")
    for name, other in (("weight", weight), ("bias", bias), ("residual", residual)):
        if other is not None and other.device != x.device:
            raise ValueError(f"{name}: on {other.device}; must be on {x.device}, where x is")
    if not 0 < eps < math.inf:
        raise ValueError(f"eps: {eps}; must be more than 0, and finite")
