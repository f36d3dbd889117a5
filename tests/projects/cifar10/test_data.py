"""A folder's images arrive whole, in both ways of holding them alike."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from core.accelerator import Accelerator
from core.distributed import World
from core.program import parse_training
from projects.cifar10 import train as program
from projects.cifar10.config import Config
from projects.cifar10.data import Batch, evaluation_loader, load_data, training_loader
from tests import forked
from tests.projects.conftest import MakeFolder
from tests.projects.sample_data import CLASSES
from tests.refusals import assert_refused

TINY = ["--image-size", 16, "--batch-size", 10, "--epochs", 2, "--val-fraction", 0.2, "--model", "fast", "--lr", 0.1]
TINY += ["--crop-padding", 2, "--cutout", 4, "--flip", "--ema", 0.9, "--seed", 3, "--precision", "fp32"]
TINY += ["--device", "cpu", "--checkpoint-every", 2, "--log-every", 2]
CPU = torch.device("cpu")

main = forked.main_of(program)


def settings(folder: Path, *more: object) -> Config:
    return parse_training(Config, [str(value) for value in ("--data", folder, *TINY, *more)]).config


def test_train_val_and_test_are_found(make_folder: MakeFolder) -> None:
    data = load_data(settings(make_folder(train=8, val=3, test=2)), CPU)
    assert tuple(data.classes) == CLASSES
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (24, 9, 6)
    assert data.val.load(range(9)).shape == (9, 16, 16, 3)
    assert data.val.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_without_val_a_share_of_train_is_held_out_and_no_image_is_in_both(
    make_folder: MakeFolder, resident: str
) -> None:
    data = load_data(settings(make_folder(train=10), "--resident", resident), CPU)
    assert (len(data.train), len(data.val), data.test) == (24, 6, None)
    parts = [{image.tobytes() for image in part.load(range(len(part)))} for part in (data.train, data.val)]
    assert len(parts[0] | parts[1]) == 30


def test_without_test_the_summary_is_of_validation(make_folder: MakeFolder, tmp_path: Path) -> None:
    main([str(value) for value in ("--data", make_folder(train=10), *TINY, "--run-dir", tmp_path / "run")])
    numbers = forked.summary(tmp_path / "run")
    assert numbers["num_val"] == 6
    assert numbers["val_accuracy"] == pytest.approx(numbers["best_val_accuracy"])
    assert "test_accuracy" not in numbers


@pytest.mark.parametrize(("split", "resident"), [("train", "no"), ("val", "yes"), ("test", "no")])
def test_a_broken_image_is_named_before_anything_is_created(
    make_folder: MakeFolder, split: str, resident: str, tmp_path: Path
) -> None:
    folder = make_folder(train=4, val=4, test=4)
    broken = folder / split / "blue" / "02.png"
    broken.write_bytes(broken.read_bytes()[:60])
    argv = [str(v) for v in ("--data", folder, *TINY, "--resident", resident, "--run-dir", tmp_path / "run")]
    assert_refused(partial(main, argv), f"{split}/blue/02.png", tmp_path)


def batches(config: Config, epoch: int, start: int = 0) -> list[Batch]:
    accelerator = Accelerator(device="cpu", precision="fp32")
    return list(training_loader(load_data(config, CPU), config, accelerator).batches(epoch, start))


def test_every_epoch_and_every_seed_has_its_own_order_and_augmentation(make_folder: MakeFolder) -> None:
    config = settings(make_folder(train=10))
    first, second = batches(config, epoch=0), batches(config, epoch=1)
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(batches(config, epoch=0, start=1)[0][0], first[1][0])
    other = settings(make_folder(), "--seed", 4)
    assert not torch.equal(batches(other, epoch=0)[0][0], first[0][0])


@pytest.mark.parametrize(("repeats", "times"), [(3, 3), (0, 20_000 // 12)])
def test_few_images_are_shown_several_times_an_epoch_each_time_otherwise(
    make_folder: MakeFolder, repeats: int, times: int
) -> None:
    config = settings(make_folder(train=4, val=3), "--repeats", repeats, "--batch-size", 12, "--crop-padding", 8)
    shown = batches(config, epoch=0)
    labels, images = torch.cat([labels for _, labels in shown]), torch.cat([images for images, _ in shown])
    assert labels.bincount().tolist() == [4 * times] * 3
    assert len(images.flatten(1).unique(dim=0)) > 24


def test_evaluation_shows_every_image_once_in_order_and_as_it_is(make_folder: MakeFolder) -> None:
    config = settings(make_folder(train=4, val=7))
    data, accelerator = load_data(config, CPU), Accelerator(device="cpu", precision="fp32")
    shown = list(evaluation_loader(data.val, data, config, accelerator, World()).batches(0))
    assert [len(labels) for _, labels in shown] == [20, 1]
    assert torch.cat([labels for _, labels in shown]).tolist() == data.val.labels.tolist()
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (data.mean, data.std))
    expected = (data.val.load(range(21)).transpose(0, 3, 1, 2) / np.float32(255) - mean) / std
    np.testing.assert_allclose(torch.cat([images for images, _ in shown]).numpy(), expected, atol=1e-5)


def test_a_streamed_run_ends_bit_for_bit_as_the_resident_one(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder, endings = make_folder(train=5, val=3, test=3), []
    for name in ("yes", "no"):
        main(
            [
                str(v)
                for v in ("--run-dir", tmp_path / name, "--data", folder, *TINY, "--resident", name, "--repeats", 2)
            ]
        )
        endings.append((forked.ending(tmp_path / name), forked.summary(tmp_path / name)))
    assert endings[0] == endings[1]
