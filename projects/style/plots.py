"""A run's plots: held-out photographs in every style, and one of them step by step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.evaluation import evaluating
from core.vision.decoding import decode
from core.vision.image_grid import save_image, save_image_grid
from projects.style.data import Style, to_image, to_pixels
from projects.style.model import one_hot

_NUM_PHOTOGRAPHS, _NUM_STYLES = 6, 8
_NUM_STEPS_SHOWN = 8
_MIN_CELL_PIXELS = 96


def save_held_out(
    run_path: Path,
    photographs: Tensor,
    styles: Sequence[Style],
    network: nn.Module,
    accelerator: Accelerator,
    *,
    title: str,
) -> None:
    """plots/held_out.png: the style images on top; below, each photograph and what it becomes in each style.

    photographs: float32 [N, 3, H, W] in [0, 1].
    """
    shown = styles[:_NUM_STYLES]
    rows: list[list[Tensor | None]] = [[None, *(style.image for style in shown)]]
    with evaluating(network), accelerator.autocast():
        for photograph in torch.split(photographs[:_NUM_PHOTOGRAPHS], 1):
            blends = one_hot(torch.arange(len(shown), device=photograph.device), len(styles))
            painted: list[Tensor | None] = [network(photograph, blend[None]).float() for blend in blends]
            rows.append([photograph, *painted])
    captions = ["photograph", *(style.name for style in shown)]
    save_rows(rows, captions, run_path / "plots" / "held_out.png", title=title)


def save_rows(rows: Sequence[Sequence[Tensor | None]], captions: Sequence[str], path: Path, *, title: str = "") -> None:
    """Images float32 [1, 3, H, W] in [0, 1] in rows and columns, with a caption over each column.

    Each is reduced to fit into the size of the last row's first image.
    """
    cell = rows[-1][0]
    assert cell is not None
    size = (cell.shape[3], cell.shape[2])
    cells = [None if image is None else _fitted(to_pixels(image), size) for row in rows for image in row]
    save_image_grid(cells, path, columns=len(captions), captions=captions, title=title, min_cell=_MIN_CELL_PIXELS)


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image reduced to fit into (width, height), on white: uint8 [height, width, 3]."""
    reduced = Image.fromarray(pixels)
    reduced.thumbnail(size)
    cell = Image.new("RGB", size, "white")
    cell.paste(reduced)
    return np.asarray(cell)


def save_step(run_path: Path, step: int, image: Tensor) -> None:
    """plots/progress/step-NNNNNNNN.png: an image float32 [1, 3, H, W] in [0, 1]."""
    save_image(to_pixels(image), run_path / "plots" / "progress" / f"step-{step:08d}.png")


def save_progress(run_path: Path) -> None:
    """plots/progress.png: some of the images that save_step wrote, from the first to the last."""
    paths = sorted((run_path / "plots" / "progress").glob("step-*.png"))
    chosen = sorted({round(k) for k in np.linspace(0, len(paths) - 1, min(len(paths), _NUM_STEPS_SHOWN))})
    row = [to_image(decode(paths[k])) for k in chosen]
    save_rows([row], [f"step {int(paths[k].stem[5:])}" for k in chosen], run_path / "plots" / "progress.png")
