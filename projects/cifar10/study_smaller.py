"""Smaller and faster: 8-bit weights, channels taken out, weights masked, a small network with and without a teacher.

All are measured as what is deployed, the ONNX file: accuracy on validation images, bytes as they are and compressed,
milliseconds on one thread. Masked weights (projects/cifar10/pruning.py) are zeros that are multiplied like any others.
"""

import copy
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from core import plots
from core.accelerator import Accelerator
from core.evaluation import count_weights
from core.export import save_graph
from core.parity import compare_outputs
from core.quantize import milliseconds
from core.vision.classification import TASK
from core.vision.classification_export import accuracy_of, classifier_spec, quantize_classifier
from core.vision.preprocessing import CenterSquare, ImageClassifier
from projects.cifar10.config import Config
from projects.cifar10.data import Data
from projects.cifar10.distillation import Distillation
from projects.cifar10.pruning import mask, unmask, without_channels
from projects.cifar10.study_networks import count_flops
from projects.cifar10.study_options import SmallerOptions
from projects.cifar10.study_report import Report, Row
from projects.cifar10.study_training import by_steps, load, network_for, settings, train_shortly

_SHOWN = {
    "network": "",
    "val_accuracy": ".4f",
    "weights": ",",
    "million_multiply_adds": ",.1f",
    "megabytes": ".2f",
    "megabytes_compressed": ".2f",
    "milliseconds_of_1_image": ".2f",
    "milliseconds_of_64_images": ".1f",
}
_NUM_JUDGED, _ROUNDS = 2_500, 31


@dataclass(frozen=True)
class _File:
    """An ONNX file, and the network in it."""

    path: Path
    network: nn.Module


def study(options: SmallerOptions) -> Report:
    """Trains a network, makes it smaller in each way, trains on for a while, and measures the files."""
    config = settings(options, optimizer="sgd", lr=options.lr)
    tuning = replace(config, lr=options.tuning_lr)
    data = load(config, Accelerator.of(config).device, _NUM_JUDGED)
    small = without_channels(network_for(options.model, data, config), options.channels)  # refuses what cannot be
    base = network_for(options.model, data, config)
    train_shortly(base, data, config, by_steps(options.max_steps))
    networks = {"base": base}
    name = f"{options.channels:.0%} of channels removed"
    networks[f"{name}, not trained on"] = without_channels(base, options.channels)
    networks[name] = without_channels(base, options.channels)
    train_shortly(networks[name], data, tuning, by_steps(options.tuning_steps))
    name = f"{options.weights:.0%} of weights masked"
    networks[name] = copy.deepcopy(base)
    mask(networks[name], options.weights)
    train_shortly(networks[name], data, tuning, by_steps(options.tuning_steps))
    unmask(networks[name])
    for name, teacher in (("as small, from scratch", None), ("as small, with a teacher", base)):
        networks[name] = copy.deepcopy(small)
        distillation = None
        if teacher is not None:
            frozen = copy.deepcopy(teacher).eval().requires_grad_(False)
            distillation = Distillation(frozen, config.teacher_weight, config.temperature)
        train_shortly(networks[name], data, config, by_steps(options.max_steps), distillation=distillation)
    with tempfile.TemporaryDirectory() as folder:
        rows = _measured(_exported(networks, data, config, Path(folder)), data, config)
    return Report(rows, _SHOWN, lambda path: _draw(rows, path), {})


def _exported(networks: Mapping[str, nn.Module], data: Data, config: Config, folder: Path) -> dict[str, _File]:
    """The networks as ONNX files that equal them; each that is trained to its end in 8 bits too."""
    files: dict[str, _File] = {}
    for number, (name, network) in enumerate(networks.items()):
        path = folder / f"{number}.onnx"
        preprocessing = CenterSquare(config.image_size, data.mean, data.std)
        module = ImageClassifier(
            copy.deepcopy(network).cpu().eval(), preprocessing, config.test_flip, config.test_shift
        )
        spec = classifier_spec(module, TASK, None, len(data.classes))
        save_graph(spec, path)
        compare_outputs(spec, path)
        files[name] = _File(path, module.network)
        if name in ("base", next((n for n in networks if n.endswith("removed")), "")):
            small = folder / f"{number}.int8.onnx"
            quantize_classifier(path, small, data.train)
            files[f"{name}, 8 bits" if name != "base" else "8 bits"] = _File(small, module.network)
    return files


def _measured(files: Mapping[str, _File], data: Data, config: Config) -> list[Row]:
    """A row for each file; times are measured in turns, so that another program slows all of them alike."""
    images = data.val.load(range(len(data.val)))
    paths = [file.path for file in files.values()]
    times = [milliseconds(paths, "image", images[:num], _ROUNDS) for num in (1, 64)]
    return [
        {
            "network": name,
            "val_accuracy": accuracy_of(file.path, images, data.val.labels),
            "weights": count_weights(file.network),
            "million_multiply_adds": count_flops(file.network, config.image_size) / 2e6,
            "megabytes": file.path.stat().st_size / 1e6,
            "megabytes_compressed": len(zlib.compress(file.path.read_bytes(), 9)) / 1e6,
            "milliseconds_of_1_image": times[0][number],
            "milliseconds_of_64_images": times[1][number],
        }
        for number, (name, file) in enumerate(files.items())
    ]


def _draw(rows: list[Row], path: Path) -> None:
    """Accuracy over time, and over size; a color for each file."""
    drawn, grid = plots.figure(13, 4.2, 1, 2)
    panels: dict[str, str] = {"milliseconds_of_64_images": "milliseconds of 64 images", "megabytes": "megabytes"}
    for axis, (key, label) in zip(grid[0], panels.items(), strict=True):
        for row in rows:
            axis.scatter(row[key], row["val_accuracy"], s=60, label=row["network"])
        axis.set(xlabel=label, ylabel="validation accuracy", xlim=(0, None))
        axis.grid(alpha=0.3)
    grid[0][1].legend(fontsize=8, loc="lower right")
    plots.save_figure(drawn, path)
