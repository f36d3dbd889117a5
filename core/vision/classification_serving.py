"""How image classifiers are served: answers are those of `infer --json`. numpy, Pillow and onnxruntime; no torch."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.config import option
from core.inference import OnnxModel
from core.serving.service import Asked, Record, Service, key_of_image
from core.vision.classification import TASK, ClassifierFacts, best_classes


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    top: int = option(10, "classes to name", low=1, high=100_000)


Request = Asked[NDArray[np.uint8], Options]


def classifier_service(facts: type[ClassifierFacts]) -> Service[OnnxModel[Any], NDArray[np.uint8], Options]:
    """What serves a project's classifiers."""

    def load(path: Path, threads: int) -> OnnxModel[Any]:
        return OnnxModel(path, task=TASK, facts=facts, threads=threads)

    return Service(kind="image", options=Options, load=load, predict=_predict, batch_key=_batch_key)


def _batch_key(request: Request) -> Hashable:
    """Images of one size share a batch."""
    return key_of_image(request.input)


def _predict(model: OnnxModel[Any], requests: Sequence[Request]) -> Sequence[Record]:
    """The best classes of each image."""
    outputs = model.run(image=np.stack([each.input for each in requests]))["probabilities"]
    return [
        best_classes(probabilities, model.facts.classes, each.options.top)
        for each, probabilities in zip(requests, outputs, strict=True)
    ]
