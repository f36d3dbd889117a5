"""One epoch of training a new head on a frozen backbone: pictures through the backbone every time, or features once.

Both sides show the network the same pictures in the same batches, and end with the same head; the filling of the cache
is a side of its own.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from core.accelerator import Accelerator, cpu_has_bf16
from core.data import Loader
from core.optim import Ema
from projects.transfer.augment import Look
from projects.transfer.backbone import build_backbone, feature_size, without_head
from projects.transfer.config import Config
from projects.transfer.data import Data, Split
from projects.transfer.features import cached_training_loader
from projects.transfer.loaders import Batch, training_loader
from projects.transfer.model import Classifier
from projects.transfer.train import build_optimizer, build_schedule, train_step
from tests.benchmarks import measure

CLASSES = ("ants", "bees")
BASELINE, OURS = "backbone in every epoch", "features from the cache"
SIDES = {
    BASELINE: "each batch of pictures goes through the frozen backbone, --cache no",
    "first epoch, with filling the cache": "every picture goes through the backbone once, then as below",
    OURS: "projects.transfer --strategy head as it is, every epoch but the first",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("transfer", "An epoch of training a head on a frozen backbone.", rounds=5)
    flags.add_argument("--backbone", default="timm:resnet18", help="network, untrained (default: %(default)s)")
    flags.add_argument("--source-classes", type=int, default=1000, help="of its own head (default: %(default)s)")
    flags.add_argument("--image-size", type=int, default=224, help="side of a picture (default: %(default)s)")
    flags.add_argument("--pictures", type=int, default=96, help="of an epoch (default: %(default)s)")
    flags.add_argument("--batch-size", type=int, default=24, help="pictures of a step (default: %(default)s)")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    config = Config(strategy="head", augment="none", batch_size=arguments.batch_size)
    accelerator = Accelerator(device="cpu")
    torch.manual_seed(0)
    backbone = without_head(*build_backbone(arguments.backbone, arguments.source_classes))
    network = Classifier(backbone, feature_size(backbone, arguments.image_size), len(CLASSES))
    network.freeze(len(network.layers))
    network.to(memory_format=torch.channels_last)
    look = Look.of(arguments.image_size, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = random_pictures(arguments.pictures, arguments.image_size)
    fill = partial(cached_training_loader, network.backbone, data, look, config, accelerator)
    cache = fill()
    epoch = partial(train_epoch, network, config, accelerator)
    works: dict[str, Callable[[], None]] = {
        BASELINE: lambda: epoch(training_loader(data, look, config, accelerator), from_features=False),
        "first epoch, with filling the cache": lambda: epoch(fill(), from_features=True),
        OURS: lambda: epoch(cache, from_features=True),
    }
    sides = {name: partial(timed, works[name]) for name in SIDES}
    rows = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
    title = f"{arguments.backbone}, {arguments.pictures} pictures of {arguments.image_size} pixels, 1 epoch"
    measure.show(title, rows, {"wall_ms": "ms", "processor_ms": "ms of processor time"}, BASELINE)
    for name, meaning in SIDES.items():
        print(f"  {name}: {meaning}")
    facts: dict[str, Any] = {"baseline": BASELINE, "ours": OURS, "meanings": SIDES, "native_bf16": cpu_has_bf16()}
    measure.write("transfer", argv, arguments, {"transfer": rows}, **facts)


def random_pictures(num: int, size: int) -> Data:
    """Noise; what is in a picture does not matter to the time that it takes."""
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (num, size, size, 3), dtype=np.uint8))
    split = Split(np.arange(num) % len(CLASSES), size, pixels)
    return Data(CLASSES, split, split, split, ())


def train_epoch(
    network: Classifier, config: Config, accelerator: Accelerator, loader: Loader[Batch], *, from_features: bool
) -> None:
    """The fine-tuning's own steps, with schedule and averaged weights."""
    optimizer = build_optimizer(network, config)
    scheduler = build_schedule(optimizer, config, len(loader))
    ema = Ema(network.head, config.ema)
    network.head.train()
    for batch in loader.batches(epoch=0):
        accelerator.micro_batch(0, 1)
        train_step(
            batch,
            network=network,
            forward=network.head if from_features else network,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=ema,
            accelerator=accelerator,
            config=config,
            class_weights=None,
            steps=len(loader),
        )


def timed(work: Callable[[], None]) -> dict[str, float]:
    """Wall and processor time of one epoch."""
    began, began_processor = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_ms": 1e3 * (time.perf_counter() - began),
        "processor_ms": 1e3 * (time.process_time() - began_processor),
    }


if __name__ == "__main__":
    main()
