"""Adapts a trained classifier to pictures of another kind, without labels: python -m projects.transfer.adapt RUN_DIR.

The norms' means and variances are taken anew from the target pictures (AdaBN: Li et al. 2016, arXiv 1603.04779). No
weight changes. Where target pictures lie in folders named like classes, the accuracy is told before and after.
"""

import argparse
import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core import images
from core.accelerator import Accelerator
from core.checkpoint import write_atomically
from core.config import Parser, from_plain, read_json
from core.distributed import World
from core.errors import UserError, run_command
from core.evaluation import evaluating
from core.run import read_run
from projects.transfer.augment import Look
from projects.transfer.config import PROJECT, SYNTHETIC, Config
from projects.transfer.data import Split, is_resident, usable
from projects.transfer.loaders import evaluation_loader
from projects.transfer.model import Classifier
from projects.transfer.restore import look_of, restored
from projects.transfer.source import best_checkpoint
from projects.transfer.synthetic import TARGET_CLASSES, draw_pictures
from projects.transfer.weights import from_bytes, to_bytes

FILE_NAME, REPORT_NAME = "adapted.safetensors", "adapted.json"
NUM_SYNTHETIC = 600


def adapt(
    network: Classifier, target: Split, run_dir: Path, step: int, look: Look, config: Config, accelerator: Accelerator
) -> dict[str, float]:
    """Adapts a copy of the network to the target, writes its statistics into the run folder, and tells the change.

    target: labels are -1 where they are not known. Returns what a summary holds. Raises UserError without norms.
    """
    adapted = copy.deepcopy(network)
    before = statistics(adapted)
    estimate(adapted, target, look, config, accelerator)
    rows = changes(before, statistics(adapted))
    numbers = {
        "adapted_mean_shift": float(np.mean([row["mean_shift"] for row in rows])),
        "adapted_deviation_ratio": float(np.mean([row["deviation_ratio"] for row in rows])),
    }
    known = np.flatnonzero(target.labels >= 0)
    if len(known):
        for name, judged in (("before", network), ("after", adapted)):
            numbers[f"target_accuracy_{name}"] = accuracy(judged, target.take(known), look, config, accelerator)
    content = to_bytes(statistics(adapted))
    report = {
        "step": step,
        "target": config.target,
        "num_pictures": len(target),
        "sha256": hashlib.sha256(content).hexdigest(),
        **numbers,
        "norms": rows,
    }
    write_atomically(run_dir / FILE_NAME, content)
    write_atomically(run_dir / REPORT_NAME, json.dumps(report, indent=1).encode())
    say(numbers, rows, len(target), len(known), run_dir)
    return numbers


def target_pictures(config: Config, classes: Sequence[str], side: int, device: torch.device) -> Split:
    """The target's pictures, in and below its folder; label -1 where the folder of a picture names no class.

    Raises UserError for a broken picture and for fewer than two.
    """
    if config.target == SYNTHETIC:
        pixels, labels = draw_pictures(NUM_SYNTHETIC, config.seed, side, TARGET_CLASSES, "day")
        known = list(classes) == list(TARGET_CLASSES)
        return Split(labels if known else np.full(len(labels), -1), side, torch.from_numpy(pixels).to(device))
    root = Path(str(config.target))
    paths = images.below(root)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.asarray([label_of.get(path.parent.name, -1) for path in paths], dtype=np.int64)
    skipped: list[str] = []
    listing = images.Listing(paths, labels, classes)
    split = usable(listing, side, config, is_resident(len(paths), side, config), skipped)
    if len(split) < 2:
        raise UserError("fewer than two pictures to adapt to", root, "give a folder of pictures")
    if skipped:
        print(f"skipped {len(skipped)} broken pictures of {root}, first: {skipped[0]}")
    return split.to(device)


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """The running means and variances of all batch norms, by name. Raises UserError where there are none."""
    found = {}
    for name, module in norms(network):
        found[f"{name}.running_mean"] = module.running_mean.clone()
        found[f"{name}.running_var"] = module.running_var.clone()
    if not found:
        raise UserError("nothing to adapt", "the network has no batch norms", "leave out --adapt adabn")
    return found


def norms(network: nn.Module) -> list[tuple[str, Any]]:
    """The batch norms that keep statistics, by name."""
    found = [(name, m) for name, m in network.named_modules() if isinstance(m, _BatchNorm)]
    return [(name, m) for name, m in found if m.running_mean is not None]


def estimate(network: Classifier, target: Split, look: Look, config: Config, accelerator: Accelerator) -> None:
    """Takes the norms' statistics anew: the mean over whole batches of the target's pictures, in float32."""
    network.eval()
    changed = [module for _, module in norms(network)]
    for module in changed:
        module.reset_running_stats()
        module.momentum = None  # every batch counts alike
        module.train()
    whole = len(target) // config.batch_size  # a smaller last batch would count too much
    with torch.no_grad():
        for number, (views, _) in enumerate(evaluation_loader(target, look, config, accelerator, World()).batches(0)):
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


def accuracy(network: Classifier, split: Split, look: Look, config: Config, accelerator: Accelerator) -> float:
    """Share of a split's pictures that the network gets right."""
    right = 0
    with evaluating(network):
        for views, labels in evaluation_loader(split, look, config, accelerator, World()).batches(0):
            logits = sum(network(view.float()).softmax(1) for view in views)
            assert isinstance(logits, Tensor)
            right += int((logits.argmax(1) == labels).sum())
    return right / len(split)


def say(
    numbers: Mapping[str, float], rows: Sequence[Mapping[str, Any]], num: int, num_known: int, run_dir: Path
) -> None:
    """Prints the change."""
    widest = max(rows, key=lambda row: row["mean_shift"])
    print(
        f"adapted        {len(rows)} norms to {num:,} pictures: means moved by {numbers['adapted_mean_shift']:.2f} "
        f"deviations (most in {widest['norm']}, {widest['mean_shift']:.2f}), deviations by a factor of "
        f"{numbers['adapted_deviation_ratio']:.2f}"
    )
    if num_known:
        both = [numbers[f"target_accuracy_{name}"] for name in ("before", "after")]
        print(f"target         accuracy {both[0]:.4f} before, {both[1]:.4f} after, on {num_known:,} labeled pictures")
    print(f"next           python -m projects.transfer.export {run_dir} --adapted")


def load_adapted(network: Classifier, run_dir: Path, step: int) -> None:
    """Puts the adapted statistics into a run's classifier of the same step. Raises UserError for another's."""
    report = read_json(run_dir / REPORT_NAME, "the run was not adapted", "run projects.transfer.adapt first")
    if report["step"] != step:
        where = f"{run_dir / REPORT_NAME}: of step {report['step']}, not {step}"
        raise UserError("adapted from another checkpoint", where, "adapt again, or leave out --checkpoint")
    network.load_state_dict({**network.state_dict(), **from_bytes(run_dir / FILE_NAME, report["sha256"])})


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="python -m projects.transfer.adapt", allow_abbrev=False)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--target", required=True, metavar="DIR", help="folder of unlabeled pictures, or synthetic")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    arguments = parser.parse_args(argv)
    if arguments.target != SYNTHETIC and not Path(arguments.target).is_dir():
        raise UserError("no such folder", f"--target {arguments.target}", "give a folder of pictures")
    return arguments


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    run = read_run(arguments.run_dir, PROJECT)
    config = from_plain(Config, run["config"], arguments.run_dir / "run.json")
    config = dataclasses.replace(config, adapt="adabn", target=arguments.target)
    accelerator = Accelerator.of(config)
    _, state = best_checkpoint(arguments.run_dir)
    network = restored(arguments.run_dir, run["facts"], config, state).to(accelerator.device)
    facts, step = run["facts"], state["loop"]["step"]
    look = look_of(facts)
    target = target_pictures(config, facts["classes"], look.side, accelerator.device)
    adapt(network, target, arguments.run_dir, step, look, config, accelerator)


if __name__ == "__main__":
    run_command(main)
