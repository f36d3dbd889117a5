"""Serves exported files over HTTP: python -m projects.detection.serve MODEL.onnx, then open http://127.0.0.1:8000.

numpy, Pillow, onnxruntime and FastAPI; no torch.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.config import option
from core.inference import OnnxModel
from core.serving.program import run_serving
from core.serving.service import Asked, Record, Service, key_of_image
from projects.detection.config import TASK, Config, ModelFacts
from projects.detection.infer import detections_of, to_record


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    threshold: float | None = option(None, "lowest score; none stands for the model's own", low=0, high=1)


Request = Asked[NDArray[np.uint8], Options]


def load(path: Path, threads: int) -> OnnxModel[ModelFacts]:
    """The detector."""
    return OnnxModel(path, task=TASK, facts=ModelFacts, threads=threads)


def predict(model: OnnxModel[ModelFacts], requests: Sequence[Request]) -> Sequence[Record]:
    """The objects in each image, the best first."""
    outputs = model.run(image=np.stack([each.input for each in requests]))
    records = []
    for row, (pixels, options) in enumerate(requests):
        threshold = model.facts.threshold if options.threshold is None else options.threshold
        records.append(to_record(pixels, detections_of(outputs, row).above(threshold), model.facts.classes))
    return records


def batch_key(request: Request) -> Hashable:
    """Images of one size share a batch."""
    return key_of_image(request.input)


SERVICE = Service(kind="image", options=Options, load=load, predict=predict, batch_key=batch_key)

if __name__ == "__main__":
    run_serving(Config, SERVICE)
