"""Native code is loaded only from a folder that nobody else can write to, and no lock is waited for without end."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest
import torch

from cuda_ext import build, cache, kernel_library, toolchain
from cuda_ext.kernel_library import Recipe
from tests.cuda_ext.building import SAMPLE, plain_sources, run

SOMEBODY = 12345


@pytest.fixture
def nowhere_else(home: Path, tmp_path: Path) -> None:
    """No other place for libraries: a file stands where the temporary folder would have them."""
    (tmp_path / "tmp" / f"atelier-kernels-{os.geteuid()}").touch()


def test_the_cache_is_the_users_and_then_the_users_own_part_of_the_temporary_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "tmp" / f"atelier-kernels-{os.geteuid()}"
    assert cache.folders() == [home, own]
    monkeypatch.delenv("ATELIER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folders() == [tmp_path / ".cache" / "atelier" / "kernels", own]


def test_nobodys_home_leaves_the_temporary_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ATELIER_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    assert [folder.name for folder in cache.folders()] == [f"atelier-kernels-{os.geteuid()}"]


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o770])
def test_a_library_that_others_could_have_put_there_is_not_loaded(
    compiled: Path, tmp_path: Path, nowhere_else: None, mode: int
) -> None:
    folder = compiled.parents[1]
    folder.chmod(mode)
    answer = run(tmp_path / "child", SAMPLE)
    assert not answer.active
    for words in (f"{folder} can be written by other users", f"{cache.folders()[1]} is not a folder", "ATELIER_CACHE"):
        assert words in str(answer.reason)


def test_a_library_of_another_user_is_not_loaded(compiled: Path, tmp_path: Path, nowhere_else: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    folder = compiled.parents[1]
    os.chown(folder, SOMEBODY, SOMEBODY)
    answer = run(tmp_path / "child", SAMPLE)
    assert not answer.active
    assert str(answer.reason).startswith(f"{folder} belongs to another user; ")


def test_a_link_that_another_user_made_is_not_followed(compiled: Path, tmp_path: Path, nowhere_else: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a link to another user")
    folder = compiled.parents[1]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert cache.refusal(folder) is None
    os.lchown(folder, SOMEBODY, SOMEBODY)
    assert not run(tmp_path / "child", SAMPLE).active


@pytest.mark.parametrize("place", ["a file", "a link to nothing", "a file system that cannot be written"])
def test_where_the_cache_cannot_be_the_users_own_temporary_folder_takes_its_place(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    home.parent.mkdir()
    if place == "a file":
        home.touch()
        reason = f"{home} is not a folder"
    elif place == "a link to nothing":
        home.symlink_to(tmp_path / "nothing")
        reason = f"{home} is a link to nothing"
    else:
        monkeypatch.setenv("ATELIER_CACHE", "/proc/self")  # refuses root as well
        reason = "/proc/self/kernels cannot be written (no such file or directory)"
    sources = plain_sources(tmp_path / "csrc")
    first, second = run(tmp_path / "first", sources), run(tmp_path / "second", sources)
    own = Path(tempfile.gettempdir(), f"atelier-kernels-{os.geteuid()}")
    assert first.stderr == f"compiling the cpu kernels into {own}, because {reason} (once, about 10 s) ...\n"
    assert (first.active, first.built, second.active, second.built) == (True, True, True, False)
    assert Path(str(second.library)).parents[1] == own
    assert own.stat().st_mode & 0o777 == 0o700
    assert second.stderr == ""


def test_with_nowhere_to_write_it_is_plain_pytorch(home: Path, tmp_path: Path, nowhere_else: None) -> None:
    home.parent.mkdir()
    home.touch()
    answer = run(tmp_path / "child", plain_sources(tmp_path / "csrc"))
    assert not answer.active
    assert len(answer.stderr.splitlines()) == 1
    assert f"{home} is not a folder; " in answer.stderr


def test_a_lock_file_that_nobody_holds_is_no_lock(compiled: Path, tmp_path: Path) -> None:
    folder, content = compiled.parents[1], compiled.read_bytes()
    compiled.unlink()  # so that something is to be done under the lock
    (folder / f"{compiled.parent.name}.lock").write_text("process 1 on another machine", "utf-8")
    (folder / f"{compiled.parent.name}.part-old").mkdir()
    (folder / f"{compiled.parent.name}.part-old" / "lock").touch()
    answer = run(tmp_path / "child", SAMPLE)
    assert answer.built
    assert len(compiled.read_bytes()) == len(content)
    assert not list(folder.glob("*.part-*"))


def test_a_lock_that_is_held_is_said_and_given_up_in_time(home: Path, tmp_path: Path) -> None:
    sources = plain_sources(tmp_path / "csrc")
    recipe = Recipe("cpu", sources)
    lock = home / f"{kernel_library.name_of(recipe, '', kernel_library.read_sources(recipe))}.lock"
    home.mkdir(mode=0o700, parents=True)

    def hurry() -> None:
        kernel_library.NOTICE_SECONDS, kernel_library.LOCK_SECONDS = 0.0, 1.0

    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = run(tmp_path / "child", sources, before=hurry)
    assert not answer.active
    told, notice = answer.stderr.splitlines()
    assert told == f"waiting for another process that compiles the cpu kernels ({lock})"
    assert f"another process has been compiling for 1 s ({lock}); wait for it, or end it" in notice


def test_a_library_that_was_built_meanwhile_is_taken(compiled: Path) -> None:
    recipe = Recipe("cpu", SAMPLE)
    tools = toolchain.find("cpu")
    folder = compiled.parents[1]
    assert kernel_library.build_in(folder, recipe, "", tools, again=False, because="") == (compiled, False)


def test_what_a_library_is_made_from_makes_its_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = plain_sources(tmp_path / "csrc")

    def name(arch: str = "") -> str:
        recipe = Recipe("cpu", sources)
        return kernel_library.name_of(recipe, arch, kernel_library.read_sources(recipe))

    names = [name(), name("9.0")]
    (sources / "answer.h").write_text("#define ANSWER 43\n", "utf-8")
    names.append(name())
    (sources / "answer.h").rename(sources / "reply.h")
    names.append(name())
    monkeypatch.setattr(kernel_library, "CFLAGS", [*kernel_library.CFLAGS, "-g"])
    names.append(name())
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    names.append(name())
    monkeypatch.setattr(torch.version, "cuda", "99.0")
    names.append(name())
    monkeypatch.setattr(toolchain, "identity", lambda device: "another compiler")
    names.append(name())
    assert len(set(names)) == len(names)
    assert name() == names[-1]


def test_an_empty_source_folder_is_told(home: Path, tmp_path: Path) -> None:
    status = build.obtain(Recipe("cpu", tmp_path / "nothing"))
    assert status.reason == f"no cpu sources in {tmp_path / 'nothing'}; install the package whole"
