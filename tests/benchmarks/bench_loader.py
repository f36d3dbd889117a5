"""Images a second of training, and the share of a step spent waiting for its batch, by way of loading.

Images are held in memory, or streamed by 0, 1, 2 and 4 workers, on a GPU from pinned and from pageable memory. The
benchmark says which flags of the classifier win.

Training the fast network on JPEG files of 32×32 pixels; with larger images, decoding takes a larger share.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.accelerator import Accelerator
from core.data import MappedLoader, StreamLoader
from core.learner import Learner
from projects.cifar10.config import Config
from projects.cifar10.data import Data, load_data, training_loader
from projects.cifar10.model import build_model
from projects.cifar10.train import build_optimizer, build_schedule, train_step
from tests.benchmarks import measure
from tests.benchmarks.bench_images import make_images

BASELINE, OURS = "streamed, 0 workers", "resident"
WORKERS = (0, 1, 2, 4)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("loader", "Images a second by way of loading, and the share of waiting.", rounds=3)
    flags.add_argument("--steps", type=int, default=12, help="measured steps of a side (default: %(default)s)")
    flags.add_argument("--warmup", type=int, default=3, help="steps before the clock starts (default: %(default)s)")
    flags.add_argument("--batch-size", type=int, default=250, help="images of a step (default: %(default)s)")
    flags.add_argument("--workers", type=int, nargs="+", default=list(WORKERS), help="numbers of workers to compare")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    config = Config(batch_size=arguments.batch_size, epochs=1, model="fast")
    accelerator = Accelerator.of(config)
    on_gpu = accelerator.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        num_steps = arguments.warmup + arguments.steps
        make_images(Path(folder), int(1.1 * num_steps * arguments.batch_size) + 40, files=True)  # some are held out
        config = replace(config, data=folder)
        sets = {kind: load_data(replace(config, resident=kind), accelerator.device) for kind in ("yes", "no")}
        ways: dict[str, dict[str, Any]] = {OURS: {"resident": "yes"}} | {
            f"streamed, {number} workers": {"resident": "no", "workers": number} for number in arguments.workers
        }
        sides: dict[str, measure.Side] = {}
        for name, way in ways.items():
            side = partial(one_side, replace(config, **way), sets, accelerator, arguments)
            sides[name] = side
            if on_gpu and name != OURS:
                sides[f"{name}, pageable"] = partial(side, pin=False)
        rows = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
    columns = {"images_per_second": "images/s", "waiting_percent": "waiting, % of a step"}
    title = f"Training the fast network, batch {arguments.batch_size}, {accelerator.describe()}"
    measure.show(title, rows, columns, BASELINE)
    skipped = {} if on_gpu else {"pinned against pageable memory": "there is no GPU to copy to"}
    facts: dict[str, Any] = {"baseline": BASELINE, "ours": OURS, "winners": winners(rows, ways)}
    for kind, words in facts["winners"].items():
        print(f"{kind}: {words}")
    measure.write("loader", argv, arguments, {"loader": rows}, skipped, **facts)


def winners(rows: Sequence[Mapping[str, Any]], ways: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """The flags of the fastest way of all, and of the fastest of those that stream, by their medians."""
    by_rate = sorted(rows, key=lambda row: -float(row["images_per_second"]["median"]))
    streamed = next(row["name"] for row in by_rate if row["name"] != OURS)

    def flags(name: str) -> str:
        way = ways[name.removesuffix(", pageable")]
        return " ".join(f"--{key} {value}" for key, value in way.items())

    return {"fastest": flags(by_rate[0]["name"]), "fastest where images do not fit into memory": flags(streamed)}


def one_side(
    config: Config,
    sets: Mapping[str, Data],
    accelerator: Accelerator,
    arguments: argparse.Namespace,
    *,
    pin: bool = True,
) -> dict[str, float]:
    """Trains with one way of loading. Waiting is the time until a step has its batch on the device."""
    data = sets[config.resident]
    loader = training_loader(data, config, accelerator)
    if not pin and isinstance(loader, MappedLoader) and isinstance(loader.loader, StreamLoader):
        loader.loader.pin_memory = False
    torch.manual_seed(0)
    network = build_model("fast", len(data.classes))
    learner = Learner(
        network, build_optimizer(network, config), build_schedule(config, 100), accelerator, channels_last=True
    )
    network.train()
    waiting, began = 0.0, 0.0
    batches = iter(loader.batches(epoch=0))
    for step in range(arguments.warmup + arguments.steps):
        if step == arguments.warmup:
            waiting, began = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = accelerator.to_device(next(batches))
        waiting += time.perf_counter() - asked
        loss = train_step(batch, learner=learner, label_smoothing=config.label_smoothing)["loss"]
        float(loss)  # waits for the device, so that no step's work counts as waiting for the next batch
    seconds = time.perf_counter() - began
    if hasattr(batches, "close"):
        batches.close()
    return {
        "images_per_second": arguments.steps * config.batch_size / seconds,
        "waiting_percent": 100 * waiting / seconds,
    }


if __name__ == "__main__":
    main()
