"""What a training is made of, put together from the settings before anything is created."""

from dataclasses import dataclass
from typing import Any

import torch

from core.accelerator import Accelerator
from core.config import Command
from core.randomness import seed_all
from projects.transfer.adapt import statistics, target_pictures
from projects.transfer.augment import Look, stored_side
from projects.transfer.config import Config
from projects.transfer.data import Data, Split, load_data
from projects.transfer.loaders import training_order
from projects.transfer.model import Classifier
from projects.transfer.restore import build_classifier
from projects.transfer.source import Source, find_source


@dataclass(frozen=True)
class Parts:
    """What a training is made of."""

    source: Source
    look: Look
    data: Data
    network: Classifier
    target: Split | None  # what to adapt to

    @classmethod
    def of(cls, command: Command[Config], accelerator: Accelerator) -> "Parts":
        """From the settings. Raises UserError for what is wrong with backbone or pictures; nothing is created."""
        config = command.config
        source = find_source(config, accelerator, command.run_dir if command.resume else None)
        size = config.image_size or source.image_size
        data = load_data(config, stored_side(size, config.crop), accelerator.device)
        training_order(data, config, accelerator.world)  # says so where a batch is larger than the data
        if source.mean is None or source.std is None:
            mean, std = data.statistics()
        else:
            mean, std = tuple(source.mean), tuple(source.std)
        look = Look.of(size, config.crop, mean, std)
        seed_all(config.seed, rank=0)  # all ranks begin with the same weights
        network = build_classifier(source, len(data.classes), size, config.dropout)
        if source.weights is None:
            compute_fixed_filters(network, data, look)
        target = None
        if config.adapt == "adabn":
            statistics(network)  # says so where there is nothing to adapt
            target = target_pictures(config, data.classes, look.side, accelerator.device)
        return cls(source, look, data, network, target)

    def facts(self) -> dict[str, Any]:
        """What run.json says: all that export, a resumed run and a further fine-tuning need."""
        return {
            **self.source.facts(),
            "classes": list(self.data.classes),
            "image_size": self.look.size,
            "side": self.look.side,
            "mean": list(self.look.mean),
            "std": list(self.look.std),
            "num_train": len(self.data.train),
            "num_val": len(self.data.val),
            "skipped": list(self.data.skipped),
        }


def compute_fixed_filters(network: Classifier, data: Data, look: Look) -> None:
    """Has a random backbone compute the filters that it does not learn; `whiten(pictures)` is what it calls that."""
    whiten = getattr(network.backbone, "whiten", None)
    if whiten is not None:
        rows = range(0, len(data.train), max(1, len(data.train) // 5_000))
        pixels = look.middle(torch.from_numpy(data.train.load(rows)).permute(0, 3, 1, 2))
        mean, std = (torch.tensor(values)[:, None, None] for values in (look.mean, look.std))
        whiten((pixels / 255 - mean) / std)
