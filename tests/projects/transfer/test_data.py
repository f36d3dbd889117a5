"""A folder's images arrive whole, split as said; broken ones are named or listed; both ways of holding agree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.accelerator import Accelerator
from core.distributed import World
from core.errors import UserError
from projects.transfer.augment import Preprocessing
from projects.transfer.config import Config
from projects.transfer.data import (
    Balanced,
    Data,
    class_weights,
    evaluation_loader,
    load_data,
    training_loader,
    training_order,
)
from tests.projects.transfer import conftest
from tests.projects.transfer.conftest import CLASSES, TINY, MakeFolder

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing.of(16, 1.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def settings(data: object, *more: object) -> Config:
    return conftest.settings("--data", data, *TINY, *more)


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


def test_each_folder_is_for_what_it_is_called(make_folder: MakeFolder) -> None:
    data = load_data(settings(make_folder(train=8, val=3, test=2)), 16, CPU)
    assert list(data.classes) == list(CLASSES)
    assert sizes(data) == (24, 9, 6)
    assert data.val.load(range(9)).shape == (9, 16, 16, 3)
    assert data.val.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("name", ["val", "test"])
def test_of_two_folders_the_second_is_the_test_and_validation_is_cut_off_train(
    name: str, make_folder: MakeFolder
) -> None:
    data = load_data(settings(make_folder(train=10, **{name: 3})), 16, CPU)
    assert sizes(data) == (24, 6, 9)
    assert data.test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("split", ["train", "root"])
def test_a_single_folder_is_split_by_the_seed_class_by_class(split: str, make_folder: MakeFolder) -> None:
    folder = make_folder(**{split: 10})
    data = load_data(settings(folder, "--test-fraction", 0.3), 16, CPU)
    assert sizes(data) == (18, 3, 9)
    for part, num in ((data.train, 6), (data.val, 1), (data.test, 3)):
        assert np.bincount(part.labels).tolist() == [num] * 3
    images = [{p.tobytes() for p in part.load(range(len(part)))} for part in (data.train, data.val, data.test)]
    assert len(set.union(*images)) == 30
    again = load_data(settings(folder, "--test-fraction", 0.3), 16, CPU)
    assert {p.tobytes() for p in again.test.load(range(9))} == images[2]
    other = load_data(settings(folder, "--test-fraction", 0.3, "--seed", 4), 16, CPU)
    assert {p.tobytes() for p in other.test.load(range(9))} != images[2]


def test_drawn_images_are_split_too() -> None:
    data = load_data(settings("synthetic", "--num-synthetic", 90, "--val-fraction", 0.1), 16, CPU)
    assert sum(sizes(data)[:2]) == 90
    assert np.bincount(data.test.labels).min() > 90


def test_a_class_that_train_lacks_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder(train=4, val=2)
    (folder / "val" / "blue").rename(folder / "val" / "violet")
    with pytest.raises(UserError, match="violet"):
        load_data(settings(folder), 16, CPU)


def test_an_empty_class_and_a_single_class_are_refused(make_folder: MakeFolder) -> None:
    folder = make_folder(train=4)
    (folder / "train" / "crimson").mkdir()
    with pytest.raises(UserError, match="crimson"):
        load_data(settings(folder), 16, CPU)
    for name in ("crimson", *CLASSES[1:]):
        (folder / "train" / name).rename(folder / name)
    with pytest.raises(UserError, match="two class"):
        load_data(settings(folder), 16, CPU)


def test_a_rare_class_keeps_its_images_for_training_and_is_said_to_be_missing_elsewhere(
    make_folder: MakeFolder,
) -> None:
    data = load_data(settings(make_folder(train=(6, 1, 6))), 16, CPU)
    assert set(data.train.labels.tolist()) == {0, 1, 2}
    assert [name for note in data.notes for name in ("val", "test") if name in note and "blue" in note] == [
        "test",
        "val",
    ]


def test_what_a_folder_holds_besides_is_said_and_copies_between_its_sets_are_counted(make_folder: MakeFolder) -> None:
    folder = make_folder(Train=6, Valid=2, test=2)
    (folder / "docs").mkdir()
    (folder / "Train" / "blue" / "x.heic").write_bytes(b"")
    (folder / "test" / "green" / "01.png").write_bytes((folder / "Train" / "green" / "00.png").read_bytes())
    data = load_data(settings(folder), 16, CPU)
    assert sizes(data) == (18, 6, 6)
    for words in ("docs", "1 .heic", "1 of 6 images of test are in train too"):
        assert any(words in note for note in data.notes)


def spoil(folder: Path) -> list[str]:
    """Breaks images of a training folder, each in another way; their names."""
    train = folder / "train"
    whole = (train / "amber" / "00.png").read_bytes()
    (train / "amber" / "00.png").write_bytes(whole[: len(whole) // 2])
    (train / "blue" / "02.png").write_bytes(b"")
    (train / "blue" / "03.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    (train / "green" / "loop.png").symlink_to("loop.png")
    Image.new("1", (10_001, 10_000)).save(train / "green" / "bomb.png")
    return ["amber/00.png", "blue/02.png", "blue/03.jpg", "green/bomb.png", "green/loop.png"]


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_broken_images_can_be_skipped_and_are_listed_the_same_in_every_run(
    resident: str, make_folder: MakeFolder
) -> None:
    folder = make_folder(train=10, test=3)
    broken = spoil(folder)
    config = settings(folder, "--on-fault", "skip", "--resident", resident)
    data = load_data(config, 16, CPU)
    assert [text.split(" (")[0] for text in data.skipped] == [f"train/{name}" for name in broken]
    assert sum(sizes(data)[:2]) == 30 - 3
    assert data.train.load(range(len(data.train))).shape[0] == len(data.train)
    assert list(load_data(config, 16, CPU).skipped) == list(data.skipped)


def test_a_broken_image_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder(train=10)
    spoil(folder)
    with pytest.raises(UserError, match=r"amber/00\.png") as caught:
        load_data(settings(folder), 16, CPU)
    assert "\n" not in str(caught.value)


def batches(data: Data, config: Config, epoch: int = 1, start: int = 0) -> Sequence[tuple[Tensor, Tensor]]:
    accelerator = Accelerator(device="cpu", precision="fp32")
    return list(training_loader(data, PREPROCESSING, config, accelerator).batches(epoch, start))


def views(data: Data, config: Config) -> Sequence[tuple[Sequence[Tensor], Tensor]]:
    accelerator = Accelerator(device="cpu", precision="fp32")
    return list(evaluation_loader(data.val, PREPROCESSING, config, accelerator, World()).batches(0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "flags",
    [["--augment", "light"], ["--augment", "crop", "--mixup", 0.5], ["--balance", "sampler", "--cutmix", 1]],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_streamed_batches_are_bit_for_bit_the_resident_ones(
    flags: list[object], workers: int, make_folder: MakeFolder
) -> None:
    folder = make_folder(train=(10, 4, 8), test=1)
    config = settings(folder, *flags, "--resident", "yes")
    resident = batches(load_data(config, 16, CPU), config)
    config = settings(folder, *flags, "--resident", "no", "--workers", workers)
    streamed = batches(load_data(config, 16, CPU), config)
    assert len(resident) == len(streamed) == 2
    for one, other in zip(resident, streamed, strict=True):
        assert one[0].shape == (8, 3, 16, 16)
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_every_epoch_and_every_seed_has_its_own_order_and_augmentation(make_folder: MakeFolder) -> None:
    folder = make_folder(train=10, test=1)
    config = settings(folder)
    data = load_data(config, 16, CPU)
    first, second = batches(data, config, epoch=0), batches(data, config, epoch=1)
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(batches(data, config, epoch=0, start=1)[0][0], first[1][0])
    assert not torch.equal(batches(data, settings(folder, "--seed", 4), epoch=0)[0][0], first[0][0])


def test_fixed_views_come_back_after_their_number_of_epochs(make_folder: MakeFolder) -> None:
    config = settings(make_folder(train=10, test=1), "--strategy", "head", "--views", 3, "--cache", "no")
    data = load_data(config, 16, CPU)
    shown = [
        {image.numpy().tobytes() for images, _ in batches(data, config, epoch=e) for image in images} for e in range(7)
    ]
    assert len(set.union(*shown)) <= 3 * 24
    assert shown[0] & (shown[3] | shown[6])
    assert not shown[0] & shown[1]


def test_evaluation_shows_every_image_once_in_order_and_mirrored(make_folder: MakeFolder) -> None:
    config = settings(make_folder(train=4, val=7, test=1))
    data = load_data(config, 16, CPU)
    shown = views(data, config)
    assert [len(labels) for _, labels in shown] == [8, 8, 5]
    assert torch.cat([labels for _, labels in shown]).tolist() == data.val.labels.tolist()
    plain, mirrored = (torch.cat([pair[number] for pair, _ in shown]) for number in range(2))
    assert torch.equal(mirrored, plain.flip(3))
    expected = (data.val.load(range(21)).transpose(0, 3, 1, 2) / np.float32(255) - 0.5) / 0.25
    np.testing.assert_allclose(plain.numpy(), expected, atol=1e-5)
    alone = views(data, settings(config.data, "--no-test-flip"))
    assert [len(pair) for pair, _ in alone] == [1, 1, 1]


def test_the_sampler_draws_every_class_alike_and_each_draw_of_a_image_is_another_sample(
    make_folder: MakeFolder,
) -> None:
    config = settings(make_folder(train=(24, 6, 12), test=1), "--balance", "sampler", "--val-fraction", 0.01)
    data = load_data(config, 16, CPU)
    order = training_order(data, config, World())
    assert isinstance(order, Balanced)
    samples = torch.cat(list(order.indices(epoch=0)))
    assert len(set(samples.tolist())) == len(samples)
    rows = samples % len(data.train)
    counts = np.bincount(data.train.labels[rows.numpy()])
    assert counts.max() - counts.min() <= config.batch_size
    assert np.bincount(rows.numpy()).max() == 3, "a rare image is drawn several times"
    assert torch.equal(torch.cat(list(order.indices(0, start=2))), samples[16:])
    assert not torch.equal(torch.cat(list(order.indices(1))), samples)


def test_class_weights_are_inverse_to_frequency_and_one_on_average() -> None:
    labels = np.asarray([0] * 6 + [1] * 2 + [3] * 4)
    weights = class_weights(labels, 4)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 0, 1])
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1)


def test_images_of_every_kind_arrive_upright_in_three_colors(tmp_path: Path) -> None:
    values = np.zeros((40, 60, 3), np.uint8)
    values[:, :30] = (200, 40, 40)
    image = Image.fromarray(values)
    kinds = {"rgb.png": image, "palette.gif": image.convert("P"), "cmyk.jpg": image.convert("CMYK")}
    kinds |= {"alpha.webp": image.convert("RGBA"), "gray.png": image.convert("L"), "one.bmp": image.convert("1")}
    kinds["deep.png"] = Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16)) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for file, made in kinds.items():
            made.save(tmp_path / "train" / name / file)
        image.save(tmp_path / "train" / name / "turned.jpg", exif=exif)
    data = load_data(settings(tmp_path, "--test-fraction", 0.01, "--val-fraction", 0.01), 16, CPU)
    assert sum(sizes(data)) == 16
    pixels = np.concatenate([part.load(range(len(part))) for part in (data.train, data.val, data.test)]).astype(int)
    upright = pixels[..., 0].mean((1, 2)) > 20
    assert upright.all()
    turned = [p for p in pixels if abs(p[:6].mean() - p[-6:].mean()) > 15]
    assert len(turned) == 2, "the two with an EXIF rotation are bright above and dark below"
