"""Images a second of CIFAR training on a CPU, end to end: the classifier's own way against the usual one, and the
steps between the two.

The usual way: JPEG files in folders, torchvision's ImageFolder and transforms on PIL images, float32, default
memory layout, allocator and SGD. Memory settings hold for a whole process, so every measurement is a process of its
own; sides run in turns.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD

from core.accelerator import Accelerator
from core.devices import cpu_has_bf16, set_up_backend
from core.distributed import World
from core.learner import Learner
from core.trainer import total_steps
from core.vision.image_set import from_pixels
from projects.cifar10.config import Config
from projects.cifar10.data import Data, training_loader
from projects.cifar10.model import build_model
from projects.cifar10.outlines import CLASSES
from projects.cifar10.synthetic import draw_images
from projects.cifar10.train import build_optimizer, build_schedule, train_step
from tests.benchmarks import measure
from tests.benchmarks.measure import StepClock

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
USUAL, OURS = "usual", "ours"
# What each side adds to the one before it.
LADDER = {
    USUAL: "JPEG files, PIL transforms, float32, NCHW",
    "bf16": "+ bfloat16 autocast",
    "channels_last": "+ channels_last",
    "resident": "+ resident uint8, a batch augmented at a time",
    "malloc": "+ freed memory kept",
    OURS: "projects.cifar10 as it is: + fused SGD, averaged weights, schedule, checks",
}
WITH_WORKERS = "usual, 2 workers"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("images", "Images a second of CIFAR training on a CPU.", rounds=3)
    flags.add_argument("--steps", type=int, default=12, help="measured steps a process (default: %(default)s)")
    flags.add_argument("--warmup", type=int, default=3, help="steps before the clock starts (default: %(default)s)")
    flags.add_argument("--batch-size", type=int, default=500, help="images of a step (default: %(default)s)")
    flags.add_argument("--ladder", action="store_true", help="the steps between the two ways as well")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    names = [*LADDER, WITH_WORKERS] if arguments.ladder else [USUAL, OURS]
    skipped: dict[str, str] = {}
    if find_spec("torchvision") is not None:
        import torchvision  # noqa: F401  here, once, and not in every child
    else:
        skipped = {name: "torchvision is not installed" for name in names if uses_files(name)}
    names = [name for name in names if name not in skipped]
    baseline = USUAL if USUAL in names else names[0]
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), (arguments.warmup + arguments.steps + 1) * arguments.batch_size, skipped == {})
        sides = {name: partial(in_a_process, name, arguments, Path(folder)) for name in names}
        rows = measure.summarize(measure.interleaved(sides, arguments.rounds), baseline)
    title = f"Training the fast network on 32×32 images, batch {arguments.batch_size}, {arguments.threads} thread(s)"
    columns = {"images_per_second": "images/s", "images_per_processor_second": "images/s of processor time"}
    columns["page_faults_per_step"] = "page faults a step"
    measure.show(title, rows, columns, baseline)
    for name in names:
        print(f"  {name}: {description(name)}")
    meanings = {name: description(name) for name in names}
    facts: dict[str, Any] = {"baseline": baseline, "ours": OURS, "meanings": meanings, "native_bf16": cpu_has_bf16()}
    measure.write("images", argv, arguments, {"images": rows}, skipped, **facts)


def uses_files(name: str) -> bool:
    """Whether a side decodes files with torchvision."""
    return name in (USUAL, "bf16", "channels_last", WITH_WORKERS)


def description(name: str) -> str:
    """What a side is."""
    return LADDER.get(name, "the usual way with two processes that load data, on further cores")


def make_images(folder: Path, num: int, files: bool) -> None:
    """Generated images as arrays, and the same ones as a folder of JPEG files for each class."""
    from PIL import Image

    pixels, labels = draw_images(num, seed=0)
    np.savez(folder / "images.npz", pixels=pixels, labels=labels)
    if files:
        for name in CLASSES:
            (folder / "train" / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = folder / "train" / CLASSES[label] / f"{number:05d}.jpg"
            Image.fromarray(image).save(path, quality=95)


def in_a_process(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One measurement in a child of its own, forked before anything has been computed or set."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(one_side(name, arguments, folder)))
    child.start()
    sender.close()
    try:
        found: dict[str, float] = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{name} failed; its message is above") from None
    finally:
        child.join()
    return found


def one_side(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Trains in one way and returns images a second, of wall time and of this process's processor time."""
    clock = StepClock(arguments.warmup, arguments.steps)
    torch.manual_seed(0)
    if name == OURS:
        our_way(clock, arguments, folder)
    else:
        rung = 0 if name == WITH_WORKERS else list(LADDER).index(name)
        usual_way(clock, arguments, folder, rung, workers=2 if name == WITH_WORKERS else 0)
    processor, wall = clock.seconds()
    images = arguments.steps * arguments.batch_size
    # Loading processes have processor time of their own, which this process's clock does not see.
    of_processor = images / (wall if name == WITH_WORKERS else processor)
    return {
        "images_per_second": images / wall,
        "images_per_processor_second": of_processor,
        "page_faults_per_step": clock.page_faults() / arguments.steps,
    }


def usual_way(clock: StepClock, arguments: argparse.Namespace, folder: Path, rung: int, workers: int) -> None:
    """A training loop as tutorials have it, with the first `rung` improvements of the ladder."""
    layout = torch.channels_last if rung >= 2 else torch.contiguous_format
    network = build_model("fast", len(CLASSES)).to(memory_format=layout)
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    if rung >= 4:
        set_up_backend(torch.device("cpu"), deterministic=False)
    batches = resident(arguments, folder) if rung >= 3 else from_files(arguments, folder, workers)
    for images, labels in batches:
        clock.tick()
        if clock.handed_out == clock.num_batches:
            return
        with torch.autocast("cpu", torch.bfloat16) if rung >= 1 else nullcontext():
            logits = network(images.to(memory_format=layout))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def from_files(arguments: argparse.Namespace, folder: Path, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of decoded and transformed JPEG files."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    images = ImageFolder(str(folder / "train"), transforms.Compose(steps))
    yield from DataLoader(images, arguments.batch_size, shuffle=True, drop_last=True, num_workers=workers)


def load_arrays(folder: Path) -> Data:
    """The generated images as the classifier holds them."""
    with np.load(folder / "images.npz") as arrays:
        images = from_pixels(arrays["pixels"], arrays["labels"])
    return Data(CLASSES, images, images, None, MEAN, STD, sha256="", notes=())


def resident(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the classifier's own loader, without the settings that an Accelerator makes."""
    data = load_arrays(folder)
    config = Config(batch_size=arguments.batch_size, cutout=0)
    like = Accelerator.__new__(Accelerator)  # a full one would keep freed memory already
    like.device, like.precision, like.world = torch.device("cpu"), "bf16", World()
    yield from training_loader(data, config, like).batches(epoch=0)


def our_way(clock: StepClock, arguments: argparse.Namespace, folder: Path) -> None:
    """The classifier's own loader, step, optimizer, schedule and averaged weights."""
    config = Config(batch_size=arguments.batch_size, epochs=1)
    accelerator = Accelerator(device="cpu", precision=config.precision, clip_norm=config.clip_norm)
    data, network = load_arrays(folder), build_model("fast", len(CLASSES))
    loader = training_loader(data, config, accelerator)
    optimizer, schedule = build_optimizer(network, config), build_schedule(config, total_steps(config, loader))
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema, channels_last=True)
    network.train()
    for batch in loader.batches(epoch=0):
        clock.tick()
        if clock.handed_out == clock.num_batches:
            return
        train_step(accelerator.to_device(batch), learner=learner, label_smoothing=config.label_smoothing)


if __name__ == "__main__":
    main()
