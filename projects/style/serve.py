"""Serves exported files over HTTP: python -m projects.style.serve MODEL.onnx, then open http://127.0.0.1:8000.

numpy, Pillow, onnxruntime and FastAPI; no torch.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.config import option
from core.inference import OnnxModel
from core.serving.program import run_serving
from core.serving.service import Asked, Record, Service
from core.vision.encoding import to_data_url
from projects.style.config import TASK, Config, ModelFacts
from projects.style.infer import blend_of, resized
from projects.style.tiling import Painter, Pixels

_TILE_PIXELS = 1024


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    style: tuple[str, ...] = option((), "NAME or NAME=WEIGHT, or a number for each style; none stands for the first")
    keep_colors: float = option(0.0, "share of the photograph's colors to keep", low=0, high=1)
    size: int = option(0, "longer side of the result, in pixels; 0: as it is", low=0, high=2048)


Request = Asked[Pixels, Options]


def load(path: Path, threads: int) -> OnnxModel[ModelFacts]:
    """The graph; its facts are checked. Raises UserError."""
    model = OnnxModel(path, task=TASK, facts=ModelFacts, threads=threads)
    Painter(model, blend_of(None, model.facts.styles), 0.0, _TILE_PIXELS)
    return model


def predict(model: OnnxModel[ModelFacts], requests: Sequence[Request]) -> Sequence[Record]:
    """The painting of each photograph. Raises UserError for an unknown style."""
    records = []
    for photograph, options in requests:
        styles, given = model.facts.styles, options.style
        if len(given) == len(styles) and not set(given) & set(styles) and all("=" not in word for word in given):
            given = tuple(f"{name}={weight}" for name, weight in zip(styles, given, strict=True))
        painter = Painter(model, blend_of(given, styles), options.keep_colors, _TILE_PIXELS)
        painted = painter.paint(resized(photograph, options.size or None))
        height, width = painted.shape[:2]
        records.append({"width": width, "height": height, "image": to_data_url(painted)})
    return records


def batch_key(_: Request) -> Hashable:
    """Each photograph by itself: its time goes by its pixels, and a shared pass would make all of them wait."""
    return object()


SERVICE = Service(kind="image", options=Options, load=load, predict=predict, batch_key=batch_key)

if __name__ == "__main__":
    run_serving(Config, SERVICE)
