"""Where infer writes what: drawn images, drawn videos, a table of boxes. No torch."""

from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UserError
from core.records import FORMATS, records_path
from core.vision.inputs import Inputs
from core.vision.video import check_video_target, video_targets

# Of a table with a row a box; of images without frames, frame and time_seconds are empty.
COLUMNS: dict[str, type] = {
    "path": str,
    "frame": int,
    "time_seconds": float,
    "width": int,
    "height": int,
    "label": str,
    "score": float,
    "x1": float,
    "y1": float,
    "x2": float,
    "y2": float,
}


@dataclass(frozen=True)
class OutputPaths:
    """folder: of drawn images and detections.json; table: the file of records; videos: the drawn one of each video."""

    folder: Path | None = None
    table: Path | None = None
    videos: dict[Path, Path] = field(default_factory=dict)


def output_paths(inputs: Inputs, output: Path | None, given_format: str | None) -> OutputPaths:
    """What --output and --format ask for. Raises UserError for what cannot be, and for a table that exists."""
    if output is None or (output.suffix.lower()[1:] in FORMATS and not output.is_dir()):
        return OutputPaths(table=records_path(output, given_format, "detections"))
    if output.suffix and not output.is_dir() and len(inputs.videos) == 1 and not inputs.images:
        check_video_target(output)
        if given_format is not None:
            raise UserError("no folder for a table", f"--format {given_format}", "give a folder as --output")
        if output.exists() and output.samefile(inputs.videos[0]):
            raise UserError("an input would be overwritten", output, "give another --output")
        if not output.absolute().parent.is_dir():
            raise UserError("no such folder", output.parent, "make it, or give another --output")
        return OutputPaths(videos={inputs.videos[0]: output})
    if output.exists() and not output.is_dir():
        raise UserError("not a folder", f"--output {output}", "give another")
    table = None
    if given_format is not None or inputs.videos:  # the boxes of frames stand in a table alone
        table = records_path(output, given_format, "detections")
    return OutputPaths(output, table, video_targets(inputs.videos, output))
