"""Exports a run's averaged generator: python -m projects.gan.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes noise float32 [N, latent], and with classes labels int64 [N], and gives images uint8 [N, S, S, C]: the
same noise gives the same image on every machine.
"""

from core.program import ExportCommand, ExportOptions, answer_early, parse_export, run_export
from projects.gan.config import TASK, Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ExportOptions)

import torch
from torch import Tensor, nn

from core.export import export_onnx, finish_export
from core.export_spec import ExportSpec
from core.stored_run import load_run
from projects.gan.data import to_levels, to_pixels
from projects.gan.model import Generator, remove_spectral_norm
from projects.gan.networks import build_generator

_USAGE = """\
import json, onnxruntime
import numpy as np
from PIL import Image
model = onnxruntime.InferenceSession("MODEL.onnx")
facts = json.loads(model.get_modelmeta().custom_metadata_map["facts"])
noise = np.random.default_rng(0).standard_normal((1, facts["latent"]), dtype=np.float32)
image = model.run(["image"], {"noise": noiseLABEL})[0][0]
Image.fromarray(image.squeeze()).save("sample.png")
"""


class Deployed(nn.Module):
    """The generator, and the conversion of its output to uint8."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        remove_spectral_norm(generator)
        self.generator = generator

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """float32 [N, latent], int64 [N] → uint8 [N, S, S, C]."""
        return to_pixels(self.generator(noise, label))


def build_spec(generator: Generator, facts: Facts) -> ExportSpec:
    """The module to export, and what to compare."""
    num_classes, size, channels = len(facts.labels), facts.image_size, facts.channels
    inputs = {"noise": f"float32 [batch, {facts.latent}], normally distributed"}
    if num_classes:
        inputs["label"] = "int64 [batch], a number of classes"
    return ExportSpec(
        module=Deployed(generator).eval(),
        task=TASK,
        facts=facts,
        inputs=inputs,
        outputs={"image": f"uint8 [batch, {size}, {size}, {channels}]"},
        example=random_inputs(3, facts.latent, num_classes),
        dynamic_shapes=({0: "batch"},) * len(inputs),
        output_shapes=[["batch", size, size, channels]],
        parity_inputs=[random_inputs(num, facts.latent, num_classes) for num in (1, 2, 17, 64)],
        unrounded=lambda noise, label=None: (to_levels(generator(noise, label)),),
        pipeline_tag="unconditional-image-generation",
        usage=_USAGE.replace("LABEL", ', "label": np.array([0])' if num_classes else ""),
    )


def random_inputs(num: int, latent: int, num_classes: int) -> tuple[Tensor, ...]:
    """Noise, and labels where there are classes."""
    random = torch.Generator().manual_seed(num)
    noise = torch.randn(num, latent, generator=random)
    return (noise, torch.randint(num_classes, (num,), generator=random)) if num_classes else (noise,)


def export(command: ExportCommand[ExportOptions]) -> None:
    """Writes the ONNX file and its parity report."""
    run = load_run(command.run_dir, command.options.checkpoint, Config, Facts, "generator_")
    output = command.output
    generator = build_generator(run.config, run.facts)
    generator.load_state_dict(run.weights("generator_"))
    export_onnx(build_spec(generator, run.facts), run, output)
    finish_export(command, run, "--num 64 --seed 1 --output samples.png")


if __name__ == "__main__":
    run_export(Config, ExportOptions, export)
