"""Accuracy against the number of images of a class: python -m projects.transfer.few_images RUN_DIR.

For a run with a frozen backbone. Heads are fitted to the features of a few training images of each class, drawn at
random several times, and tested on the run's test images: what to expect of 5, 10 or 20 images of one's own. A head
here is a logistic regression on the features of each image and its mirror image. Writes plots/few_images.png and
few_images.json into the run folder.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core import plots
from core.accelerator import Accelerator
from core.command_line import Parser, positive_number
from core.distributed import World
from core.environment import environment
from core.errors import UserError, run_command
from core.files import write_json
from core.stored_run import load_run
from core.vision.classification_export import check_same_data
from core.vision.image_set import ImageSet
from projects.transfer.augment import Preprocessing
from projects.transfer.backbone import load_classifier
from projects.transfer.config import Config, Facts
from projects.transfer.data import load_data
from projects.transfer.features import cached_evaluation_loader
from projects.transfer.model import Classifier

_FILE_NAME = "few_images.json"
_INVERSE_PENALTY = 0.1  # chosen by cross-validation on the training images of ants and bees among 0.001 to 0.1
_Views = tuple[list[NDArray[np.float32]], NDArray[np.int64]]  # features [N, F] of each view, labels [N]


def _accuracies(train: _Views, test: _Views, num: int | None, num_draws: int, seed: int) -> list[float]:
    """Test accuracies of heads fitted to `num` random images of each class, one a draw; None: to all, once."""
    linear_model: Any = importlib.import_module("sklearn.linear_model")
    result = []
    for draw in range(1 if num is None else num_draws):
        random = np.random.default_rng((seed, draw, num or 0))
        rows = np.concatenate(
            [random.permutation(np.flatnonzero(train[1] == label))[:num] for label in np.unique(train[1])]
        )
        inputs = np.concatenate([view[rows] for view in train[0]])
        head = linear_model.LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
        head.fit(inputs, np.tile(train[1][rows], len(train[0])))
        probabilities = sum(head.predict_proba(view) for view in test[0])
        result.append(float((head.classes_[probabilities.argmax(1)] == test[1]).mean()))
    return result


def _features(
    network: Classifier, images: ImageSet, preprocessing: Preprocessing, config: Config, accelerator: Accelerator
) -> _Views:
    """The backbone's features of all images of a set, plain and mirrored."""
    loader = cached_evaluation_loader(network.backbone, images, preprocessing, config, accelerator, World())
    batches = list(loader.batches(0))
    views = zip(*(views for views, _ in batches), strict=True)
    labels = torch.cat([labels for _, labels in batches]).cpu().numpy()
    return [torch.cat(parts).float().cpu().numpy() for parts in views], labels


def _draw_curve(points: Sequence[dict[str, Any]], name: str, path: Path) -> None:
    """Mean accuracy and its spread over draws, against the number of training images of a class."""
    drawn, grid = plots.figure(5.2, 3.8)
    numbers = [point["num_of_a_class"] for point in points]
    means, spreads = ([np.mean(p["accuracies"]) for p in points], [np.std(p["accuracies"]) for p in points])
    grid[0, 0].errorbar(numbers, means, spreads, fmt="o-", capsize=3)
    for number, mean in zip(numbers, means, strict=True):
        offset = (4, -14)
        grid[0, 0].annotate(f"{mean:.3f}", (number, mean), textcoords="offset points", xytext=offset, fontsize=8)
    grid[0, 0].set(xscale="log", xlabel="training images of a class", ylabel="test accuracy", title=name)
    grid[0, 0].set_xticks(numbers, [f"{number:g}" for number in numbers], minor=False)
    grid[0, 0].minorticks_off()
    grid[0, 0].grid(alpha=0.3)
    plots.save_figure(drawn, path)


def main() -> None:
    """The command line."""
    parser = Parser("projects.transfer.few_images", (__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run with --strategy head")
    help_ = "training images of each class (default: 5 10 20); all of them come last"
    parser.add_argument("--num", type=positive_number, nargs="+", default=[5, 10, 20], metavar="N", help=help_)
    parser.add_argument("--draws", type=positive_number, default=10, help="random draws of each (default: %(default)s)")
    arguments = parser.parse_args()
    run = load_run(arguments.run_dir, "best", Config, Facts)
    config, facts = run.config, run.facts
    if config.strategy != "head":
        todo = "give a run with --strategy head, whose backbone has not seen the images"
        raise UserError("the backbone was trained on all images", f"--strategy {config.strategy} in {run.path}", todo)
    accelerator = Accelerator.of(config)
    data = load_data(config, facts.side, accelerator.device)
    check_same_data(data.sha256, facts.data_sha256, config.data)
    network = load_classifier(run).to(accelerator.device).to(memory_format=torch.channels_last)
    preprocessing = Preprocessing(facts.image_size, facts.side, facts.mean, facts.std)
    train, test = (_features(network, images, preprocessing, config, accelerator) for images in (data.train, data.test))
    smallest = int(np.bincount(train[1]).min())
    if too_many := [num for num in arguments.num if num > smallest]:
        where = f"--num {too_many[0]}, the rarest class has {smallest}"
        raise UserError("more images than a class has", where, "give smaller numbers")
    points = []
    for num in (*sorted(arguments.num), None):
        found = _accuracies(train, test, num, arguments.draws, config.seed)
        mean_num = num if num is not None else len(train[1]) / len(facts.classes)
        points.append({"num_of_a_class": mean_num, "accuracies": found})
        print(f"{mean_num:6g} images of a class: accuracy {np.mean(found):.4f} ± {np.std(found):.4f}")
    known = {key: value for key, value in environment(World()).items() if key != "command"}  # it names folders
    sizes = " ".join(map(str, arguments.num))
    command = f"python -m projects.transfer.few_images RUN_DIR --num {sizes} --draws {arguments.draws}"
    write_json(run.path / _FILE_NAME, {"command": command, "points": points, "environment": known})
    _draw_curve(points, f"{facts.model}, new head", run.path / "plots" / "few_images.png")
    print(f"plot           {run.path / 'plots' / 'few_images.png'}")


if __name__ == "__main__":
    run_command(main)
