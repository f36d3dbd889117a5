"""Registers the operators with torch: schema, plain kernel for every device, shapes, derivative.

Schemas are defined in Python, so that operators exist where nothing was compiled, and only once: a second definition in
a second library would end the process. Compiled libraries only add kernels, which replace the plain ones on a device.
https://docs.pytorch.org/tutorials/advanced/python_custom_ops.html
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from cuda_ext import pool_norm, reference, resize
from cuda_ext.autograd import Call, Differentiable

_SCHEMAS = (
    "augment(Tensor images, Tensor indices, Tensor params, Tensor table, int padding, int cutout) -> Tensor",
    "sigmoid_focal_loss(Tensor logits, Tensor labels, float alpha, float gamma) -> Tensor",
    "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor labels, float alpha, float gamma) -> Tensor",
    "instance_norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, bool relu, float eps)"
    " -> (Tensor y, Tensor mean, Tensor rstd)",
    "instance_norm_act_backward(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? bias,"
    " Tensor? residual, bool relu) -> (Tensor grad_x, Tensor grad_residual, Tensor sums)",
)


def define(namespace: str) -> Library:
    """Defines the operators in a namespace; they exist as long as the returned object."""
    library = Library(namespace, "DEF")
    for schema in _SCHEMAS:
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for name, plain, fake in (
        ("augment", augment, _fake_augment),
        ("sigmoid_focal_loss", _focal, _fake_focal),
        ("sigmoid_focal_loss_backward", _focal_backward, _fake_focal_backward),
        ("instance_norm_act", _norm, _fake_norm),
        ("instance_norm_act_backward", _norm_backward, _fake_norm_backward),
    ):
        library.impl(name, plain, "CompositeExplicitAutograd")
        register_fake(f"{namespace}::{name}", fake, lib=library)
    FOCAL.register(library, namespace)
    NORM.register(library, namespace)
    pool_norm.register(library, namespace)
    resize.register(library, namespace)
    for name in ("sigmoid_focal_loss", "instance_norm_act", "pool_norm_act"):
        register_autograd(f"{namespace}::{name}_backward", partial(_refuse, name), lib=library)
    return library


def _refuse(name: str, ctx: Any, *grads: Tensor) -> None:
    """Raises NotImplementedError for a second derivative."""
    raise NotImplementedError(f"{name}: there is no second derivative; use cuda_ext.reference for one")


def _assert_on_gpu(condition: Tensor, what: str) -> None:
    """A device assertion on a GPU that a condition holds everywhere; on a CPU the public function has checked it."""
    if condition.is_cuda:
        torch._assert_async(condition.all(), what)


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format of a tensor that has one of the two."""
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def augment(images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """Gathers, crops, flips, cuts out and normalizes."""
    _assert_on_gpu((indices >= 0) & (indices < len(images)), "augment: an index is out of range")
    _assert_on_gpu((params >= 0) & (params[:, :2] <= 2 * padding).all(), "augment: a parameter is out of range")
    return reference.augment(images, indices, params, table, padding, cutout)


def _fake_augment(images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """The result's shape."""
    shape = (indices.shape[0], images.shape[3], images.shape[1], images.shape[2])
    return torch.empty(shape, dtype=table.dtype, device=images.device, memory_format=torch.channels_last)


def _focal(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The sum."""
    valid = (labels >= reference.IGNORED) & (labels < logits.shape[1])
    _assert_on_gpu(valid, "sigmoid_focal_loss: a label is out of range")
    return reference.sigmoid_focal_loss(logits, labels, alpha, gamma)


def _fake_focal(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The result's shape."""
    return logits.new_empty((), dtype=torch.float32)


def _save_focal(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Saves what the derivative needs: the inputs."""
    logits, labels, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(logits, labels)


def _differentiate_focal(call: Call, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of all inputs."""
    logits, labels = ctx.saved_tensors
    return call("sigmoid_focal_loss_backward", grad, logits, labels, ctx.alpha, ctx.gamma), None, None, None


def _focal_backward(grad: Tensor, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The gradient of logits."""
    return reference.sigmoid_focal_loss_backward(grad, logits, labels, alpha, gamma)


def _fake_focal_backward(grad: Tensor, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The result's shape."""
    return logits.new_empty(logits.shape)


def _norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and its statistics for the derivative."""
    y, mean, rstd = reference.instance_norm_act(x, weight, bias, residual, relu, eps)
    return y.contiguous(memory_format=layout_of(x)), mean, rstd


def _fake_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The results' shapes."""
    statistics = [x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2)]
    return torch.empty_like(x, memory_format=layout_of(x)), statistics[0], statistics[1]


def _save_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Saves what the derivative needs; the value before ReLU is computed again."""
    x, weight, bias, residual, ctx.relu, _ = inputs
    _, mean, rstd = output
    ctx.has_residual = residual is not None
    ctx.save_for_backward(x, mean, rstd, weight, bias, residual if ctx.relu else None)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)


def _differentiate_norm(call: Call, ctx: Any, grad: Tensor, *unused: None) -> tuple[Tensor | None, ...]:
    """The gradients of all inputs."""
    x, mean, rstd, weight, bias, residual = ctx.saved_tensors
    dense = grad.contiguous(memory_format=layout_of(x))  # any strides can come here, expanded ones too
    grad_x, grad_residual, sums = call(
        "instance_norm_act_backward", dense, x, mean, rstd, weight, bias, residual, ctx.relu
    )
    grad_bias, grad_weight = (sums if weight is None or weight.dim() == 2 else sums.sum(0)).unbind(-2)
    if not ctx.has_residual:
        grad_residual = None
    elif not ctx.relu:
        grad_residual = grad
    if weight is None:
        return grad_x, None, None, grad_residual, None, None
    return grad_x, grad_weight, grad_bias, grad_residual, None, None


def _norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and residual, and the sums that are those of weight and bias."""
    grad_x, grad_residual, sums = reference.instance_norm_act_backward(
        grad, x, mean, rstd, weight, bias, residual, relu
    )
    if residual is not None and relu:
        grad_residual = grad_residual.contiguous(memory_format=layout_of(x))
    return grad_x.contiguous(memory_format=layout_of(x)), grad_residual, sums


def _fake_norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The results' shapes."""
    like_x = [torch.empty_like(x, memory_format=layout_of(x)) for _ in range(2)]
    grad_residual = like_x[1] if residual is not None and relu else x.new_empty(0)
    return like_x[0], grad_residual, x.new_empty((x.shape[0], 2, x.shape[1]), dtype=torch.float32)


FOCAL = Differentiable("sigmoid_focal_loss", _save_focal, _differentiate_focal)
NORM = Differentiable("instance_norm_act", _save_norm, _differentiate_norm)
_LIBRARY = define("atelier")
