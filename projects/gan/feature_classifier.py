"""The classifier whose features samples are measured in, and which says what class a sample is of.

It is trained on the training images' classes in seconds at the start of a run, or on synthetic shapes where images have
no classes, or it is the network of another run. It is stored in the run folder, so that a resumed run has the same one.
Distances between its features are named after it; only those between features of Inception are called FID.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from core import randomness
from core.accelerator import Accelerator
from core.errors import UserError
from core.evaluation import evaluating
from core.files import write_atomically
from core.optim import decay_groups, one_cycle
from core.plain import from_plain
from core.run_record import read_run
from core.vision.image_set import ImageSet, from_pixels
from core.vision.network_file import FILE_NAME, ImageNetwork, load_network, save_network
from projects.gan.config import ClassifierFacts, Config, Facts
from projects.gan.data import Data, pixels_of

STORED_NAME = "feature_classifier.safetensors"  # in the run folder, in the format of core/vision/network_file.py
_BATCH, _PEAK_RATE, _SHIFT_PIXELS = 128, 0.005, 1
_NUM_SHAPES = 4_000
_EVALUATION_BATCH = 250


class SmallClassifier(nn.Module):
    """Three convolutions; its features are the means of the last one's 64 channels over the image."""

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
class FeatureClassifier:
    """A classifier with the preprocessing of its images.

    title: what results call it. content: its file, where it was read from one.
    """

    trained: ImageNetwork
    title: str
    content: bytes | None = None

    def predict(self, pixels: Tensor, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
        """Features float32 [N, D] and classes int64 [N] of images uint8 [N, S, S, C], on the CPU."""
        network = self.trained.network
        features: list[Tensor] = []
        handle = _head(network).register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        labels = []
        try:
            with evaluating(network):
                for part in torch.split(pixels, _EVALUATION_BATCH):
                    with accelerator.autocast():
                        labels.append(network(self.normalized(part.to(accelerator.device))).argmax(1).cpu())
        finally:
            handle.remove()
        return torch.cat([each.float().cpu() for each in features]), torch.cat(labels)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Images as the network takes them: its size, its number of channels, its mean and standard deviation."""
        size, mean, std = self.trained.image_size, self.trained.mean, self.trained.std
        x = pixels.permute(0, 3, 1, 2).float() / 255
        if x.shape[2] != size:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        shift, scale = (torch.tensor(values, device=x.device)[:, None, None] for values in (mean, std))
        return (x.expand(-1, len(mean), -1, -1) - shift) / scale

    def has_classes(self, classes: Sequence[str]) -> bool:
        """Whether its classes are those of the images."""
        return len(classes) > 1 and self.trained.classes == tuple(classes)

    def facts(self) -> ClassifierFacts:
        """What run.json says of it."""
        known = self.trained
        digest = hashlib.sha256(repr((known.classes, known.image_size, known.mean, known.std)).encode())
        for name, tensor in sorted(known.network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return ClassifierFacts(title=self.title, sha256=digest.hexdigest())

    def store(self, run_dir: Path) -> None:
        """Writes it into the run folder, if it is not there yet."""
        known, path = self.trained, run_dir / STORED_NAME
        if path.exists():
            return
        if self.content is not None:
            write_atomically(path, self.content)
        else:
            save_network(
                path,
                known.network,
                architecture=known.architecture,
                image_size=known.image_size,
                mean=known.mean,
                std=known.std,
                classes=known.classes,
            )


def find_classifier(config: Config, data: Data, accelerator: Accelerator, resumed: Path | None) -> FeatureClassifier:
    """The classifier that the settings name; of a run that is resumed, the one in its folder.

    Raises UserError for another run that has no network for other projects, and for a stored one that was changed.
    """
    classifier = None if resumed is None else stored_classifier(resumed)
    if classifier is None and config.classifier_run:
        classifier = classifier_of_run(Path(config.classifier_run))
    if classifier is None and config.feature_classifier == "auto" and len(data.classes) > 1:
        classifier = _trained(data.train, data.classes, "the training images' classes", config, accelerator)
        predicted = classifier.predict(pixels_of(data.held_out), accelerator)[1].numpy()
        classifier.title += f" ({(predicted == data.held_out.labels).mean():.0%} of held-out images right)"
    if classifier is None:
        from projects.gan.synthetic import CLASSES, generate_images

        shapes = from_pixels(*generate_images(_NUM_SHAPES, config.seed, config.size)).to(accelerator.device)
        classifier = _trained(shapes, CLASSES, "synthetic shapes", config, accelerator)
    classifier.trained.network.to(accelerator.device).to(memory_format=torch.channels_last)
    return classifier


def classifier_of_run(run_dir: Path) -> FeatureClassifier:
    """The network that a finished run of another project has stored for others."""
    path = run_dir / FILE_NAME
    network = load_network(path)
    if not any(isinstance(part, nn.Linear) for part in network.network.modules()):
        raise UserError("a network without a linear layer at its end", path, "give another run")
    title = f"features of {network.architecture} of the run {run_dir.resolve().name}"
    return FeatureClassifier(network, title, path.read_bytes())


def stored_classifier(run_dir: Path) -> FeatureClassifier | None:
    """The classifier in a run folder; None where the run was stopped before it was stored."""
    path = run_dir / STORED_NAME
    if not path.exists():
        return None
    facts = from_plain(Facts, read_run(run_dir, "gan")["facts"], run_dir / "run.json").classifier
    classifier = FeatureClassifier(load_network(path), facts.title)
    if classifier.facts() != facts:
        raise UserError("the run's classifier was changed", path, "put the old file back")
    return classifier


def _trained(
    images: ImageSet, classes: Sequence[str], what: str, config: Config, accelerator: Accelerator
) -> FeatureClassifier:
    """A small classifier, trained now; the same on every rank."""
    pixels, labels = pixels_of(images), torch.from_numpy(images.labels).to(accelerator.device)
    size, channels = pixels.shape[2:]
    values = pixels[:: max(1, len(pixels) // 5_000)].float() / 255
    mean = tuple(round(float(value), 4) for value in values.mean((0, 1, 2)))
    std = tuple(round(max(float(value), 1e-3), 4) for value in values.std((0, 1, 2)))
    randomness.seed_all(config.seed, rank=0)
    network = SmallClassifier(channels, len(classes)).to(accelerator.device).to(memory_format=torch.channels_last)
    trained = ImageNetwork(network, "small", size, mean, std, tuple(classes))
    classifier = FeatureClassifier(trained, f"features of a small classifier of {what}")
    optimizer = AdamW(decay_groups(network, 0.01), lr=_PEAK_RATE, fused=True)
    scheduler = LambdaLR(optimizer, one_cycle(config.classifier_steps))
    for _ in range(config.classifier_steps):
        rows = torch.randint(0, len(images), (_BATCH,)).to(accelerator.device)
        shift = torch.randint(-_SHIFT_PIXELS, _SHIFT_PIXELS + 1, (2,)).tolist()
        with accelerator.autocast():
            logits = network(classifier.normalized(pixels[rows]).roll(shift, (2, 3)))
        loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=0.1)
        accelerator.step(loss, optimizer, scheduler=scheduler)
    accelerator.check()
    return classifier


def _head(network: nn.Module) -> nn.Module:
    """A classifier's last layer, whose input are the features."""
    return [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
