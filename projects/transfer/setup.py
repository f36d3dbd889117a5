"""What a training is made of, put together from the settings before anything is created."""

import copy
from dataclasses import dataclass

import torch

from core.accelerator import Accelerator
from core.errors import UserError
from core.program import TrainCommand
from core.randomness import seed_all
from core.vision.image_set import ImageSet, statistics
from projects.transfer.adapt import load_target, norm_statistics
from projects.transfer.augment import Preprocessing, stored_side
from projects.transfer.backbone import Source
from projects.transfer.config import Config, Facts
from projects.transfer.data import Data, load_data, training_order
from projects.transfer.model import Classifier, build_classifier
from projects.transfer.pretrained import find_source


@dataclass(frozen=True)
class Setup:
    """What a training is made of. config: the settings, with what auto stood for. target: the images to adapt to, if
    any."""

    config: Config
    source: Source
    preprocessing: Preprocessing
    data: Data
    network: Classifier
    target: ImageSet | None

    @classmethod
    def of(cls, command: TrainCommand[Config], accelerator: Accelerator) -> "Setup":
        """From the settings. Raises UserError for what is wrong with backbone or images; nothing is created."""
        config = command.config
        source = find_source(config, accelerator, command.run_dir if command.resume else None)
        size = config.image_size or source.image_size
        data = load_data(config, stored_side(size, config.crop), accelerator.device)
        config = config.resolved(len(data.train))
        training_order(data, config, accelerator.world)  # says so where a batch is larger than the data
        mean, std = source.mean, source.std
        if mean is None or std is None:
            mean, std = statistics(data.train)
        preprocessing = Preprocessing.of(size, config.crop, mean, std)
        seed_all(config.seed, rank=0)  # all ranks begin with the same weights
        keeps_norms = config.norms == "keep"
        network = build_classifier(source.build(), len(data.classes), size, config.dropout, keeps_norms=keeps_norms)
        if config.batch_size == accelerator.world.size and config.strategy != "head":
            _check_batch_of_one(network, size)
        target = None
        if config.adapt == "adabn":
            norm_statistics(network)  # says so where there is nothing to adapt
        if config.adapt != "none":
            target = load_target(config, data.classes, preprocessing.side, accelerator.device)
        return cls(config, source, preprocessing, data, network, target)

    def facts(self) -> Facts:
        """What export, a resumed run and a further fine-tuning need."""
        source, preprocessing, data = self.source, self.preprocessing, self.data
        return Facts(
            model=source.architecture,
            num_source_classes=source.num_classes,
            source_image_size=source.image_size,
            weights=source.origin,
            weights_sha256=source.sha256,
            classes=tuple(data.classes),
            image_size=preprocessing.size,
            side=preprocessing.side,
            mean=preprocessing.mean,
            std=preprocessing.std,
            num_train=len(data.train),
            num_val=len(data.val),
            num_skipped=len(data.skipped),
            data_sha256=data.sha256,
        )


def _check_batch_of_one(network: Classifier, image_size: int) -> None:
    """Raises UserError where a batch norm cannot be trained on one image, because it has a single place there."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(network).train()(torch.zeros(1, 3, image_size, image_size))
        except ValueError as error:
            raise UserError("a batch norm needs more than one image", "--batch-size 1", "give at least 2") from error
