"""How long training stands still for one checkpoint: core.checkpoint.save against torch.save.

torch.save as it is leaves the data in the system's memory, and the old file is gone as soon as it begins; with fsync
and rename it survives a crash. core's save also computes a digest of every file, reads all of it back, and keeps the
older checkpoint.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW

from core import checkpoint
from core.accelerator import Accelerator
from core.files import sync_folder
from core.learner import Learner
from projects.cifar10.config import Config
from projects.cifar10.model import build_model
from projects.cifar10.train import build_optimizer, build_schedule
from tests.benchmarks import measure

BASELINE, OURS = "torch.save, fsync, rename", "core.checkpoint.save"
LARGE_WIDTH, LARGE_DEPTH = 2048, 12  # 50.3 million weights in matrices
FREE_BYTES = 8 << 30  # disk and memory that the large state needs several copies in
Save = Callable[[Path, int], None]


def small_state() -> dict[str, Any]:
    """The fast network with SGD and averaged weights after one step."""
    config, network = Config(), build_model("fast", 10)
    accelerator = Accelerator(device="cpu", precision="fp32")
    optimizer, schedule = build_optimizer(network, config), build_schedule(config, 100)
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema, channels_last=True)
    learner.step(F.cross_entropy(learner.forward(torch.randn(8, 3, 32, 32)), torch.arange(8)))
    return {name: part.state_dict() for name, part in learner.state().items()}


def large_state() -> dict[str, Any]:
    """50 million weights with both moments of AdamW."""
    layers = (nn.Linear(LARGE_WIDTH, LARGE_WIDTH, bias=False) for _ in range(LARGE_DEPTH))
    network = nn.Sequential(*layers)
    optimizer = AdamW(network.parameters(), lr=1e-3, fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return {"model": network.state_dict(), "optimizer": optimizer.state_dict()}


def num_bytes(tree: Any) -> int:
    """Bytes of all tensors in a tree."""
    if isinstance(tree, torch.Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(num_bytes(value) for value in tree.values())
    return sum(num_bytes(value) for value in tree) if isinstance(tree, list | tuple) else 0


def ways(state: dict[str, Any]) -> dict[str, Save]:
    """The ways to save a state below a folder."""

    def ours(folder: Path, step: int) -> None:
        checkpoint.save(folder, step, state, project="benchmark")

    def plain(folder: Path, step: int) -> None:
        torch.save(state, folder / "checkpoint.pt")

    def durable(folder: Path, step: int) -> None:
        path = folder / "checkpoint.pt"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)

    return {BASELINE: durable, "torch.save": plain, OURS: ours}


def once(save: Save, folder: Path, repeats: int) -> dict[str, float]:
    """Wall and processor time of one save; what other sides have left to write is on the disk before it begins."""
    wall = processor = 0.0
    for step in range(repeats):
        os.sync()
        began = time.perf_counter(), time.process_time()
        save(folder, step)
        wall, processor = wall + time.perf_counter() - began[0], processor + time.process_time() - began[1]
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {"wall_ms": 1e3 * wall / repeats, "processor_ms": 1e3 * processor / repeats}


def too_little(folder: Path) -> str | None:
    """Why the large state cannot be saved here, if it cannot."""
    free = shutil.disk_usage(folder).free
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for what, there in (("disk", free), ("memory", memory)):
        if there < FREE_BYTES:
            return f"{what}: {there / 1e9:.1f} GB free, {FREE_BYTES / 1e9:.1f} needed"
    return None


def file_system(directory: Path) -> str:
    """The type of a directory's file system; on tmpfs, which is memory, fsync costs nothing."""
    try:
        lines = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return "unknown"
    here = directory.resolve()
    holding = [(len(words[1]), words[2]) for words in lines if here.is_relative_to(words[1])]
    return max(holding)[1] if holding else "unknown"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("checkpoint", "Time that training is blocked by one checkpoint.", rounds=7)
    flags.add_argument("--repeats", type=int, default=3, help="saves a round of the small state (default: %(default)s)")
    flags.add_argument("--large-rounds", type=int, default=3, help="turns with 600 MB; 0 leaves it out")
    flags.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where to save to")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    tables: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        folder, reason = Path(name), too_little(Path(name))
        plan = {"fast network": (small_state, arguments.rounds, arguments.repeats)}
        if arguments.large_rounds and reason is None:
            plan["50 million weights"] = (large_state, arguments.large_rounds, 1)
        else:
            skipped["50 million weights"] = reason or "--large-rounds 0"
        for label, (build, rounds, repeats) in plan.items():
            state = build()
            sizes[label] = num_bytes(state) / 1e6
            sides = {way: partial(once, save, folder, repeats) for way, save in ways(state).items()}
            rows = measure.summarize(measure.interleaved(sides, rounds), BASELINE)
            columns = {"wall_ms": "wall ms", "processor_ms": "processor ms"}
            measure.show(f"One checkpoint, {label}: {sizes[label]:.1f} MB of tensors", rows, columns, BASELINE)
            tables[label] = rows
    facts: dict[str, Any] = {"megabytes": sizes, "file_system": file_system(arguments.directory)}
    print(f"on {facts['file_system']}")
    measure.write("checkpoint", argv, arguments, tables, skipped, baseline=BASELINE, ours=OURS, **facts)


if __name__ == "__main__":
    main()
