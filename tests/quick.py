"""A train program that takes a tenth of a second and loads no torch: its loss is a function of its settings.

For the tests of programs that start trainings or read run folders. Its best lr is 0.1.
"""

import json
import math
import time
from dataclasses import dataclass
from typing import Literal

from core.config import RunConfig, option
from core.errors import RunError
from core.files import write_json
from core.folder_lock import lock_folder
from core.plain import to_plain
from core.program import TrainCommand, run_training
from core.run_record import FORMAT, read_record


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    epochs: int = option(4, "lines of metrics", low=1, harmless=True)
    lr: float = option(0.1, "peak learning rate", above=0, high=10)
    shape: Literal["flat", "steep"] = option("flat", "adds to the loss")
    pause: float = option(0.0, "seconds of an epoch after the second; 60 with an lr above 1", low=0)
    fail: bool = option(False, "end with an error")


def train(command: TrainCommand[Config]) -> None:
    config, path = command.config, command.run_dir
    assert path is not None
    lock_folder(path, must_be_empty=not command.resume)
    if not (path / "run.json").exists():
        body = {
            "format": FORMAT,
            "project": config.project,
            "config": to_plain(config),
            "facts": {"data_sha256": "made up"},
            "environment": {"command": ["quick.py"], "commit": "c0ffee", "processor": "Z80", "gpu": None, "torch": "2"},
            "started": "2026-01-01T00:00:00+00:00",
            "monitor": {"name": "loss", "larger_is_better": False},
        }
        write_json(path / "run.json", body)
    if config.fail:
        raise RunError("this run was asked to fail", path, "do not ask")
    for epoch in range(read_record(path).last_step + 1, config.epochs + 1):
        time.sleep(0 if epoch <= 2 else 60 if config.lr > 1 else config.pause)
        loss = 1 / epoch + abs(math.log10(config.lr) + 1) + (config.shape == "steep") + 0.01 * config.seed
        line = {"step": epoch, "epoch": epoch, "val/loss": loss, "train/loss": loss + 0.1, "seconds": float(epoch)}
        with (path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    write_json(path / "summary.json", {"config": to_plain(config), "best_step": config.epochs, "peak_memory_mb": 12.5})


if __name__ == "__main__":
    run_training(Config, train)
