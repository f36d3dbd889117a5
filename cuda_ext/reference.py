"""The operations in plain PyTorch: they run on every device, and are what a kernel has to equal."""

import torch
from torch import Tensor


def augment(images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """Gathers images and crops (from reflected borders), flips, cuts out and normalises them, in one pass.

    images: uint8 [M, H, W, C], the resident set. indices: int64 [N]. params: int64 [N, 5], the random choices: row
    and column of the crop in [0, 2·padding], flip in {0, 1}, row and column of the cutout's centre in [0, H), [0, W).
    table: [C, 256], the normalised value of each byte in each channel; its dtype is the result's. padding < H, W.
    cutout: side of the square that is set to 0 (the mean), in pixels; 0 for none.
    Returns [N, C, H, W] in channels_last memory format.
    """
    height, width = images.shape[1:3]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    top, left, flip, cut_row, cut_column = params.unbind(1)
    y = reflect(top[:, None] + rows[None] - padding, height)
    across = torch.where(flip[:, None] == 1, width - 1 - columns[None], columns[None])
    x = reflect(left[:, None] + across - padding, width)
    pixels = images[indices[:, None, None], y[:, :, None], x[:, None, :]]
    result = look_up(pixels, table)
    if cutout:
        near_row = inside(rows[None] - cut_row[:, None], cutout)
        near_column = inside(columns[None] - cut_column[:, None], cutout)
        result.masked_fill_((near_row[:, :, None] & near_column[:, None, :])[..., None], 0)
    return result.permute(0, 3, 1, 2)


def normalise(images: Tensor, table: Tensor) -> Tensor:
    """Images through the table: uint8 [N, H, W, C] → [N, C, H, W] in channels_last, dtype of table [C, 256]."""
    return look_up(images, table).permute(0, 3, 1, 2)


def look_up(pixels: Tensor, table: Tensor) -> Tensor:
    """table[c, pixels[..., c]] for every pixel."""
    offsets = torch.arange(table.shape[0], device=pixels.device, dtype=torch.int32) * table.shape[1]
    return table.flatten().index_select(0, (pixels.to(torch.int32) + offsets).flatten()).view(pixels.shape)


def reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside [0, size) mirrored at the border pixel, which is not repeated."""
    position = position.abs()
    return torch.minimum(position, 2 * (size - 1) - position)


def inside(offset: Tensor, side: int) -> Tensor:
    """Whether an offset from the centre lies in a span of `side` pixels."""
    return (offset >= -(side // 2)) & (offset < side - side // 2)
