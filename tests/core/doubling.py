"""A service that doubles numbers, for tests of the server: python -m tests.core.doubling MODEL.onnx --port 0."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.config import RunConfig, option
from core.errors import UserError
from core.inference import OnnxModel
from core.serving.program import run_serving
from core.serving.service import Asked, Kind, Service, key_of_image
from tests.core.test_inference import Facts

SLOW_SECONDS = 0.4


class Config(RunConfig):
    """Of a project that is none."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    times: float = option(1.0, "a factor", low=0, high=10)
    name: tuple[str, ...] = option((), "names")


def load(path: Path, threads: int) -> OnnxModel[Facts]:
    return OnnxModel(path, task="doubling", facts=Facts, threads=threads)


def predict(model: OnnxModel[Facts], requests: Sequence[Asked[Any, Options]]) -> list[dict[str, Any]]:
    """Twice the number in a text, or twice the mean color of an image. "slow" takes a while, "bad" fails."""
    texts = [each.input if isinstance(each.input, str) else str(np.mean(each.input)) for each in requests]
    if "slow" in texts:
        time.sleep(SLOW_SECONDS)
        return [{"y": 0.0} for _ in texts]
    if "bad" in texts:
        raise RuntimeError("secret")
    numbers = [float(text) for text in texts]
    rows = model.run(x=np.repeat(np.asarray(numbers, np.float32)[:, None], 3, axis=1))["y"][:, 0]
    return [{"y": float(row) * each.options.times} for row, each in zip(rows, requests, strict=True)]


def read(_: OnnxModel[Facts], given: Any) -> Any:
    if isinstance(given, str) and given == "odd":
        raise UserError("an odd text", "the text", "give another")
    return given


def service(kind: Kind) -> Service[Any, Any, Options]:
    def batch_key(asked: Asked[Any, Options]) -> Any:
        return len(asked.input) if isinstance(asked.input, str) else key_of_image(asked.input)

    return Service(kind=kind, options=Options, load=load, predict=predict, batch_key=batch_key, read=read)


if __name__ == "__main__":
    run_serving(Config, service("text"))
