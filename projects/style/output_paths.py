"""Where infer writes which painting. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.vision.inputs import find_inputs
from core.vision.video import check_video_target, video_targets

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_GRID = "grid.png"


@dataclass(frozen=True)
class Plan:
    """Each photograph and each video with the path of its painting, notes on what was left out, and where the image of
    before and after goes."""

    images: list[tuple[Path, Path]]
    videos: dict[Path, Path]
    notes: list[str]
    grid: Path | None


def targets(given: Sequence[Path], output: Path) -> Plan:
    """What goes where. Raises UserError before anything is read or written."""
    inputs = find_inputs([str(path) for path in given])
    images, videos = inputs.images, inputs.videos
    if output.suffix and not output.is_dir():
        if len(images) + len(videos) > 1:
            raise UserError("one output for many photographs", f"--output {output}", "give a folder")
        if videos:
            check_video_target(output)
        elif output.suffix.lower() not in _SUFFIXES:
            raise UserError("unknown kind of image", f"--output {output}", f"known are {', '.join(_SUFFIXES)}")
        plan = Plan([(source, output) for source, _ in images], dict.fromkeys(videos, output), inputs.notes, None)
    else:
        if output.exists() and not output.is_dir():
            raise UserError("not a folder", f"--output {output}", "give another")
        pairs = [(source, output / name.with_suffix(".png")) for source, name in images]
        plan = Plan(pairs, video_targets(videos, output), inputs.notes, output / _GRID)
    _check_targets([*plan.images, *plan.videos.items()], plan.grid)
    return plan


def _check_targets(pairs: Sequence[tuple[Path, Path]], grid: Path | None) -> None:
    """Raises UserError where a painting would replace a photograph, or another painting of this command."""
    sources, seen = {source.resolve() for source, _ in pairs}, set()
    for target in [*(target for _, target in pairs), *([] if grid is None else [grid])]:
        if target.resolve() in sources:
            raise UserError("a photograph would be replaced", target, "give another --output")
        if target in seen:
            raise UserError("two paintings of one name", target, "give one of them in another command")
        seen.add(target)
