"""What the public operations share: the choice between kernel and reference, and checks of their arguments."""

import torch
from torch import Tensor

from cuda_ext import build

HALF_OR_SINGLE = (torch.float32, torch.float16, torch.bfloat16)


def has_kernel(device: torch.device) -> bool:
    """Whether a compiled kernel is to be called; the first call outside of a trace builds or loads it."""
    if not torch.compiler.is_compiling():
        return build.ensure(device.type)
    return build.is_active(device.type) and not torch.compiler.is_exporting()


def use_operator(device: torch.device) -> bool:
    """Whether to call the registered operator; the first call outside of a trace builds or loads its kernels."""
    return has_kernel(device) or not torch.compiler.is_compiling()


def described(tensor: Tensor) -> str:
    """A tensor's dtype, shape, and strides where they are unusual."""
    strides = "" if tensor.is_contiguous() else f" with strides {list(tensor.stride())}"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}{strides}"


def values_are_known(tensor: Tensor) -> bool:
    """Whether values can be checked without waiting for a device."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_range(name: str, numbers: Tensor, high: int, low: int = 0) -> None:
    """Raises ValueError for integers outside [low, high)."""
    if not len(numbers):
        return
    least, most = (int(number) for number in torch.aminmax(numbers))
    if least < low or most >= high:
        raise ValueError(f"{name}: {least if least < low else most}; must be from {low} to {high - 1}")
