"""The pictures: what a folder may look like, what is held out, and passes that any batch can be taken up from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.accelerator import Accelerator
from core.errors import UserError
from projects.gan.config import Config
from projects.gan.data import Data, load_data, to_pixels, training_loader
from projects.gan.synthetic import CLASSES, draw_pictures
from tests.projects.gan import conftest
from tests.projects.gan.conftest import MakeFolder

CPU = torch.device("cpu")


def rows(data: Data) -> list[bytes]:
    return [picture.numpy().tobytes() for picture in (*data.train.pixels, *data.held_out.pixels)]


def test_digits_are_all_there_in_grey_and_a_fifth_is_held_out() -> None:
    pytest.importorskip("sklearn")
    data = load_data(Config(data="digits"), CPU)
    assert list(data.classes) == [str(k) for k in range(10)]
    assert (len(data.train), len(data.held_out)) == (1438, 359)
    assert data.train.pixels.shape[1:] == (16, 16, 1)
    assert data.train.pixels.min() == 0
    assert data.train.pixels.max() == 255
    assert len(set(rows(data))) > 1790
    assert set(data.held_out.labels.tolist()) == set(range(10))


def test_drawn_pictures_are_of_four_shapes_and_the_seed_is_what_tells_sets_apart() -> None:
    pixels, labels = draw_pictures(400, seed=0, size=16)
    assert pixels.shape == (400, 16, 16, 3)
    assert np.bincount(labels).tolist() == [100] * len(CLASSES)
    assert len({picture.tobytes() for picture in pixels}) == 400
    assert np.array_equal(pixels, draw_pictures(400, seed=0, size=16)[0])
    assert not np.array_equal(pixels, draw_pictures(400, seed=1, size=16)[0])
    lit = (pixels.max(3) > 150).mean((1, 2))
    assert 0.02 < lit.min() < lit.max() < 0.6  # every picture shows a shape, and a ground


def test_a_folder_with_a_test_part_holds_that_part_out(make_folder: MakeFolder) -> None:
    data = load_data(Config(data=str(make_folder(train=9, test=8)), image_size=8), CPU)
    assert tuple(data.classes) == conftest.CLASSES
    assert (len(data.train), len(data.held_out)) == (27, 24)
    for pictures in (data.train, data.held_out):
        means = pictures.pixels.float().mean((1, 2))
        assert torch.equal(means.argmax(1), pictures.labels)


def test_from_a_folder_of_classes_a_part_is_held_out_by_the_seed(make_folder: MakeFolder) -> None:
    root = make_folder(train=40) / "train"
    first, second = (load_data(Config(data=str(root), image_size=8, seed=seed), CPU) for seed in (0, 1))
    assert (len(first.train), len(first.held_out)) == (96, 24)
    assert sorted(rows(first)) == sorted(rows(second))
    assert not torch.equal(first.held_out.pixels, second.held_out.pixels)


@pytest.mark.parametrize("split", ["train", "."])
def test_pictures_without_classes_will_do(make_folder: MakeFolder, split: str) -> None:
    data = load_data(Config(data=str(make_folder(flat=True, **{split: 40})), image_size=8), CPU)
    assert list(data.classes) == []
    assert (len(data.train), len(data.held_out)) == (96, 24)
    assert not data.train.labels.any()


def test_too_few_pictures_a_broken_one_and_none_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(train=20)
    with pytest.raises(UserError, match="48 to learn from, 12 held out"):
        load_data(Config(data=str(root), image_size=8), CPU)
    broken = root / "train" / "blue" / "blue-03.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=r"blue-03\.png"):
        load_data(Config(data=str(root), image_size=8), CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        load_data(Config(data=str(tmp_path / "empty"), image_size=8), CPU)


def test_a_pass_shows_every_picture_once_though_epochs_end_in_the_middle_of_it() -> None:
    config = Config(num_synthetic=200, image_size=8, batch_size=20, epoch_steps=6)
    accelerator = Accelerator(device="cpu", precision="fp32")
    data = load_data(config, CPU)  # 160 to learn from: a pass is 8 batches
    loader = training_loader(data, config, accelerator)
    assert len(loader) == 6
    batches = [to_pixels(images) for epoch in range(4) for images, _ in loader.batches(epoch)]
    assert len(batches) == 24
    for number in range(3):
        shown = torch.cat(batches[8 * number : 8 * number + 8])
        assert sorted(p.numpy().tobytes() for p in shown) == sorted(p.numpy().tobytes() for p in data.train.pixels)
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


def test_flip_mirrors_about_half_of_the_pictures() -> None:
    config = Config(num_synthetic=200, image_size=8, batch_size=160, epoch_steps=1, flip=True)
    data, accelerator = load_data(config, CPU), Accelerator(device="cpu", precision="fp32")
    (images, _), *_ = training_loader(data, config, accelerator).batches(0)
    shown, known = to_pixels(images), {p.numpy().tobytes() for p in data.train.pixels}
    mirrored = sum(p.numpy().tobytes() not in known for p in shown)
    assert 50 < mirrored < 110
    assert all(p.numpy().tobytes() in known or p.flip(1).numpy().tobytes() in known for p in shown)


def test_every_byte_survives_the_way_into_the_network_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(to_pixels((pixels.permute(0, 3, 1, 2).float() / 127.5) - 1), pixels)
    assert to_pixels(torch.tensor([[[[-3.0, 3.0]]]])).flatten().tolist() == [0, 255]


def test_an_image_of_another_mode_and_size_becomes_a_square(tmp_path: Path) -> None:
    for number in range(100):
        folder = tmp_path / ("a" if number % 2 else "b")
        folder.mkdir(exist_ok=True)
        Image.new(("L", "RGBA", "P")[number % 3], (40, 17), color=number).save(folder / f"{number}.png")
    assert load_data(Config(data=str(tmp_path), image_size=16), CPU).train.pixels.shape == (80, 16, 16, 3)
