"""One epoch of training a new head on a frozen backbone: images through the backbone every time, or features once.

Both sides show the network the same images in the same batches, and end with the same head; the filling of the cache
is a side of its own.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from core.accelerator import Accelerator
from core.data import Loader
from core.devices import cpu_has_bf16
from core.learner import Learner
from core.vision.image_set import from_pixels
from projects.transfer.augment import Preprocessing
from projects.transfer.config import Config
from projects.transfer.data import Batch, Data, training_loader
from projects.transfer.features import cached_training_loader
from projects.transfer.model import Classifier, build_classifier, build_network, without_head
from projects.transfer.optimizer import build_optimizer, build_schedules
from projects.transfer.train import train_step
from tests.benchmarks import measure

CLASSES = ("ants", "bees")
BASELINE, OURS = "backbone in every epoch", "features from the cache"
SIDES = {
    BASELINE: "each batch of images goes through the frozen backbone, --cache no",
    "first epoch, with filling the cache": "every image goes through the backbone once, then as below",
    OURS: "projects.transfer --strategy head as it is, every epoch but the first",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("transfer", "An epoch of training a head on a frozen backbone.", rounds=5)
    flags.add_argument("--backbone", default="timm:resnet18", help="network, untrained (default: %(default)s)")
    flags.add_argument("--source-classes", type=int, default=1000, help="of its own head (default: %(default)s)")
    flags.add_argument("--image-size", type=int, default=224, help="side of a image (default: %(default)s)")
    flags.add_argument("--images", type=int, default=96, help="of an epoch (default: %(default)s)")
    flags.add_argument("--batch-size", type=int, default=24, help="images of a step (default: %(default)s)")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    config = Config(strategy="head", augment="none", batch_size=arguments.batch_size)
    accelerator = Accelerator(device="cpu")
    torch.manual_seed(0)
    backbone = without_head(*build_network(arguments.backbone, arguments.source_classes))
    network = build_classifier(backbone, len(CLASSES), arguments.image_size, dropout=0.0)
    network.freeze(len(network.layers))
    network.to(memory_format=torch.channels_last)
    preprocessing = Preprocessing.of(arguments.image_size, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = random_data(arguments.images, arguments.image_size)
    fill = partial(cached_training_loader, network.backbone, data, preprocessing, config, accelerator)
    cache = fill()
    epoch = partial(train_epoch, network, config, accelerator)
    works: dict[str, Callable[[], None]] = {
        BASELINE: lambda: epoch(training_loader(data, preprocessing, config, accelerator), from_features=False),
        "first epoch, with filling the cache": lambda: epoch(fill(), from_features=True),
        OURS: lambda: epoch(cache, from_features=True),
    }
    sides = {name: partial(timed, works[name]) for name in SIDES}
    rows = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
    title = f"{arguments.backbone}, {arguments.images} images of {arguments.image_size} pixels, 1 epoch"
    measure.show(title, rows, {"wall_ms": "ms", "processor_ms": "ms of processor time"}, BASELINE)
    for name, meaning in SIDES.items():
        print(f"  {name}: {meaning}")
    facts: dict[str, Any] = {"baseline": BASELINE, "ours": OURS, "meanings": SIDES, "native_bf16": cpu_has_bf16()}
    measure.write("transfer", argv, arguments, {"transfer": rows}, **facts)


def random_data(num: int, size: int) -> Data:
    """Noise; what is in a image does not matter to the time that it takes."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (num, size, size, 3), dtype=np.uint8)
    images = from_pixels(pixels, np.arange(num) % len(CLASSES))
    return Data(CLASSES, images, images, images, sha256="", notes=(), skipped=())


def train_epoch(
    network: Classifier, config: Config, accelerator: Accelerator, loader: Loader[Batch], *, from_features: bool
) -> None:
    """The fine-tuning's own steps, with schedule and averaged weights."""
    steps = len(loader)
    optimizer = build_optimizer(network, config)
    schedules = build_schedules(optimizer, config, steps)
    whole = None if from_features else network
    learner: Learner[nn.Module] = Learner(network.head, optimizer, schedules, accelerator, ema=config.ema, whole=whole)
    network.head.train()
    for batch in loader.batches(epoch=0):
        train_step(batch, learner=learner, network=network, config=config, class_weights=None, steps=steps)


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
