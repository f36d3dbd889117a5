"""The classifier in whose feature space samples are measured, and who knows which class a sample is of.

It learns the training pictures' classes in seconds at the start of a run, or drawn shapes where pictures have no
classes, or it is a run of cifar10. It lies in the run folder, so that a resumed run has the same one. Distances in its
space are named after it; only those in the space of Inception are called FID.
"""

import hashlib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from core import checkpoint, randomness
from core.accelerator import Accelerator
from core.errors import UserError
from core.evaluation import evaluating
from core.optim import decay_groups, one_cycle
from core.run import read_run
from projects.gan.config import Config
from projects.gan.data import Data, Pictures

FILE_NAME = "judge.safetensors"  # in the run folder
BATCH, PEAK_RATE, SHIFT = 128, 0.005, 1
NUM_SHAPES, SMALL = 4_000, "small"
AT_ONCE = 250


class SmallClassifier(nn.Module):
    """Three convolutions; its features are means over the picture of the last one's 64 channels."""

    def __init__(self, channels: int, num_classes: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        for width in widths:
            self.stages.extend([nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()])
            self.stages.append(nn.MaxPool2d(2))
            channels = width
        self.stages.pop(-1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images [N, C, S, S] → logits."""
        logits: Tensor = self.head(self.stages(images).mean((2, 3)))
        return logits


@dataclass
class Judge:
    """A classifier and what its pictures are brought to. title: what results call it."""

    network: nn.Module
    architecture: str
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    size: int
    title: str

    def look(self, pixels: Tensor, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
        """Features float32 [N, D] and classes int64 [N] of pictures uint8 [N, S, S, C], on the CPU."""
        features: list[Tensor] = []
        handle = head_of(self.network).register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        labels = []
        try:
            with evaluating(self.network):
                for part in torch.split(pixels, AT_ONCE):
                    with accelerator.autocast():
                        labels.append(self.network(self.normalized(part.to(accelerator.device))).argmax(1).cpu())
        finally:
            handle.remove()
        return torch.cat([each.float().cpu() for each in features]), torch.cat(labels)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pictures as the network takes them: its size, its channels, its mean and deviation."""
        x = pixels.permute(0, 3, 1, 2).float() / 255
        if x.shape[2] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (self.mean, self.std))
        return (x.expand(-1, len(self.mean), -1, -1) - mean) / std

    def facts(self) -> dict[str, Any]:
        """What run.json says of it; a resumed run needs nothing else but the file of weights."""
        return {
            "title": self.title,
            "architecture": self.architecture,
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "size": self.size,
            "sha256": hashlib.sha256(self.to_bytes()).hexdigest(),
        }

    def to_bytes(self) -> bytes:
        """The weights as safetensors."""
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        return safetensors.torch.save(weights)


def find_judge(config: Config, data: Data, accelerator: Accelerator, taken_up: Path | None) -> Judge:
    """The judge that the settings name; of a run that is taken up, the one in its folder."""
    judge = None if taken_up is None else kept(taken_up)
    if judge is None and config.judge.startswith("run:"):
        judge = from_run(Path(config.judge.removeprefix("run:")))
    if judge is None and config.judge == "auto" and len(data.classes) > 1:
        judge = learned(data.train, data.classes, "the training pictures' classes", config, accelerator)
        right = judge.look(data.held_out.pixels, accelerator)[1] == data.held_out.labels.cpu()
        judge.title += f" ({float(right.float().mean()):.0%} of held-out pictures right)"
    if judge is None:
        from projects.gan.synthetic import CLASSES, draw_pictures

        pixels, labels = draw_pictures(NUM_SHAPES, config.seed, config.size)
        shapes = Pictures(torch.from_numpy(pixels), torch.from_numpy(labels)).to(accelerator.device)
        judge = learned(shapes, CLASSES, "drawn shapes", config, accelerator)
    judge.network.to(accelerator.device).to(memory_format=torch.channels_last)
    return judge


def learned(pictures: Pictures, classes: Sequence[str], what: str, config: Config, accelerator: Accelerator) -> Judge:
    """A small classifier, trained now; the same on every rank."""
    size, channels = pictures.pixels.shape[2:]
    values = pictures.pixels[:: max(1, len(pictures) // 5_000)].float() / 255
    mean = [round(float(value), 4) for value in values.mean((0, 1, 2))]
    std = [round(max(float(value), 1e-3), 4) for value in values.std((0, 1, 2))]
    randomness.seed_all(config.seed, rank=0)
    network = SmallClassifier(channels, len(classes)).to(accelerator.device).to(memory_format=torch.channels_last)
    judge = Judge(network, SMALL, classes, mean, std, size, f"features of a small classifier of {what}")
    optimizer = AdamW(decay_groups(network, 0.01), lr=PEAK_RATE, fused=True)
    scheduler = LambdaLR(optimizer, one_cycle(config.judge_steps))
    accelerator.micro_batch(0, 1)
    for _ in range(config.judge_steps):
        rows = torch.randint(0, len(pictures), (BATCH,)).to(accelerator.device)
        move = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
        with accelerator.autocast():
            logits = network(judge.normalized(pictures.pixels[rows]).roll(move, (2, 3)))
        loss = F.cross_entropy(logits.float(), pictures.labels[rows], label_smoothing=0.1)
        accelerator.step(loss, optimizer, scheduler=scheduler)
    accelerator.check()
    return judge


def from_run(run_dir: Path) -> Judge:
    """The classifier of a run of cifar10 with its best weights. Raises UserError for another kind of run."""
    run = read_run(run_dir)
    facts, project = run["facts"], str(run["project"])
    try:
        architecture, classes = str(facts["model"]), [str(name) for name in facts["classes"]]
        size, mean, std = int(run["config"]["image_size"]), list(facts["mean"]), list(facts["std"])
        network = built(f"{project}:{architecture}", len(mean), len(classes))
    except (KeyError, TypeError, ValueError, AttributeError, ModuleNotFoundError) as error:
        where = f"--judge run:{run_dir} of projects.{project} ({error})"
        raise UserError("not a run of a classifier of pictures", where, "give a run of cifar10") from error
    folder = checkpoint.best(run_dir)
    try:
        state = checkpoint.load(folder, project=project)
        network.load_state_dict(state["ema"]["module"] if "ema" in state else state["model"])
    except (checkpoint.Broken, RuntimeError) as error:
        raise UserError("the best checkpoint is not usable", f"{folder} ({error})", "give another run") from error
    title = f"features of projects.{project}'s {architecture}, step {state['loop']['best_step']}"
    return Judge(network, f"{project}:{architecture}", classes, mean, std, size, title)


def kept(run_dir: Path) -> Judge | None:
    """The judge of a run that is taken up; None where it was stopped before it had kept one."""
    facts, path = read_run(run_dir)["facts"].get("judge"), run_dir / FILE_NAME
    if facts is None or not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise UserError("the run's judge was changed", path, "put the old file back")
    network = built(facts["architecture"], len(facts["mean"]), len(facts["classes"]))
    network.load_state_dict(safetensors.torch.load(content))
    names = ("architecture", "classes", "mean", "std", "size", "title")
    return Judge(network, *(facts[name] for name in names))


def keep(judge: Judge, run_dir: Path) -> None:
    """Puts the judge's weights into the run folder."""
    if not (run_dir / FILE_NAME).exists():
        checkpoint.write_atomically(run_dir / FILE_NAME, judge.to_bytes())


def built(architecture: str, channels: int, num_classes: int) -> nn.Module:
    """A judge's network without its weights: small, or PROJECT:NAME of another project's classifier."""
    if architecture == SMALL:
        return SmallClassifier(channels, num_classes)
    project, _, name = architecture.partition(":")
    if not re.fullmatch(r"[a-z0-9_]+", project):
        raise ValueError(f"{project} is no project")
    model: Any = importlib.import_module(f"projects.{project}.model")  # by name: projects do not know one another
    network: nn.Module = model.build_model(name, num_classes)
    return network


def head_of(network: nn.Module) -> nn.Module:
    """A classifier's last layer, whose input are the features."""
    return [part for part in network.modules() if isinstance(part, nn.Linear)][-1]


def knows(judge: Judge, classes: Sequence[str]) -> bool:
    """Whether the judge's classes are those of the pictures."""
    return len(classes) > 1 and list(judge.classes) == list(classes)
