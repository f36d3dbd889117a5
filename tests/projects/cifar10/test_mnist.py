"""idx files are read as their format says, hostile ones are refused; digits need no download and always split alike."""

import gzip
import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from core.download import RemoteFile
from core.program import parse_training
from projects.cifar10 import mnist
from projects.cifar10.config import Config
from projects.cifar10.data import load_data
from tests.refusals import assert_refused


def idx(kind: int, *shape: int, content: bytes = b"") -> bytes:
    """An idx file's bytes."""
    header = bytes([0, 0, kind, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return header + content


def zipped(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1))
    return path


def test_an_idx_file_is_read_as_it_is_laid_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "images.gz", idx(8, 2, 2, 3, content=bytes(range(12))))
    assert mnist.read_idx(path, 3).tolist() == np.arange(12).reshape(2, 2, 3).tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        idx(8, 2, 2, 3)[:9],
        idx(8, 2, 2, 3, content=bytes(11)),
        idx(8, 2, 2, 3, content=bytes(13)),
        idx(13, 2, 2, 3, content=bytes(12)),  # of floats
        idx(8, 12, content=bytes(12)),  # of another number of dimensions
        idx(8, 2**32 - 1, 2**32 - 1, 2**32 - 1, content=bytes(12)),
        idx(8, 0, 28, 28),
        b"\x80\x04cos\nsystem\n" + bytes(20),  # a pickle
    ],
    ids=range(9),
)
def test_what_is_no_idx_file_of_images_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = zipped(tmp_path / "images.gz", content)
    assert_refused(partial(mnist.read_idx, path, 3), str(path), tmp_path)


def test_a_file_that_unpacks_without_end_or_is_not_zipped_or_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "MAX_IDX_BYTES", 10_000)
    bomb = zipped(tmp_path / "bomb.gz", idx(8, 1000, 100, 10) + bytes(1_000_000))
    plain = tmp_path / "plain.gz"
    plain.write_bytes(idx(8, 1, content=b"1"))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(bomb.read_bytes()[:40])
    for path in (bomb, plain, cut, tmp_path / "missing.gz", tmp_path):
        assert_refused(partial(mnist.read_idx, path, 3), str(path), tmp_path)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, num_labels: int = 20, label: int = 9) -> None:
    """Puts small files in the place of the real ones into the cache."""
    contents = {}
    for split, num in (("train", 20), ("t10k", 10)):
        pixels = np.full((num, 28, 28), 7, dtype=np.uint8)
        pixels[:, :2] = 250
        contents[f"{split}-images"] = idx(8, num, 28, 28, content=pixels.tobytes())
        labels = (np.arange(num_labels if split == "train" else num) % (label + 1)).astype(np.uint8)
        contents[f"{split}-labels"] = idx(8, len(labels), content=labels.tobytes())
    files = []
    for name, content in contents.items():
        path = zipped(folder / name, content)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(RemoteFile(name, path.stat().st_size, digest, ()))
    monkeypatch.setattr(mnist, "FILES", {"mnist": files, "fashion-mnist": files})
    monkeypatch.setenv("ATELIER_CACHE", str(folder))


@pytest.mark.parametrize(("data", "ninth"), [("mnist", "9"), ("fashion-mnist", "ankle boot")])
def test_images_become_rgb_squares(data: str, ninth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    config = parse_training(Config, ["--data", data, "--val-fraction", "0.2"]).config
    loaded = load_data(config, torch.device("cpu"))
    assert loaded.classes[9] == ninth
    assert loaded.test is not None
    assert (len(loaded.train) + len(loaded.val), len(loaded.test)) == (20, 10)
    image = loaded.test.load([0])[0]
    assert image.shape == (32, 32, 3)
    assert (image[0, 5].tolist(), image[20, 5].tolist()) == ([250] * 3, [7] * 3)  # the bright rows are at the top
    assert config.flip == (data == "fashion-mnist")  # a mirrored digit is another sign


@pytest.mark.parametrize("wrong", [{"num_labels": 19}, {"label": 10}], ids=str)
def test_labels_that_do_not_fit_their_images_are_refused(
    wrong: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, **wrong)
    assert_refused(partial(mnist.load_mnist, "mnist", 32), "train-labels", tmp_path)


def test_every_file_has_mirrors_over_https_and_is_pinned() -> None:
    for files in mnist.FILES.values():
        for file in files:
            assert len(file.urls) >= 2
            assert all(url.startswith("https://") for url in file.urls)
            assert len(file.sha256) == 64


def test_digits_have_the_same_test_images_whatever_the_seed() -> None:
    first, second = (load_data(Config(data="digits", image_size=16, seed=seed), torch.device("cpu")) for seed in (0, 1))
    assert first.test is not None
    assert second.test is not None
    assert len(first.train) + len(first.val) + len(first.test) == 1797
    assert first.test.load([0, 359]).tolist() == second.test.load([0, 359]).tolist()
    assert first.train.count_copies(first.test) == 0
    assert first.sha256 == second.sha256
    assert sorted(set(first.test.labels.tolist())) == list(range(10))
