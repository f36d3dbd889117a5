"""The run's plots: curves, confusion matrix, the worst mistakes, and where the network looked (Grad-CAM).

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
from core.vision.classification_report import caption, plot_results
from core.vision.image_grid import save_image_grid
from cuda_ext import lookup_table
from projects.transfer.augment import Preprocessing, plain_view
from projects.transfer.config import Config, Facts
from projects.transfer.data import Data
from projects.transfer.model import Classifier

_NUM_OF_A_CLASS = 4  # images of each class in gradcam.png
_MAX_CLASSES = 12
_MIN_CELL_PIXELS = 112


def plot_run(
    run: RunFolder[Config, Facts],
    data: Data,
    network: Classifier,
    preprocessing: Preprocessing,
    accelerator: Accelerator,
    probabilities: NDArray[np.float32],
) -> None:
    """Writes all plots of the test's results; probabilities: [N, num_classes], in the order of the test images."""
    labels, folder = data.test.labels, run.path / "plots"

    def cropped(rows: Sequence[int]) -> NDArray[np.uint8]:
        """Test images as the network sees them: uint8 [N, size, size, 3]."""
        pixels = torch.from_numpy(data.test.load(rows)).permute(0, 3, 1, 2)
        return np.asarray(preprocessing.center(pixels).permute(0, 2, 3, 1))

    plots.curves(run.path, ["loss", "accuracy"])
    plot_results(folder, data.classes, probabilities, labels, cropped)
    rows = _first_of_each_class(labels)
    table = lookup_table(preprocessing.mean, preprocessing.std).to(accelerator.dtype)
    images = plain_view(torch.from_numpy(data.test.load(rows)), preprocessing, table)
    heat = grad_cam(network, images.float().to(accelerator.device))
    if heat is not None:
        captions = [text for row in rows for text in (caption(probabilities[row], int(labels[row]), data.classes), "")]
        save_image_grid(
            overlay(cropped(rows), heat),
            folder / "gradcam.png",
            columns=2 * _NUM_OF_A_CLASS,
            captions=captions,
            title="Grad-CAM: the brighter, the more a place adds to the logit of the predicted class",
            min_cell=_MIN_CELL_PIXELS,
        )


def grad_cam(network: Classifier, images: Tensor) -> NDArray[np.float32] | None:
    """How much each place adds to the largest logit, [N, h, w] in [0, 1]; None for a backbone without a feature map.

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
    if _is_channels_last(features):
        features, gradients = features.permute(0, 3, 1, 2), gradients.permute(0, 3, 1, 2)
    heat = torch.relu((features * gradients.mean((2, 3), keepdim=True)).sum(1))
    heat = heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return np.asarray(heat.float().cpu())


def last_map(network: Classifier, images: Tensor) -> str | None:
    """The backbone's module nearest to the head that gives a feature map, [N, C, h, w] or [N, h, w, C]; None if tokens.

    images: normalized [N, 3, S, S].
    """
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


def overlay(images: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each image, followed by itself under its heat: [2N, S, S, 3]. heat: [N, h, w] in [0, 1]."""
    import matplotlib
    from PIL import Image

    colors = matplotlib.colormaps["inferno"]
    result = []
    for image, map_ in zip(images, heat, strict=True):
        size = (image.shape[1], image.shape[0])
        smooth = np.asarray(Image.fromarray(map_).resize(size, Image.Resampling.BILINEAR))
        result += [image, (0.4 * image + 0.6 * 255 * colors(smooth)[..., :3]).astype(np.uint8)]
    return np.stack(result)


def _first_of_each_class(labels: NDArray[np.int64]) -> list[int]:
    """A few rows of each class, of the first classes."""
    classes = np.unique(labels)[:_MAX_CLASSES]
    return [int(row) for label in classes for row in np.flatnonzero(labels == label)[:_NUM_OF_A_CLASS]]


def _is_channels_last(features: Tensor) -> bool:
    """Whether a map of a square image is [N, h, w, C], as some transformers have it."""
    return features.shape[2] != features.shape[3] and features.shape[1] == features.shape[2]
