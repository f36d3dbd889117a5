"""The operations in plain PyTorch: they run on every device, can be traced, and are what kernels are tested against.

Derivatives are written out as well, for the registered operators. Focal loss: Lin et al. 2017,
https://arxiv.org/abs/1708.02002. Instance normalization: Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_BACKGROUND, IGNORED = -1, -2  # labels of the focal loss beside the classes


def augment(images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """See cuda_ext.augment."""
    height, width = images.shape[1:3]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    top, left, flip, cut_row, cut_column = params.unbind(1)
    y = _reflect(top[:, None] + rows[None] - padding, height)
    across = torch.where(flip[:, None] == 1, width - 1 - columns[None], columns[None])
    x = _reflect(left[:, None] + across - padding, width)
    pixels = images[indices[:, None, None], y[:, :, None], x[:, None, :]]
    result = _look_up(pixels, table)
    if cutout:
        near_row = _inside(rows[None] - cut_row[:, None], cutout)
        near_column = _inside(columns[None] - cut_column[:, None], cutout)
        result.masked_fill_((near_row[:, :, None] & near_column[:, None, :])[..., None], 0)
    return result.permute(0, 3, 1, 2)


def normalize(images: Tensor, table: Tensor) -> Tensor:
    """Looks up every byte in the table: uint8 [N, H, W, C] → [N, C, H, W] in channels_last, dtype of table [C, 256]."""
    return _look_up(images, table).permute(0, 3, 1, 2)


def lookup_table(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The table of `normalize` and `augment` for channels of these means and deviations, of values in [0, 1]:
    float32 [C, 256]."""
    values = torch.arange(256, dtype=torch.float32)[None] / 255
    return (values - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]


def _look_up(pixels: Tensor, table: Tensor) -> Tensor:
    """table[c, pixels[..., c]] for every pixel."""
    offsets = torch.arange(table.shape[0], device=pixels.device, dtype=torch.int32) * table.shape[1]
    return table.flatten().index_select(0, (pixels.to(torch.int32) + offsets).flatten()).view(pixels.shape)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside [0, size) reflected at the border pixel, which is not repeated."""
    position = position.abs()
    return torch.minimum(position, 2 * (size - 1) - position)


def _inside(offset: Tensor, side: int) -> Tensor:
    """Whether an offset from the center lies in a span of `side` pixels."""
    return (offset >= -(side // 2)) & (offset < side - side // 2)


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """See cuda_ext.sigmoid_focal_loss; logits [R, C]."""
    log_p, log_other, weight, _ = _focal_terms(logits, labels, alpha)
    return -(weight * torch.exp(gamma * log_other) * log_p).sum()


def sigmoid_focal_loss_backward(grad: Tensor, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The gradient of logits [R, C]; grad: a number, that of the loss."""
    log_p, log_other, weight, positive = _focal_terms(logits, labels, alpha)
    inner = torch.exp(log_other) - gamma * torch.exp(log_p) * log_p
    slope = grad * weight * torch.exp(gamma * log_other) * inner
    return torch.where(positive, -slope, slope).to(logits.dtype)


def _focal_terms(logits: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each logit: log(p) and log(1 - p), p the probability of what the label says; weight; whether the
    label is this class.

    (1 - p)^gamma is computed as exp(gamma · log(1 - p)), so that no finite logit gives an infinite value or NaN.
    """
    ignored = labels[:, None] == IGNORED
    positive = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    numbers = wide(logits).masked_fill(ignored, 0)
    z = torch.where(positive, numbers, -numbers)
    negative_weight, positive_weight = (1 - alpha, alpha) if alpha >= 0 else (1.0, 1.0)
    weight = torch.full_like(numbers, negative_weight).masked_fill(positive, positive_weight).masked_fill(ignored, 0)
    log_p = F.logsigmoid(z)
    return log_p, log_p - z, weight, positive


def instance_norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and mean and 1 / deviation [N, C], in float32 or float64. See cuda_ext.instance_norm_act."""
    mean = wide(x).mean((2, 3))
    centered = wide(x) - mean[..., None, None]
    rstd = torch.rsqrt(centered.square().mean((2, 3)) + eps)
    value = _affine(centered, rstd, weight, bias, residual)
    return (torch.relu(value) if relu else value).to(x.dtype), mean, rstd


def instance_norm_act_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and residual, and sums [N, 2, C]: of the gradient before ReLU, and of its product with x̂.

    The residual's is [0] where it is grad itself, without ReLU, or where there is no residual.
    """
    slope, centered = wide(grad), wide(x) - mean[..., None, None]
    if relu:
        slope = slope.masked_fill(_affine(centered, rstd, weight, bias, residual) <= 0, 0)
    normalized = centered * rstd[..., None, None]
    sums = torch.stack([slope.sum((2, 3)), (slope * normalized).sum((2, 3))], 1)
    means = sums[..., None, None] / (x.shape[2] * x.shape[3])
    scale = (rstd if weight is None else rstd * weight)[..., None, None]
    grad_x = scale * (slope - means[:, 0] - normalized * means[:, 1])
    grad_residual = slope.to(x.dtype) if residual is not None and relu else x.new_empty(0)
    return grad_x.to(x.dtype), grad_residual, sums


def _affine(
    centered: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    """The value before ReLU. centered: x - mean."""
    value = centered * (rstd if weight is None else rstd * weight)[..., None, None]
    if bias is not None:
        value = value + bias[..., None, None]
    return value if residual is None else value + residual


def pool_norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    gelu: bool,
    pool: bool,
) -> Tensor:
    """See cuda_ext.pool_norm_act; parameters and running averages in the dtype of computation."""
    pooled = wide(F.max_pool2d(x, 2) if pool else x)
    value = F.batch_norm(pooled, running_mean, running_var, weight, bias, training, momentum, eps)
    return (F.gelu(value) if gelu else F.relu(value)).to(x.dtype)


def crop_resize(
    pixels: Tensor,
    offsets: Tensor,
    sizes: Tensor,
    indices: Tensor,
    boxes: Tensor,
    flips: Tensor | None,
    colors: Tensor | None,
    erased: Tensor | None,
    table: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """See cuda_ext.crop_resize. One output after the other; waits for a GPU to know the sizes."""
    values = torch.zeros((len(indices), height, width, 3), device=pixels.device)
    seen = torch.zeros((len(indices), height, width), dtype=torch.bool, device=pixels.device)
    chosen = zip(offsets[indices].tolist(), sizes[indices].tolist(), boxes.tolist(), strict=True)
    for n, (start, (rows, columns), (left, top, right, bottom)) in enumerate(chosen):
        down, first, in_rows = _resize_weights(top, bottom, rows, height, pixels.device)
        across, before, in_columns = _resize_weights(left, right, columns, width, pixels.device)
        image = pixels[start : start + rows * columns * 3].view(rows, columns, 3)
        part = image[first : first + down.shape[1], before : before + across.shape[1]].float()
        values[n] = torch.einsum("yi,ijc,xj->yxc", down, part, across)
        seen[n] = in_rows[:, None] & in_columns
    if flips is not None:
        values = torch.where(flips[:, None, None, None], values.flip(2), values)
        seen = torch.where(flips[:, None, None], seen.flip(2), seen)
    if colors is not None:
        values = torch.einsum("ndc,nyxc->nyxd", colors[:, :, :3], values) + colors[:, None, None, :, 3]
    if erased is not None:
        left, top, right, bottom = erased[:, :, None, None].unbind(1)
        y, x = (torch.arange(size, device=pixels.device) for size in (height, width))
        seen &= ~((y[:, None] >= top) & (y[:, None] < bottom) & (x >= left) & (x < right))
    result = _look_up((values.clamp(0, 255) + 0.5).to(torch.uint8), table)
    return result.masked_fill_(~seen[..., None], 0).permute(0, 3, 1, 2)


def _resize_weights(low: float, high: float, size: int, num: int, device: torch.device) -> tuple[Tensor, int, Tensor]:
    """Weights of pixels in the outputs of an axis, [num, pixels]; the first pixel; which outputs lie in the image."""
    scale = (high - low) / num
    center = low + (torch.arange(num, dtype=torch.float64, device=device) + 0.5) * scale
    first, end = (int(min(max(position, 0), size)) for position in (math.floor(low), math.ceil(high)))
    position = torch.arange(first, end, device=device) + 0.5
    weights = (1 - (position - center[:, None]).abs() / max(scale, 1)).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
    return weights.float(), first, (center >= 0) & (center < size)


def wide(numbers: Tensor) -> Tensor:
    """Numbers in the dtype of computation: float64 for float64, else float32."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()
