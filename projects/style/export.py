"""Exports a run's network: python -m projects.style.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 photographs [N, H, W, 3] of any size from 16×16, the weights of the styles, and the share of the
photograph's colors to keep; it gives paintings of the same size.
"""

from core.program import ExportCommand, ExportOptions, answer_early, parse_export, run_export
from projects.style.config import TASK, Config, Facts, ModelFacts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ExportOptions)

import time
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.export import export_onnx, finish_export
from core.export_spec import ExportSpec
from core.files import write_json
from core.parity import open_session, report_path
from core.stored_run import StoredRun, load_run
from projects.style.deployed import Deployed, random_inputs
from projects.style.model import MIN_SIDE, STRIDE, StyleNet

_TIMED_SIDE, _NUM_TIMED = 1024, 5  # pixels; runs, of which the first fetch memory from the system
_USAGE = """\
import json, onnxruntime
import numpy as np
from PIL import Image
model = onnxruntime.InferenceSession("MODEL.onnx")
facts = json.loads(model.get_modelmeta().custom_metadata_map["facts"])
image = np.asarray(Image.open("image.jpg").convert("RGB"))
first, statistics = np.eye(1, len(facts["styles"]), dtype=np.float32), np.zeros((0, 2, facts["channels"]), np.float32)
inputs = {"image": image[None], "blend": first, "keep_colors": np.zeros(1, np.float32), "statistics": statistics}
Image.fromarray(model.run(["painted"], inputs)[0][0]).save("painted.png")
"""


def export(command: ExportCommand[ExportOptions]) -> None:
    """Writes the ONNX file and its parity report, and measures the time per megapixel."""
    run = load_run(command.run_dir, command.options.checkpoint, Config, Facts)
    if run.config.method == "optimize":
        raise UserError("a run of optimize has no network", run.path, f"its result is {run.path / 'result.png'}")
    output, deployed = command.output, build_deployed(run)
    report = export_onnx(spec_of(deployed, run.facts), run, output)
    milliseconds = _milliseconds_per_megapixel(output, deployed)
    write_json(report_path(output), {**report, "milliseconds_per_megapixel": milliseconds})
    print(f"{'time':<14}{milliseconds:.0f} ms a megapixel, onnxruntime, one thread")
    finish_export(command, run, "PHOTOGRAPH --output PAINTED.png")


def build_deployed(run: StoredRun[Config, Facts]) -> Deployed:
    """The module to export, with a checkpoint's weights."""
    network = StyleNet(len(run.facts.styles), run.config.width, run.config.blocks)
    network.load_state_dict(run.weights())
    return Deployed(network).eval()


def spec_of(deployed: Deployed, facts: Facts) -> ExportSpec:
    """What to export, and what to compare."""
    num_channels, each = deployed.num_channels, {0: "batch"}
    return ExportSpec(
        module=deployed,
        task=TASK,
        facts=ModelFacts(
            **vars(facts),
            channels=num_channels,
            margin=deployed.network.margin(),
            stride=STRIDE,
            min_side=MIN_SIDE,
        ),
        inputs={
            "image": f"uint8 [batch, height, width, 3], RGB, at least {MIN_SIDE}×{MIN_SIDE}",
            "blend": "float32 [batch, styles], the weight of each style, summing to 1",
            "keep_colors": "float32 [batch], share of the photograph's colors to keep, 0 to 1",
            "statistics": "float32 [0, 2, channels], or [batch, 2, channels] to use in place of the image's own",
        },
        outputs={
            "painted": "uint8 [batch, height, width, 3]",
            "own_statistics": "float32 [batch, 2, channels], means and deviations of the norms",
        },
        example=random_inputs(deployed, 2, 37, 50, 3),
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"}, each, each, {0: "given"}),
        output_shapes=[["batch", "height", "width", 3], ["batch", 2, num_channels]],
        parity_inputs=[
            random_inputs(deployed, 1, 64, 64, 0),
            random_inputs(deployed, 1, 64, 61, 1),
            random_inputs(deployed, 3, MIN_SIDE, 83, 0),
            random_inputs(deployed, 2, 121, 90, 2),
        ],
        unrounded=deployed.paint,
        pipeline_tag="image-to-image",
        usage=_USAGE,
    )


def _milliseconds_per_megapixel(path: Path, deployed: Deployed) -> float:
    """The time of an image of 1024×1024 on one thread, the best of a few, divided by its megapixels."""
    session = open_session(path, threads=1)
    inputs = random_inputs(deployed, 1, _TIMED_SIDE, _TIMED_SIDE, 0)
    feed = {each.name: np.asarray(value) for each, value in zip(session.get_inputs(), inputs, strict=True)}
    times = []
    for _ in range(_NUM_TIMED):
        began = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - began)
    return 1e3 * min(times) / (_TIMED_SIDE**2 / 1e6)


if __name__ == "__main__":
    run_export(Config, ExportOptions, export)
