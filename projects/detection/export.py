"""Exports a run's detector: python -m projects.detection.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 images [N, H, W, 3] of any size and gives boxes in their pixels, scores, labels and the number of
boxes: it resizes with antialiasing, pads, normalizes, and contains the non-maximum suppression.
"""

from core.program import ExportCommand, ExportOptions, answer_early, parse_export, run_export
from projects.detection.config import TASK, Config, Facts, ModelFacts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ExportOptions)

from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from core.export import export_onnx, finish_export
from core.export_spec import ExportSpec
from core.files import read_json
from core.stored_run import StoredRun, load_run
from projects.detection.deploy import Deployed
from projects.detection.detectors import build_model
from projects.detection.nms import Rule, onnx_translations
from projects.detection.parity import compare

_DEFAULT_THRESHOLD = 0.3  # of a run that has not been finished, and so has not chosen one
_USAGE = """\
import json, onnxruntime
import numpy as np
from PIL import Image
model = onnxruntime.InferenceSession("MODEL.onnx")
facts = json.loads(model.get_modelmeta().custom_metadata_map["facts"])
image = np.asarray(Image.open("image.jpg").convert("RGB"))
boxes, scores, labels, num = (output[0] for output in model.run(None, {"image": image[None]}))
shown = scores >= facts["threshold"]
print([facts["classes"][label] for label in labels[shown]], scores[shown], boxes[shown])  # x1, y1, x2, y2 in pixels
"""


def export(command: ExportCommand[ExportOptions]) -> None:
    """Writes the ONNX file and its parity report."""
    run = load_run(command.run_dir, command.options.checkpoint, Config, Facts)
    output = command.output
    facts = ModelFacts(**asdict(run.facts), threshold=_threshold(run.path))
    export_onnx(spec_of(_deployed_of(run), facts), run, output, compare)
    finish_export(command, run, "IMAGE_OR_FOLDER... --output DIR")


def _deployed_of(run: StoredRun[Config, Facts]) -> Deployed:
    """The module to export, with a checkpoint's weights."""
    config, facts = run.config, run.facts
    detector = build_model(config, len(facts.classes), initial_weights=False)
    detector.load_state_dict(run.weights())
    rule = Rule(config.score_threshold, config.overlap, config.max_boxes)
    return Deployed(detector, facts.canvas, facts.mean, facts.std, rule).eval()


def spec_of(deployed: Deployed, facts: ModelFacts) -> ExportSpec:
    """What is exported, and the images it is compared on: soft colors with noise, and flat gray, at several sizes."""
    height, width = deployed.canvas
    num = deployed(soft_images(1, height, width)[0]).boxes.shape[1]
    return ExportSpec(
        module=deployed,
        task=TASK,
        facts=facts,
        inputs={"image": "uint8 [batch, height, width, 3], RGB, any size"},
        outputs={
            "boxes": "float32 [batch, max_boxes, 4], x1, y1, x2, y2 in pixels of the image, the best box first",
            "scores": "float32 [batch, max_boxes], from 0 to 1",
            "labels": "int64 [batch, max_boxes], -1 after the last box",
            "num": "int64 [batch], the number of boxes of each image",
        },
        example=soft_images(2, height + 5, width + 22),
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
        output_shapes=[["batch", num, 4], ["batch", num], ["batch", num], ["batch"]],
        parity_inputs=[
            soft_images(1, height, width),
            soft_images(3, height, width),
            soft_images(2, 2 * height + 1, width + 3),
            soft_images(1, height // 2 + 1, 3 * width),
            soft_images(1, 207, 299),
            soft_images(1, 480, 640),
            (torch.full((2, 131, 97, 3), 128, dtype=torch.uint8),),
        ],
        custom_translation_table=onnx_translations(),
        pipeline_tag="object-detection",
        usage=_USAGE,
    )


def soft_images(num: int, height: int, width: int) -> tuple[Tensor, ...]:
    """An input, uint8 [num, height, width, 3], of soft patches of color with a little noise, the same at each call."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(num, 3, height // 24 + 2, width // 24 + 2, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    noisy = 255 * smooth + 12 * torch.randn(num, 3, height, width, generator=generator)
    return (noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(),)


def _threshold(run_dir: Path) -> float:
    """The score that training chose on the validation images."""
    path = run_dir / "summary.json"
    summary = read_json(path, "unreadable summary", "finish the run again") if path.exists() else {}
    threshold = summary.get("threshold", _DEFAULT_THRESHOLD)
    return float(threshold) if isinstance(threshold, int | float) else _DEFAULT_THRESHOLD


if __name__ == "__main__":
    run_export(Config, ExportOptions, export)
