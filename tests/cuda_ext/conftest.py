"""What the tests of compiling share: an empty home for libraries, and two libraries that were compiled once."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda_ext.building import SAMPLE, Answer, compute, plain_sources, run, start

NUM_PROCESSES = 8
FOREIGN = ("ATELIER_EXT", "RANK", "LOCAL_RANK", "CXX", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and an empty temporary folder; returns the folder where libraries will lie."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name, value in surroundings(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "cache" / "kernels"


def surroundings(folder: Path) -> dict[str, str]:
    """The variables that put all libraries and temporary files into a folder."""
    (folder / "tmp").mkdir(exist_ok=True)
    return {"ATELIER_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}


def moved_to(folder: Path) -> Callable[[], None]:
    """What a child does first to keep everything in a folder."""

    def move() -> None:
        for name in FOREIGN:
            os.environ.pop(name, None)
        os.environ.update(surroundings(folder))
        tempfile.tempdir = None

    return move


@pytest.fixture(scope="session")
def race(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Answer]]:
    """Eight programs that ask at once for the sample kernels, with nothing there: the folder and what they saw."""
    folder = tmp_path_factory.mktemp("race")
    move = moved_to(folder)
    children = [start(folder / str(n), SAMPLE, before=move, after=compute, whole=True) for n in range(NUM_PROCESSES)]
    return folder / "cache" / "kernels", [child.answer() for child in children]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A library without torch in it: the folder of libraries, and its sources."""
    folder = tmp_path_factory.mktemp("plain")
    sources = plain_sources(folder / "csrc")
    assert run(folder / "child", sources, before=moved_to(folder)).built
    return folder / "cache" / "kernels", sources


@pytest.fixture
def compiled(race: tuple[Path, list[Answer]], home: Path) -> Path:
    """The library of the sample kernels, in this test's home."""
    shutil.copytree(race[0], home)
    return next(home.glob("*/atelier_cpu.so"))


@pytest.fixture
def plain_library(plain: tuple[Path, Path], home: Path) -> tuple[Path, Path]:
    """The library without torch in this test's home, and its sources."""
    shutil.copytree(plain[0], home)
    return next(home.glob("*/atelier_cpu.so")), plain[1]


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any compiler, which still has ninja."""
    from cuda_ext import toolchain

    ninja = toolchain.ninja()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ninja").symlink_to(ninja)
    monkeypatch.setattr(toolchain, "search_path", lambda: str(tmp_path / "bin"))
    monkeypatch.setattr(toolchain, "DEFAULT_TOOLKIT", tmp_path / "no-toolkit")
    monkeypatch.setattr(toolchain, "package_homes", list)
