"""What a run records of the code: the commit of its own repository, and of no other."""

import subprocess
from pathlib import Path

import pytest

from core import environment


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_commit_of_another_repository_around_the_installed_package_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init")
    (tmp_path / "theirs.py").write_text("")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-m", "theirs")
    installed = tmp_path / "venv" / "core" / "environment.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert environment.git_commit() is None
    git(tmp_path, "add", "-f", str(installed))
    git(tmp_path, "commit", "-m", "ours")
    commit = environment.git_commit()
    assert commit is not None
    assert len(commit) == 40


def test_the_instructions_that_8_bit_networks_are_measured_on_are_named() -> None:
    assert environment.instruction_set()
