"""What a run draws: photographs beside what became of them, in every style, and one of them step by step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.evaluation import evaluating
from core.images import decode
from projects.style.data import Style, to_image, to_pixels
from projects.style.model import one_hot

NUM_ROWS, MAX_STYLES_SHOWN = 6, 8
NUM_OF_PROGRESS = 8
GAP, MIN_CELL, FONT_SIZE = 8, 160, 14  # pixels


def sheet(
    run_path: Path,
    photographs: Tensor,
    styles: Sequence[Style],
    network: nn.Module,
    accelerator: Accelerator,
    *,
    title: str,
) -> None:
    """plots/sheet.png: the styles on top, below them what they make of the photographs on the left."""
    shown = styles[:MAX_STYLES_SHOWN]
    rows: list[list[Tensor | None]] = [[None, *(style.image for style in shown)]]
    with evaluating(network), accelerator.autocast():
        for photograph in torch.split(photographs[:NUM_ROWS], 1):
            row: list[Tensor | None] = [photograph]
            for number in range(len(shown)):
                blend = one_hot(torch.tensor([number], device=photograph.device), len(styles))
                row.append(network(photograph, blend).float())
            rows.append(row)
    table(rows, ["photograph", *(style.name for style in shown)], run_path / "plots" / "sheet.png", title=title)


def table(rows: Sequence[Sequence[Tensor | None]], captions: Sequence[str], path: Path, *, title: str = "") -> None:
    """Pictures [1, 3, H, W] in rows and columns, pixel by pixel, with a caption over each column.

    All have the cells of the last row's first picture; larger ones are made smaller.
    """
    last = rows[-1][0]
    assert last is not None
    height, width = last.shape[2:]
    step_down, step_right, top = height + GAP, max(width, MIN_CELL) + GAP, 3 * FONT_SIZE + GAP
    drawn = Image.new("RGB", (GAP + step_right * len(captions), top + step_down * len(rows)), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(FONT_SIZE)
    pen.text((GAP, FONT_SIZE // 3), title, "black", font)
    for column, caption in enumerate(captions):
        pen.text((GAP + column * step_right, 5 * FONT_SIZE // 3), caption, "black", font)
    for number, row in enumerate(rows):
        for column, image in enumerate(row):
            if image is not None:
                picture = Image.fromarray(to_pixels(image))
                picture.thumbnail((width, height))
                drawn.paste(picture, (GAP + column * step_right, top + number * step_down))
    path.parent.mkdir(exist_ok=True)
    drawn.save(path)


def save_progress(run_path: Path, step: int, image: Tensor) -> None:
    """plots/progress/step-NNNNNNNN.png."""
    path = run_path / "plots" / "progress" / f"step-{step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(image, path)


def progress(run_path: Path) -> None:
    """plots/progress.png: some of the pictures of progress in a row, from the first to the last."""
    paths = sorted((run_path / "plots" / "progress").glob("step-*.png"))
    chosen = sorted({round(k) for k in np.linspace(0, len(paths) - 1, min(len(paths), NUM_OF_PROGRESS))})
    row = [to_image(decode(paths[k])) for k in chosen]
    table([row], [f"step {int(paths[k].stem[5:])}" for k in chosen], run_path / "plots" / "progress.png")


def save(image: Tensor, path: Path) -> None:
    """A picture [1, 3, H, W] as PNG."""
    Image.fromarray(to_pixels(image)).save(path)
