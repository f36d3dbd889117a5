"""CIFAR-10 itself: the binary archive is read as it is laid out, refused where it is not; the JPEG copy trains."""

import hashlib
import io
import shutil
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.download import RemoteFile
from core.errors import UserError
from projects.cifar10 import data
from projects.cifar10 import train as program
from projects.cifar10.config import Config
from tests.forked import main_of, summary

Install = Callable[[dict[str, bytes]], Path]
RECORD = 3073

main = main_of(program)


def load() -> data.Data:
    """CIFAR-10 as training gets it, with a single image held out for validation."""
    return data.load_data(Config(data="cifar10", val_fraction=1e-5), torch.device("cpu"))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts an archive of the given members into the cache, as the one that is expected there."""

    def put(members: dict[str, bytes]) -> Path:
        path = tmp_path / "cache" / data.CIFAR10.name
        path.parent.mkdir()
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(data, "CIFAR10", RemoteFile(path.name, path.stat().st_size, digest, ()))
        monkeypatch.setenv("ATELIER_CACHE", str(path.parent))
        return path

    return put


def test_planes_of_color_become_images() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (4, RECORD), dtype=np.uint8)
    rows[:, 0] = [3, 9, 0, 3]
    split = data.read_records(rows.tobytes(), 4)
    assert split.labels.tolist() == [3, 9, 0, 3]
    assert split.labels.dtype == np.int64
    images = split.load(range(4))
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    for channel, row, column in [(0, 0, 0), (1, 0, 31), (2, 31, 0), (0, 17, 5)]:
        at = 1 + 1024 * channel + 32 * row + column
        assert images[:, row, column, channel].tolist() == rows[:, at].tolist()


@pytest.mark.parametrize("content", [bytes(2 * RECORD - 1), bytes(2 * RECORD + 1), b"\x0a" + bytes(2 * RECORD - 1)])
def test_another_length_or_a_label_of_10_is_refused_with_the_files_name(content: bytes, install: Install) -> None:
    path = install({})
    with pytest.raises(UserError, match="not CIFAR-10 records") as caught:
        data.read_records(content, 2)
    assert str(path) in str(caught.value)


def test_the_archive_is_read_in_the_order_of_its_batches_wherever_they_stand_in_it(install: Install) -> None:
    batches = {"batches.meta.txt": b"airplane\n"}
    for number, name in {
        5: "data_batch_5",
        1: "data_batch_1",
        3: "data_batch_3",
        2: "data_batch_2",
        7: "test_batch",
    }.items():
        batches[f"{name}.bin"] = records_of(number)
    batches["data_batch_4.bin"] = records_of(4)
    install({f"cifar-10-batches-bin/{name}": content for name, content in batches.items()})
    loaded = load()
    assert (loaded.classes[0], loaded.classes[9], len(loaded.classes)) == ("airplane", "truck", 10)
    assert loaded.test is not None
    assert loaded.test.load([0, 1])[:, 0, 0].tolist() == [[7, 0, 0], [0, 0, 0]]
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (49_999, 1, 10_000)
    assert loaded.train.pixels is not None
    first_values = loaded.train.pixels[:, 0, 0, 0]
    assert first_values[first_values > 0].tolist() == [1, 2, 3, 4, 5]


def records_of(number: int) -> bytes:
    """10,000 black records of labels 0 to 9 in turn, the first of which begins with a number."""
    rows = np.zeros((10_000, RECORD), dtype=np.uint8)
    rows[:, 0] = np.arange(10_000) % 10
    rows[0, 1] = number
    return rows.tobytes()


def test_a_changed_archive_is_refused(install: Install) -> None:
    path = install({})
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="changed") as caught:
        load()
    assert str(path) in str(caught.value)


def test_without_network_one_line_says_what_file_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nowhere = [f"http://127.0.0.1:{port}/{name}" for name in ("a", "b")]
    pinned = data.CIFAR10
    monkeypatch.setattr(data, "CIFAR10", RemoteFile(pinned.name, pinned.size, pinned.sha256, nowhere))
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError) as caught:
        main(["--data", "cifar10", "--model", "fast", "--run-dir", str(tmp_path / "run")])
    message = str(caught.value)
    for part in ("cifar-10-binary.tar.gz", "170052171", pinned.sha256, str(tmp_path / "cache" / pinned.name)):
        assert part in message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()


def test_every_mirror_is_asked_over_https_and_the_file_is_pinned() -> None:
    assert len(data.CIFAR10.urls) >= 2
    assert all(url.startswith("https://") for url in data.CIFAR10.urls)
    assert len(data.CIFAR10.sha256) == 64


def test_two_epochs_on_400_real_images_beat_chance(real_data: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in data.CIFAR10_CLASSES:
            target = tmp_path / "images" / split / name
            target.mkdir(parents=True)
            for image in sorted((real_data / "cifar10" / split / name).glob("*.jpg"))[:40]:
                shutil.copy(image, target)
    argv = ["--data", tmp_path / "images", "--epochs", 2, "--batch-size", 10, "--model", "fast", "--device", "cpu"]
    argv += ["--precision", "fp32", "--optimizer", "sgd", "--lr", 0.1, "--momentum", 0.85, "--image-size", 32]
    argv += ["--schedule", "one-cycle", "--ema", 0, "--val-fraction", 0.1, "--cutout", 0, "--seed", 0]
    main([str(value) for value in (*argv, "--run-dir", tmp_path / "run")])
    numbers = summary(tmp_path / "run")
    assert numbers["num_test"] == 400
    assert numbers["test_accuracy"] > 0.16  # four standard deviations above chance
