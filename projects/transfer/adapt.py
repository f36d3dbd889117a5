"""Adapts a trained classifier to images of another kind, without labels: python -m projects.transfer.adapt RUN_DIR.

The means and variances of the batch norms are estimated anew from the target images (AdaBN: Li et al. 2016, arXiv
1603.04779). No weight changes. Where target images lie in folders named like classes, the accuracy before and after is
printed.
"""

import copy
import dataclasses
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.accelerator import Accelerator
from core.command_line import Parser
from core.distributed import World
from core.errors import UserError, printable, run_command
from core.evaluation import evaluating
from core.files import read_json, write_atomically, write_json
from core.stored_run import load_run
from core.vision.folders import list_images
from core.vision.image_set import ImageSet, from_listing, from_pixels, is_resident
from core.vision.preprocessing import mean_probabilities
from projects.transfer.augment import Preprocessing
from projects.transfer.backbone import load_classifier
from projects.transfer.config import SYNTHETIC, Config, Facts
from projects.transfer.data import evaluation_loader
from projects.transfer.model import Classifier
from projects.transfer.synthetic import TARGET_CLASSES, draw_images

FILE_NAME, REPORT_NAME = "adapted.safetensors", "adapted.json"
_NUM_SYNTHETIC = 600
_TODO = "run projects.transfer.adapt again"


def adapt(
    network: Classifier,
    target: ImageSet,
    run_dir: Path,
    step: int,
    preprocessing: Preprocessing,
    config: Config,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Adapts a copy of the network to the target, writes its statistics into the run folder, and prints the change.

    target: labels are -1 where they are not known. Returns what a summary holds. Raises UserError without norms.
    """
    adapted = copy.deepcopy(network)
    before = norm_statistics(adapted)
    estimate(adapted, target, preprocessing, config, accelerator)
    after = norm_statistics(adapted)
    rows = changes(before, after)
    numbers = {
        "adapted_mean_shift": float(np.mean([row["mean_shift"] for row in rows])),
        "adapted_deviation_ratio": float(np.mean([row["deviation_ratio"] for row in rows])),
    }
    known = np.flatnonzero(target.labels >= 0)
    if len(known):
        for name, each in (("before", network), ("after", adapted)):
            numbers[f"target_accuracy_{name}"] = accuracy(each, target.take(known), preprocessing, config, accelerator)
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in after.items()})
    report = {
        "step": step,
        "target": config.target,
        "num_images": len(target),
        "sha256": hashlib.sha256(content).hexdigest(),
        **numbers,
        "norms": rows,
    }
    write_atomically(run_dir / FILE_NAME, content)
    write_json(run_dir / REPORT_NAME, report)
    _say(numbers, rows, len(target), len(known), run_dir)
    return numbers


def load_target(config: Config, classes: Sequence[str], side: int, device: torch.device) -> ImageSet:
    """The target's images, in and below its folder; label -1 where no folder of an image names a class.

    Raises UserError for a broken image and for fewer than two.
    """
    if config.target == SYNTHETIC:
        pixels, labels = draw_images(_NUM_SYNTHETIC, config.seed, side, TARGET_CLASSES, "day")
        known = list(classes) == list(TARGET_CLASSES)
        return from_pixels(pixels, labels if known else np.full(len(labels), -1)).to(device)
    root = Path(str(config.target))
    listing = list_images(root)
    label_of = {name: label for label, name in enumerate(classes)}
    folders = [reversed(path.relative_to(root).parent.parts) for path in listing.paths]
    labels = np.asarray([next((label_of[name] for name in each if name in label_of), -1) for each in folders])
    resident = is_resident(len(labels), side, config.resident)
    images, skipped = from_listing(
        dataclasses.replace(listing, labels=labels), side, resident=resident, on_fault=config.on_fault
    )
    if len(images) < 2:
        raise UserError("fewer than two images to adapt to", root, "give a folder of images")
    for note in listing.notes:
        print(f"note: {printable(note)}")
    if skipped:
        print(printable(f"note: skipped {len(skipped)} broken images of {root}; first: {skipped[0]}"))
    return images.to(device)


def norm_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The running means and variances of all batch norms, by name. Raises UserError where there are none."""
    found = {}
    for name, module in _norms(network):
        found[f"{name}.running_mean"] = module.running_mean.clone()
        found[f"{name}.running_var"] = module.running_var.clone()
    if not found:
        raise UserError("nothing to adapt", "the network has no batch norms", "leave out --adapt adabn")
    return found


def estimate(
    network: Classifier, target: ImageSet, preprocessing: Preprocessing, config: Config, accelerator: Accelerator
) -> None:
    """Sets the norms' statistics to their means over whole batches of the target's images, in float32."""
    network.eval()
    for _, module in _norms(network):
        module.reset_running_stats()
        module.momentum = None  # every batch counts alike
        module.train()
    whole = len(target) // config.batch_size  # a smaller last batch would count too much
    loader = evaluation_loader(target, preprocessing, config, accelerator, World())
    with torch.no_grad():
        for number, (views, _) in enumerate(loader.batches(0)):
            if number < max(1, whole):
                network(views[0].float())
    network.eval()


def changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """For each norm, the shift of its means in deviations of before, and the ratio of its deviations, over channels."""
    rows = []
    for name in (key.removesuffix(".running_mean") for key in before if key.endswith(".running_mean")):
        deviation, new = (side[f"{name}.running_var"].clamp(min=1e-12).sqrt() for side in (before, after))
        shift = (after[f"{name}.running_mean"] - before[f"{name}.running_mean"]).abs() / deviation
        row = {"norm": name, "mean_shift": float(shift.mean()), "deviation_ratio": float((new / deviation).mean())}
        rows.append(row)
    return rows


def target_accuracy(
    network: Classifier, target: ImageSet, preprocessing: Preprocessing, config: Config, accelerator: Accelerator
) -> dict[str, float]:
    """What a summary holds of a network that was trained for a target; nothing where no label is known there."""
    known = np.flatnonzero(target.labels >= 0)
    if not len(known):
        return {}
    share = accuracy(network, target.take(known), preprocessing, config, accelerator)
    print(f"target         accuracy {share:.4f} on {len(known):,} labeled images")
    return {"target_accuracy_after": share}


def accuracy(
    network: Classifier, images: ImageSet, preprocessing: Preprocessing, config: Config, accelerator: Accelerator
) -> float:
    """Share of a set's images that the network predicts right."""
    right = 0
    with evaluating(network):
        for views, labels in evaluation_loader(images, preprocessing, config, accelerator, World()).batches(0):
            probabilities = mean_probabilities(network, [view.float() for view in views])
            right += int((probabilities.argmax(1) == labels).sum())
    return right / len(images)


def load_adapted(network: Classifier, run_dir: Path, step: int) -> None:
    """Puts the adapted statistics into a run's classifier of the same step. Raises UserError for another's."""
    report = read_json(run_dir / REPORT_NAME, "the run was not adapted", "run projects.transfer.adapt first")
    if report.get("step") != step:
        where = f"{run_dir / REPORT_NAME}: of step {report.get('step')}, not {step}"
        raise UserError("adapted from another checkpoint", where, "adapt again, or leave out --checkpoint")
    path = run_dir / FILE_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        where = f"{path} ({(error.strerror or 'unreadable').lower()})"
        raise UserError("the adapted statistics are missing", where, _TODO) from error
    if hashlib.sha256(content).hexdigest() != report.get("sha256"):
        raise UserError("the adapted statistics were changed", f"{path}: digest mismatch", _TODO)
    network.load_state_dict({**network.state_dict(), **safetensors.torch.load(content)})


def _norms(network: nn.Module) -> list[tuple[str, Any]]:
    """The batch norms that keep statistics, by name."""
    found = [(name, m) for name, m in network.named_modules() if isinstance(m, _BatchNorm)]
    return [(name, m) for name, m in found if m.running_mean is not None]


def _say(
    numbers: Mapping[str, float], rows: Sequence[Mapping[str, Any]], num: int, num_known: int, run_dir: Path
) -> None:
    """Prints the change."""
    widest = max(rows, key=lambda row: row["mean_shift"])
    print(
        f"adapted        {len(rows)} norms to {num:,} images: means moved by {numbers['adapted_mean_shift']:.2f} "
        f"deviations (most in {widest['norm']}, {widest['mean_shift']:.2f}), deviations by a factor of "
        f"{numbers['adapted_deviation_ratio']:.2f}"
    )
    if num_known:
        both = [numbers[f"target_accuracy_{name}"] for name in ("before", "after")]
        print(f"target         accuracy {both[0]:.4f} before, {both[1]:.4f} after, on {num_known:,} labeled images")
    print(f"next           python -m projects.transfer.export {shlex.quote(str(run_dir))} --adapted")


def main() -> None:
    """The command line."""
    parser = Parser("projects.transfer.adapt", (__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--target", required=True, metavar="DIR", help="folder of unlabeled images, or synthetic")
    arguments = parser.parse_args()
    if arguments.target != SYNTHETIC and not Path(arguments.target).is_dir():
        raise UserError("no such folder", f"--target {arguments.target}", "give a folder of images")
    run = load_run(arguments.run_dir, "best", Config, Facts)
    config = dataclasses.replace(run.config, adapt="adabn", target=arguments.target)
    accelerator, facts = Accelerator.of(config), run.facts
    network = load_classifier(run).to(accelerator.device)
    preprocessing = Preprocessing(facts.image_size, facts.side, facts.mean, facts.std)
    target = load_target(config, facts.classes, preprocessing.side, accelerator.device)
    adapt(network, target, run.path, run.step, preprocessing, config, accelerator)


if __name__ == "__main__":
    run_command(main)
