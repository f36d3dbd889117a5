"""Serves exported files over HTTP: python -m projects.gan.serve MODEL.onnx, then open http://127.0.0.1:8000.

numpy, Pillow, onnxruntime and FastAPI; no torch.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.config import option
from core.errors import UserError
from core.inference import OnnxModel
from core.serving.program import run_serving
from core.serving.service import Asked, Record, Service
from core.vision.encoding import to_data_url
from projects.gan.config import Config, Facts
from projects.gan.infer import choose_labels, generate_from, load_model, noise_of

_MAX_BATCHED = 16  # images of a seed


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    num: int = option(16, "images of a seed; a list of numbers gives one", low=1, high=64)
    label: tuple[str, ...] = option((), "class to generate, may be given more than once; none stands for all in turn")


Input = int | NDArray[np.float32]
Request = Asked[Input, Options]


def read(model: OnnxModel[Facts], given: int | list[float]) -> Input:
    """A seed, or the noise [1, latent] of one image. Raises UserError for noise of another length."""
    if isinstance(given, int):
        return given
    noise = np.clip(np.asarray([given], np.float64), -1e6, 1e6).astype(np.float32)
    if noise.shape[1] != model.facts.latent:
        raise UserError("noise of another length", len(given), f"give {model.facts.latent} numbers")
    return noise


def predict(model: OnnxModel[Facts], requests: Sequence[Request]) -> Sequence[Record]:
    """The images of each seed, with their classes and noise. Raises UserError for an unknown class."""
    facts = model.facts
    noises = [noise_of(facts, options.num, given) if isinstance(given, int) else given for given, options in requests]
    wanted = [each.options.label for each in requests]
    labels = [choose_labels(facts.labels, its, len(noise)) for its, noise in zip(wanted, noises, strict=True)]
    known = [each for each in labels if each is not None]
    images = iter(generate_from(model, np.concatenate(noises), np.concatenate(known) if known else None))
    return [
        {"images": [_record(facts, next(images), noise[k], None if its is None else its[k]) for k in range(len(noise))]}
        for noise, its in zip(noises, labels, strict=True)
    ]


def _record(
    facts: Facts, image: NDArray[np.uint8], noise: NDArray[np.float32], label: np.int64 | None
) -> dict[str, object]:
    """One image for JSON."""
    name = None if label is None else facts.labels[label]
    return {"label": name, "image": to_data_url(image), "noise": [round(float(number), 6) for number in noise]}


def batch_key(request: Request) -> Hashable:
    """Seeds of few images share a batch; one of many is computed alone, which bounds a batch's memory."""
    return None if request.options.num <= _MAX_BATCHED else object()


SERVICE = Service(kind="seeds", options=Options, load=load_model, read=read, predict=predict, batch_key=batch_key)

if __name__ == "__main__":
    run_serving(Config, SERVICE)
