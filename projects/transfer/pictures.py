"""The run's pictures: curves, confusion, the worst mistakes, and where the network looked (Grad-CAM).

Grad-CAM: Selvaraju et al. 2017, arXiv 1610.02391.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core import plots
from core.accelerator import Accelerator
from core.run import RunFolder
from cuda_ext import lookup_table
from projects.transfer.augment import Look, plain_view
from projects.transfer.config import Config
from projects.transfer.data import Data
from projects.transfer.model import Classifier

NUM_MISTAKES_SHOWN = 32
NUM_LOOKED_AT = 4  # pictures of each class in gradcam.png
MAX_CLASSES_LOOKED_AT = 12


def draw(
    run: RunFolder[Config],
    data: Data,
    network: Classifier,
    look: Look,
    accelerator: Accelerator,
    probabilities: NDArray[np.float32],
) -> Sequence[str]:
    """Draws all pictures of the test's results; the names of their files."""
    labels, folder = data.test.labels, run.path / "plots"
    plots.curves(run.path, ["loss", "accuracy"])
    counts = np.zeros((len(data.classes), len(data.classes)), dtype=np.int64)
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    plots.confusion(counts, data.classes, folder / "confusion.png")
    names = ["curves.png", "confusion.png"]
    rows = worst(probabilities, labels)
    if rows:
        captions = [caption(data, probabilities, row) for row in rows]
        title = "Wrong with the most confidence: what it said, what it is"
        plots.picture_grid(seen(data, rows, look), captions, folder / "mistakes.png", title=title)
        names.append("mistakes.png")
    rows = first_of_each_class(labels)
    images = plain_view(
        torch.from_numpy(data.test.load(rows)), look, lookup_table(look.mean, look.std).to(accelerator.dtype)
    )
    heat = grad_cam(network, images.float().to(accelerator.device))
    if heat is not None:
        captions = [text for row in rows for text in (caption(data, probabilities, row), "")]
        title = "Grad-CAM: bright is what spoke for the answer"
        overlaid = overlay(seen(data, rows, look), heat)
        plots.picture_grid(overlaid, captions, folder / "gradcam.png", columns=2 * NUM_LOOKED_AT, title=title)
        names.append("gradcam.png")
    return names


def worst(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[int]:
    """The rows that were wrong with the most confidence, the worst first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")[:NUM_MISTAKES_SHOWN]
    return [int(row) for row in wrong[order]]


def first_of_each_class(labels: NDArray[np.int64]) -> list[int]:
    """A few rows of each class, of the first classes."""
    classes = np.unique(labels)[:MAX_CLASSES_LOOKED_AT]
    return [int(row) for label in classes for row in np.flatnonzero(labels == label)[:NUM_LOOKED_AT]]


def caption(data: Data, probabilities: NDArray[np.float32], row: int) -> str:
    """What the network said of a test picture, and what it is."""
    said = probabilities[row]
    return f"{data.classes[said.argmax()]} {said.max():.0%}\nis {data.classes[data.test.labels[row]]}"


def seen(data: Data, rows: Sequence[int], look: Look) -> NDArray[np.uint8]:
    """Test pictures, cut as the network sees them: uint8 [N, size, size, 3]."""
    pixels = torch.from_numpy(data.test.load(rows)).permute(0, 3, 1, 2)
    return np.asarray(look.middle(pixels).permute(0, 2, 3, 1))


def grad_cam(network: Classifier, images: Tensor) -> NDArray[np.float32] | None:
    """What spoke for each picture's answer, [N, h, w] in [0, 1]; None for a backbone without a map of features.

    images: normalized [N, 3, S, S].
    """
    name = last_map(network, images[:1])
    if name is None:
        return None
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    network.eval()
    handle = network.backbone.get_submodule(name).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            network(images).max(1).values.sum().backward()
    finally:
        handle.remove()
        network.zero_grad(set_to_none=True)
    features, gradients = kept[0].detach(), kept[0].grad
    assert gradients is not None
    if is_channels_last(features):
        features, gradients = features.permute(0, 3, 1, 2), gradients.permute(0, 3, 1, 2)
    heat = torch.relu((features * gradients.mean((2, 3), keepdim=True)).sum(1))
    heat = heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return np.asarray(heat.float().cpu())


def last_map(network: Classifier, images: Tensor) -> str | None:
    """The backbone's part nearest to the head whose output has places, [N, C, h, w] or [N, h, w, C]; None if tokens."""
    outputs: dict[str, Tensor] = {}
    names = [name for layer in network.layers for name in layer.modules]

    def note(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim > 2 and output.shape[2] > 1:
                outputs[name] = output

        return network.backbone.get_submodule(name).register_forward_hook(hook)

    handles = [note(name) for name in names]
    network.eval()
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    name = next((name for name in reversed(names) if name in outputs), None)
    return name if name is not None and outputs[name].ndim == 4 else None


def is_channels_last(features: Tensor) -> bool:
    """Whether a map of a square picture is [N, h, w, C], as some transformers have it."""
    return features.shape[2] != features.shape[3] and features.shape[1] == features.shape[2]


def overlay(pictures: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each picture, followed by itself under its heat: [2N, S, S, 3]."""
    import matplotlib
    from PIL import Image

    colors = matplotlib.colormaps["inferno"]
    result = []
    for picture, map_ in zip(pictures, heat, strict=True):
        size = (picture.shape[1], picture.shape[0])
        smooth = np.asarray(Image.fromarray(map_).resize(size, Image.Resampling.BILINEAR))[..., None]
        painted = 255 * colors(smooth[..., 0])[..., :3]
        result += [picture, (0.4 * picture + 0.6 * painted).astype(np.uint8)]
    return np.stack(result)
