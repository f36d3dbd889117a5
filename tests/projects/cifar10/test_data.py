"""A folder's pictures arrive whole, in both ways of holding them alike; what is wrong with it is said by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.accelerator import Accelerator
from core.distributed import World
from core.errors import UserError
from projects.cifar10.config import Config
from projects.cifar10.data import Batch, evaluation_loader, load_data, training_loader
from projects.cifar10.train import parse_arguments, train
from tests import forked
from tests.projects.cifar10.conftest import CLASSES, MakeFolder, summary

TINY = ["--image-size", 16, "--batch-size", 10, "--epochs", 2, "--val-fraction", 0.2, "--model", "fast", "--lr", 0.1]
TINY += ["--crop-padding", 2, "--cutout", 4, "--flip", "--ema", 0.9, "--seed", 3, "--precision", "fp32"]
TINY += ["--device", "cpu", "--checkpoint-every", 2, "--log-every", 2]
CPU = torch.device("cpu")


def main(argv: list[str]) -> None:
    train(parse_arguments(argv))


def settings(folder: Path, *more: object) -> Config:
    return parse_arguments([str(value) for value in ("--data", folder, *TINY, *more)]).config


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    arguments = ["--data", "synthetic", "--num-synthetic", 100, *TINY, "--max-steps", 1]
    forked.warm_up(main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", *arguments])


def test_train_val_and_test_are_found(make_folder: MakeFolder) -> None:
    data = load_data(settings(make_folder(train=8, val=3, test=2)), CPU)
    assert list(data.classes) == list(CLASSES)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (24, 9, 6)
    assert data.val.load(range(9), 16).shape == (9, 16, 16, 3)
    assert data.val.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_without_val_a_share_of_train_is_held_out_and_no_picture_is_in_both(
    make_folder: MakeFolder, resident: str
) -> None:
    data = load_data(settings(make_folder(train=10), "--resident", resident), CPU)
    assert (len(data.train), len(data.val), data.test) == (24, 6, None)
    parts = [{picture.tobytes() for picture in part.load(range(len(part)), 16)} for part in (data.train, data.val)]
    assert len(parts[0] | parts[1]) == 30


def test_without_test_the_summary_is_of_validation(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(train=10)
    main([str(value) for value in ("--data", folder, *TINY, "--run-dir", tmp_path / "run")])
    numbers = summary(tmp_path / "run")
    assert numbers["num_val"] == 6
    assert numbers["val_accuracy"] == pytest.approx(numbers["best_val_accuracy"])
    assert "test_accuracy" not in numbers


def test_a_class_that_train_lacks_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder(train=4, val=2)
    (folder / "val" / "blue").rename(folder / "val" / "violet")
    with pytest.raises(UserError, match="violet"):
        load_data(settings(folder), CPU)


def test_an_empty_class_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder(train=4)
    (folder / "train" / "crimson").mkdir()
    with pytest.raises(UserError, match="crimson"):
        load_data(settings(folder), CPU)


def test_a_single_class_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder(train=4)
    for name in CLASSES[1:]:
        (folder / "train" / name).rename(folder / name)
    with pytest.raises(UserError, match="two class"):
        load_data(settings(folder), CPU)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_broken_picture_is_named_before_anything_is_created(
    make_folder: MakeFolder, split: str, tmp_path: Path
) -> None:
    folder = make_folder(train=4, val=4, test=4)
    broken = folder / split / "blue" / "02.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match=f"{split}/blue/02.png") as caught:
        main([str(v) for v in ("--data", folder, *TINY, "--resident", "yes", "--run-dir", tmp_path / "run")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def batches(config: Config, epoch: int, start: int = 0) -> list[Batch]:
    accelerator = Accelerator(device="cpu", precision="fp32")
    return list(training_loader(load_data(config, CPU), config, accelerator).batches(epoch, start))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_bit_for_bit_the_resident_ones(make_folder: MakeFolder, workers: int) -> None:
    folder = make_folder(train=10)
    resident = batches(settings(folder, "--resident", "yes"), epoch=1)
    streamed = batches(settings(folder, "--resident", "no", "--workers", workers), epoch=1)
    assert len(resident) == len(streamed) == 2
    for one, other in zip(resident, streamed, strict=True):
        assert one[0].shape == (10, 3, 16, 16)
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_every_epoch_and_every_seed_has_its_own_order_and_augmentation(make_folder: MakeFolder) -> None:
    config = settings(make_folder(train=10))
    first, second = batches(config, epoch=0), batches(config, epoch=1)
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(batches(config, epoch=0, start=1)[0][0], first[1][0])
    other = settings(make_folder(), "--seed", 4)
    assert not torch.equal(batches(other, epoch=0)[0][0], first[0][0])


def test_evaluation_shows_every_picture_once_in_order_and_as_it_is(make_folder: MakeFolder) -> None:
    config = settings(make_folder(train=4, val=7))
    data, accelerator = load_data(config, CPU), Accelerator(device="cpu", precision="fp32")
    shown = list(evaluation_loader(data.val, data, config, accelerator, World()).batches(0))
    assert [len(labels) for _, labels in shown] == [20, 1]
    assert torch.cat([labels for _, labels in shown]).tolist() == data.val.labels.tolist()
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (data.mean, data.std))
    expected = (data.val.load(range(21), 16).transpose(0, 3, 1, 2) / np.float32(255) - mean) / std
    np.testing.assert_allclose(torch.cat([images for images, _ in shown]).numpy(), expected, atol=1e-5)


@pytest.mark.usefixtures("warm")
def test_streamed_runs_end_bit_for_bit_as_the_resident_one(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(train=10, val=3, test=3)
    endings = []
    for name, how in {"yes": ["yes", 0], "no-0": ["no", 0], "no-2": ["no", 2]}.items():
        arguments = ["--data", folder, *TINY, "--resident", how[0], "--workers", how[1]]
        assert forked.run(main, ["--run-dir", tmp_path / name, *arguments]) == 0
        endings.append((forked.ending(tmp_path / name), summary(tmp_path / name)))
    assert endings[0] == endings[1] == endings[2]


@pytest.mark.usefixtures("warm")
def test_test_pictures_are_not_touched_before_the_end_and_a_repaired_one_is_enough_to_end(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder, run_dir = make_folder(train=10, val=3, test=3), tmp_path / "run"
    broken = folder / "test" / "blue" / "02.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    arguments = ["--data", folder, *TINY, "--resident", "no"]
    assert forked.run(main, ["--run-dir", run_dir, *arguments]) == 1
    assert forked.metrics(run_dir)[-1]["step"] == 6
    assert not (run_dir / "summary.json").exists()
    broken.write_bytes(whole)
    trained = forked.ending(run_dir)
    assert forked.run(main, ["--resume", run_dir]) == 0
    assert forked.ending(run_dir) == trained
    assert summary(run_dir)["num_test"] == 9
