"""Exports a run's detector: python -m projects.detection.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 pictures [N, H, W, 3] of any size and gives boxes in their pixels, scores, labels and numbers of
boxes: it resizes with antialiasing, pads, normalizes, and does the non-maximum suppression too. Two runtimes may put
boxes of nearly equal scores in another order, so the file is compared with PyTorch box by box, not row by row.
"""

import argparse
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import RunError, run_command
from projects.detection.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return export_parser("projects.detection.export").parse_args(argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.export import (
    OPSET,
    Arrays,
    ExportSpec,
    chosen_checkpoint,
    export_onnx,
    open_session,
    output_path,
    run_metadata,
)
from projects.detection.deploy import Deployed
from projects.detection.model import build_model
from projects.detection.selection import Detections, Rule, onnx_translations

TASK = "object detection"
LEAST_MATCHED = 0.98  # share of boxes that have to be in both: at the limits a rounding decides
BOX_TOLERANCE = 2e-4  # of a picture's longer side
SCORE_TOLERANCE = 1e-3


def export(run_dir: Path, choice: str, output: Path | None) -> None:
    """Writes the ONNX file and its parity report."""
    folder, state, run = chosen_checkpoint(run_dir, choice, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    output = output_path(run_dir, output)
    deployed = build_deployed(run["facts"], config, state["ema"]["module"] if config.ema else state["model"])
    metadata = run_metadata(run_dir, run, state["loop"]["step"], config, TASK)
    metadata.update(about(run["facts"], config, metadata["metrics"]))
    report = export_onnx(spec_of(deployed, metadata), output, compare)
    num, matched = (sum(row[name] for row in report["checks"]) for name in ("boxes", "matched"))
    worst = max(row["max_box_difference"] for row in report["checks"])
    shapes = f"{len(report['checks'])} shapes, {matched} of {num} boxes equal"
    print(f"{output}  {output.stat().st_size / 1e6:.2f} MB, from {folder.name}")
    print(f"parity      {shapes}, largest difference {worst:.1e} pixels")
    print(f"next        python -m projects.detection.infer {output} PICTURE_OR_FOLDER... --output DIR")


def build_deployed(facts: dict[str, Any], config: Config, weights: dict[str, Tensor]) -> Deployed:
    """The module to export, from what the run knows and a checkpoint's weights."""
    detector = build_model(config, len(facts["classes"]), begin=False)
    detector.load_state_dict(weights)
    height, width = facts["canvas"]
    rule = Rule(config.score_threshold, config.overlap, config.max_boxes)
    return Deployed(detector, (height, width), facts["mean"], facts["std"], rule).eval()


def about(facts: dict[str, Any], config: Config, summary: dict[str, Any]) -> dict[str, Any]:
    """What the file says of its classes, inputs, outputs, and of the score from which on boxes are worth showing."""
    return {
        "classes": facts["classes"],
        "canvas": facts["canvas"],
        "threshold": summary.get("threshold", 0.3),
        "score_threshold": config.score_threshold,
        "overlap": config.overlap,
        "input": "image: uint8 [batch, height, width, 3], RGB, any size",
        "output": "boxes: float32 [batch, max_boxes, 4] as x1, y1, x2, y2 in pixels of the picture, the best first; "
        "scores: float32; labels: int64, -1 behind the last box; num: int64 [batch], how many boxes there are",
    }


def spec_of(deployed: Deployed, metadata: dict[str, Any]) -> ExportSpec:
    """What is exported, and the pictures it is compared on: noise, smooth ones, and gray ones without a box."""
    height, width = deployed.canvas
    num = deployed(pictures(1, height, width)[0]).boxes.shape[1]
    return ExportSpec(
        module=deployed,
        example=pictures(2, height + 5, width + 22),
        input_names=["image"],
        output_names=list(Detections._fields),
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
        output_shapes=[["batch", num, 4], ["batch", num], ["batch", num], ["batch"]],
        parity_inputs=[
            pictures(1, height, width),
            pictures(3, height, width),
            pictures(2, 2 * height + 1, width + 3),
            pictures(1, height // 2 + 1, 3 * width),
            pictures(1, 207, 299),
            pictures(1, 480, 640),
            (torch.full((2, 131, 97, 3), 128, dtype=torch.uint8),),
        ],
        metadata=metadata,
        tolerance=1 - LEAST_MATCHED,
        custom_translation_table=onnx_translations(),
    )


def pictures(num: int, height: int, width: int) -> tuple[Tensor, ...]:
    """An input of soft blotches with a little noise, in which a detector sees more than in noise alone."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(num, 3, height // 24 + 2, width // 24 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    noisy = 255 * smooth + 12 * torch.randn(num, 3, height, width, generator=generator)
    return (noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(),)


def compare(spec: ExportSpec, path: Path) -> dict[str, Any]:
    """Runs file and module on the same pictures; the report, or RunError for the first that has too few equal boxes."""
    onnx.checker.check_model(str(path), full_check=True)
    session = open_session(path)
    rows = []
    for (image,) in (spec.example, *spec.parity_inputs):
        with torch.inference_mode():
            expected = [part.numpy() for part in spec.module(image)]
        try:
            found = session.run(None, {"image": image.numpy()})
        except Exception as error:
            reason = str(error).splitlines()[0]
            where = f"input shape {list(image.shape)}: {reason}"
            raise RunError("the ONNX file does not run", where, "this is a defect of the export") from error
        numbers = agreement(found, expected, max(image.shape[1:3]))
        rows.append({"input_shapes": [list(image.shape)], **numbers})
        if numbers["matched"] < LEAST_MATCHED * numbers["boxes"]:
            what = f"input shape {list(image.shape)}: {numbers['matched']} of {numbers['boxes']} boxes are in both"
            todo = "this is a defect of the export; nothing was written"
            raise RunError("the ONNX file does not equal the PyTorch network", what, todo)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return {"least_matched": LEAST_MATCHED, "checks": rows, "versions": versions, "opset": OPSET}


def agreement(found: Arrays, expected: Arrays, longer_side: int) -> dict[str, float]:
    """How many boxes of a batch there are (of the side with more), how many are in both, and how far these differ."""
    num, matched, box_difference, score_difference = 0, 0, 0.0, 0.0
    for picture in range(len(expected[0])):
        mine, theirs = ([part[picture][: side[3][picture]] for part in side[:3]] for side in (found, expected))
        pairs = matches(mine, theirs, max(0.05, BOX_TOLERANCE * longer_side))
        num += max(len(mine[0]), len(theirs[0]))
        matched += len(pairs)
        for a, b in pairs:
            box_difference = max(box_difference, float(np.abs(mine[0][a] - theirs[0][b]).max()))
            score_difference = max(score_difference, float(abs(mine[1][a] - theirs[1][b])))
    return {
        "boxes": num,
        "matched": matched,
        "max_box_difference": box_difference,
        "max_score_difference": score_difference,
    }


def matches(found: list[NDArray[Any]], expected: list[NDArray[Any]], pixels: float) -> list[tuple[int, int]]:
    """Pairs of rows whose boxes, scores and labels are equal; each row is in one pair at most."""
    pairs: list[tuple[int, int]] = []
    free = np.ones(len(found[0]), dtype=bool)
    for row, (box, score, label) in enumerate(zip(*expected, strict=True)):
        apart = np.abs(found[0] - box).max(axis=1, initial=0.0)
        equal = free & (apart <= pixels) & (np.abs(found[1] - score) <= SCORE_TOLERANCE) & (found[2] == label)
        if equal.any():
            best = int(np.where(equal, apart, np.inf).argmin())
            free[best] = False
            pairs.append((best, row))
    return pairs


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output)


if __name__ == "__main__":
    run_command(main)
