"""What the tests of all projects have to know of each: the smallest settings, own data, inputs.

A new project gets an entry in CONTRACTS; tests/projects/test_contract.py then holds it to what all projects promise.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.conftest import ROOT
from tests.projects.sample_data import (
    add_a_review,
    change_the_last_row,
    recent_rows,
    rename_a_box,
    rotate_an_image,
    some_images,
    write_class_folders,
    write_hours,
    write_images,
    write_table_of_reviews,
    write_voc,
)

PROJECTS = sorted(path.parent.name for path in (ROOT / "projects").glob("*/config.py"))
# What all tiny runs have in common.
COMMON = "--data synthetic --epochs 2 --log-every 4 --checkpoint-every 2 --keep 2 --device cpu"
FLOAT32, BF16 = "--precision fp32", "--precision bf16"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """One project's entry.

    tiny: flags beyond COMMON of a training that takes a second or two, with at least 10 steps in 2 epochs.
    kinds: flags beyond `tiny` for what a run may keep besides weights: averages, accumulated gradients.
    write_data: writes a user's own data into an empty folder and returns the value of --data. own: flags beyond `tiny`
    for a training on it. change_data: changes something in it that a resumed training must not overlook.
    write_inputs: writes into an empty folder what the smoke run's model can be given, and returns infer's INPUTs.
    harmless: settings beyond core's that change nothing of what the steps compute, and so may change on resume.
    smoke, export, infer: flags beyond the necessary ones for the smoke run, its export, and inference.
    """

    tiny: str
    kinds: tuple[str, ...]
    write_data: Callable[[Path], Path]
    change_data: Callable[[Path], object]
    write_inputs: Callable[[Path], list[object]]
    own: str = ""
    smoke: str = ""
    export: str = ""
    infer: str = "--json"
    harmless: str = ""

    @property
    def settings(self) -> list[str]:
        """The flags of the tiny run."""
        return [*COMMON.split(), *self.tiny.split()]


CONTRACTS = {
    "cifar10": Contract(
        tiny="--num-synthetic 200 --image-size 16 --batch-size 20 --val-fraction 0.1 --model fast --lr 0.1",
        kinds=(f"--ema 0.9 {BF16} --gradient-checkpointing", f"--ema 0 {FLOAT32} --accumulate 2 --clip-norm 1"),
        own="--batch-size 3 --resident no --ema 0.9",
        write_data=write_class_folders,
        change_data=rotate_an_image,
        write_inputs=some_images,
        export="--int8",
        harmless="resident",
    ),
    "detection": Contract(
        tiny="--num-synthetic 48 --image-size 64 --batch-size 3 --lr 0.002 --mosaic 0.5 --mosaic-until 0.5",
        kinds=(f"--ema 0.9 {BF16}", f"--ema 0 {FLOAT32} --accumulate 2 --clip-norm 1"),
        own="--batch-size 4 --resident no",
        write_data=write_voc,
        change_data=rename_a_box,
        write_inputs=some_images,
        harmless="resident",
    ),
    "forecast": Contract(
        tiny="--num-synthetic 500 --lookback 24 --horizon 6 --segment 6 --width 8 --batch-size 20 --lr 0.01 "
        "--patience 0",
        kinds=(f"--ema 0.9 {BF16}", f"--head point {FLOAT32} --accumulate 2 --clip-norm 1 --dropout 0.3"),
        write_data=write_hours,
        change_data=change_the_last_row,
        write_inputs=recent_rows,
    ),
    "gan": Contract(
        tiny="--num-synthetic 200 --image-size 8 --batch-size 10 --width 8 --latent 6 "
        "--epoch-steps 24 --classifier-steps 10 --lr 0.002",
        kinds=(
            f"--ema 0.9 {BF16} --spectral-norm both",
            f"{FLOAT32} --loss nonsaturating --r1 1 --r1-every 4 --accumulate 2",
        ),
        own="--batch-size 4 --epoch-steps 6",
        write_data=lambda folder: write_images(folder, {"train": 20, "val": 10, "test": 10}),
        change_data=rotate_an_image,
        write_inputs=lambda folder: ["--num", 4, "--output", folder / "images.png"],
        infer="",
        harmless="inception_weights",
    ),
    "sentiment": Contract(
        tiny="--num-synthetic 250 --min-count 1 --embedding-size 8 --hidden-size 6 --layers 2 "
        "--members 2 --batch-size 10 --lr 0.01 --val-fraction 0.2",
        kinds=(
            f"--ema 0.9 {BF16} --pooling attention --batch-lengths 3",
            f"--ema 0 {FLOAT32} --accumulate 2 --clip-norm 1 --tokenizer bpe --batch-lengths 2",
        ),
        write_data=write_table_of_reviews,
        change_data=add_a_review,
        write_inputs=lambda folder: ["the acting is superb", write_table_of_reviews(folder)],
        export="--int8",
    ),
    "style": Contract(
        tiny="--num-synthetic 16 --crop-size 32 --image-size 40 --eval-size 32 --style-size 40 "
        "--width 4 --blocks 1 --batch-size 4 --crops 2 --num-held-out 2 --lr 0.01",
        kinds=(f"--ema 0.9 {BF16} --accumulate 2", f"--method optimize {FLOAT32} --max-steps 20"),
        own="--resident no",
        write_data=write_class_folders,
        change_data=rotate_an_image,
        write_inputs=some_images,
        infer="--json --output painted",
        harmless="compare on_fault resident style weights",
    ),
    "transfer": Contract(
        tiny="--num-synthetic 100 --image-size 32 --batch-size 8 --lr 0.01 "
        "--backbone timm:test_resnet --from-scratch --strategy full",
        kinds=(
            f"--ema 0.9 {BF16} --augment crop --mixup 0.3 --cutmix 1 --dropout 0.2",
            f"--ema 0 {FLOAT32} --accumulate 2 --clip-norm 1 --balance sampler",
        ),
        own="--batch-size 4 --resident no",
        write_data=write_class_folders,
        change_data=rotate_an_image,
        write_inputs=some_images,
        export="--int8",
        harmless="resident",
    ),
}


def module(project: str, name: str) -> ModuleType:
    """A module of a project."""
    return importlib.import_module(f"projects.{project}.{name}")
