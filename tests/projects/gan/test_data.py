"""The images: what a folder may look like, what is held out, and passes that can be continued from any batch."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.accelerator import Accelerator
from core.errors import UserError
from projects.gan.config import Config
from projects.gan.data import Data, load_data, pixels_of, to_pixels, training_loader
from projects.gan.synthetic import CLASSES, generate_images
from tests.projects import sample_data
from tests.projects.conftest import MakeFolder

CPU = torch.device("cpu")


def load(root: Path, seed: int = 0) -> Data:
    return load_data(Config(data=str(root), image_size=8, seed=seed), CPU)


def images_of(data: Data) -> list[bytes]:
    return [image.numpy().tobytes() for image in (*pixels_of(data.train), *pixels_of(data.held_out))]


def flattened(root: Path) -> Path:
    """The folder with all its images in one place."""
    for number, path in enumerate(sorted(root.rglob("*.*"))):
        path.rename(root / f"{number:03}{path.suffix}")
    for folder in [entry for entry in root.iterdir() if entry.is_dir()]:
        shutil.rmtree(folder)
    return root


def test_digits_are_all_there_in_gray_and_a_fifth_is_held_out() -> None:
    data = load_data(Config(data="digits"), CPU)
    assert list(data.classes) == [str(k) for k in range(10)]
    assert (len(data.train), len(data.held_out)) == (1438, 359)
    assert pixels_of(data.train).shape[1:] == (16, 16, 1)
    assert set(pixels_of(data.train).unique().tolist()) >= {0, 255}
    assert len(set(images_of(data))) > 1790
    assert set(data.held_out.labels.tolist()) == set(range(10))


def test_synthetic_images_are_of_four_shapes_and_depend_on_the_seed() -> None:
    pixels, labels = generate_images(400, seed=0, size=16)
    assert pixels.shape == (400, 16, 16, 3)
    assert np.bincount(labels).tolist() == [100] * len(CLASSES)
    assert len({image.tobytes() for image in pixels}) == 400
    assert np.array_equal(pixels, generate_images(400, seed=0, size=16)[0])
    assert not np.array_equal(pixels, generate_images(400, seed=1, size=16)[0])
    bright = (pixels.max(3) > 150).mean((1, 2))
    assert 0.02 < bright.min() < bright.max() < 0.6  # every image has a shape and a background


def test_a_folder_with_a_test_part_holds_that_part_out(make_folder: MakeFolder) -> None:
    data = load(make_folder(train=9, test=8, val=1))
    assert tuple(data.classes) == sample_data.CLASSES
    assert (len(data.train), len(data.held_out)) == (27, 24)
    for images in (data.train, data.held_out):
        assert torch.equal(pixels_of(images).float().mean((1, 2)).argmax(1), torch.from_numpy(images.labels))
    assert any("not used: val" in note for note in data.notes)


def test_from_a_folder_of_classes_a_part_is_held_out_by_the_seed(make_folder: MakeFolder) -> None:
    root = make_folder(train=40) / "train"
    first, second = (load(root, seed=seed) for seed in (0, 1))
    assert (len(first.train), len(first.held_out)) == (96, 24)
    assert sorted(images_of(first)) == sorted(images_of(second))
    assert not torch.equal(pixels_of(first.held_out), pixels_of(second.held_out))
    assert first.sha256 == second.sha256


def hide(root: Path) -> None:
    for name in (".git", "__MACOSX"):
        (root / name).mkdir()
        Image.new("RGB", (9, 9)).save(root / name / "x.png")
    (root / "._000.png").write_bytes(b"resource fork")


def put_into_subfolders(root: Path) -> None:
    (root / "2024" / "may").mkdir(parents=True)
    for path in list(root.glob("*.png"))[:9]:
        path.rename(root / "2024" / "may" / path.name)


@pytest.mark.parametrize("change", [lambda root: None, hide, put_into_subfolders])
def test_images_without_classes_are_taken_wherever_they_lie(
    change: Callable[[Path], None], make_folder: MakeFolder
) -> None:
    root = flattened(make_folder(train=40))
    change(root)
    data = load(root)
    assert list(data.classes) == []
    assert (len(data.train), len(data.held_out)) == (96, 24)
    assert not data.train.labels.any()
    assert bool(data.notes) == (change is hide)


def test_images_in_subfolders_of_a_class_count_and_copies_of_held_out_ones_are_named(make_folder: MakeFolder) -> None:
    root = make_folder(train=9, test=8)
    (root / "train" / "blue" / "2024").mkdir()
    copy = next((root / "test" / "blue").glob("*.png"))
    shutil.copy(copy, root / "train" / "blue" / "2024" / "copy.png")
    data = load(root)
    assert len(data.train) == 28
    assert any("1 of 24 images of held_out are in train too" in note for note in data.notes)


def test_extreme_sides_become_a_square(make_folder: MakeFolder) -> None:
    root = make_folder(train=40) / "train"
    Image.new("L", (1, 20_000), color=200).save(root / "blue" / "thin.png")
    assert pixels_of(load(root).train).shape[1:] == (8, 8, 3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [cut, make_fifo])
def test_what_cannot_be_read_is_named(damage: Callable[[Path], None], make_folder: MakeFolder) -> None:
    root = make_folder(train=20)
    damage(next((root / "train" / "blue").glob("04.*")))
    with pytest.raises(UserError, match=r"blue/04\."):
        load(root)


def test_too_few_images_and_none_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="48 to train on, 12 held out"):
        load(make_folder(train=20))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        load(tmp_path / "empty")


def test_a_pass_has_every_image_once_though_epochs_end_in_the_middle_of_it() -> None:
    config = Config(num_synthetic=200, image_size=8, batch_size=20, epoch_steps=6)
    data = load_data(config, CPU)  # 160 to train on: a pass is 8 batches
    loader = training_loader(data, config, Accelerator(device="cpu", precision="fp32"))
    assert len(loader) == 6
    batches = [to_pixels(images) for epoch in range(4) for images, _ in loader.batches(epoch)]
    assert len(batches) == 24
    expected = sorted(image.numpy().tobytes() for image in pixels_of(data.train))
    for number in range(3):
        part = torch.cat(batches[8 * number : 8 * number + 8])
        assert sorted(image.numpy().tobytes() for image in part) == expected
    assert not torch.equal(batches[0], batches[8])


def test_batches_from_the_middle_of_an_epoch_on_are_those_of_the_whole_epoch() -> None:
    config = Config(num_synthetic=200, image_size=8, batch_size=20, epoch_steps=11, flip=True)
    loader = training_loader(load_data(config, CPU), config, Accelerator(device="cpu", precision="fp32"))
    whole = list(loader.batches(3))
    for start in (1, 7, 10, 11):
        rest = list(loader.batches(3, start))
        assert len(rest) == 11 - start
        for (images, labels), (images_again, labels_again) in zip(whole[start:], rest, strict=True):
            assert torch.equal(images, images_again)
            assert torch.equal(labels, labels_again)


def test_flip_mirrors_about_half_of_the_images() -> None:
    config = Config(num_synthetic=200, image_size=8, batch_size=160, epoch_steps=1, flip=True)
    data, accelerator = load_data(config, CPU), Accelerator(device="cpu", precision="fp32")
    (images, _), *_ = training_loader(data, config, accelerator).batches(0)
    pixels, known = to_pixels(images), {image.numpy().tobytes() for image in pixels_of(data.train)}
    assert 50 < sum(image.numpy().tobytes() not in known for image in pixels) < 110
    assert all(i.numpy().tobytes() in known or i.flip(1).numpy().tobytes() in known for i in pixels)


def test_every_byte_survives_normalization_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(to_pixels((pixels.permute(0, 3, 1, 2).float() / 127.5) - 1), pixels)
    assert to_pixels(torch.tensor([[[[-3.0, 3.0]]]])).flatten().tolist() == [0, 255]
