"""What was changed on the disk is noticed, whatever it is, and the checkpoint before it is used."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoint import MANIFEST, Broken, load, load_newest, save, sealed, verify
from core.errors import UserError


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """An older and a newer checkpoint's folders."""
    states = [{"model": {"weight": torch.full((2, 3), float(step))}, "loop": {"step": step}} for step in (1, 2)]
    older, newer = (save(tmp_path, step, state, project="any") for step, state in enumerate(states, start=1))
    return older, newer


def test_every_flipped_bit_is_found_and_stepped_over(two: tuple[Path, Path], tmp_path: Path) -> None:
    older, newer = two
    random_bits = random.Random(0)
    contents = {path: path.read_bytes() for path in sorted(newer.iterdir())}
    for number in range(500):
        path = list(contents)[number % len(contents)]
        changed = bytearray(contents[path])
        changed[random_bits.randrange(len(changed))] ^= 1 << random_bits.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(Broken):
            load(newer)
        assert load_newest(tmp_path)[0] == older
        path.write_bytes(contents[path])
    assert load_newest(tmp_path)[0] == newer


def drop_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def foreign_name(folder: Path) -> None:
    body = json.loads((folder / MANIFEST).read_bytes())
    body["files"]["../../x"] = body["files"]["state.json"]
    shutil.copy(folder / "state.json", folder.parent.parent / "x")
    (folder / MANIFEST).write_bytes(sealed({key: value for key, value in body.items() if key != "sha256"}))


def other_step(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-00000001"), folder)


def manifest_folder(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()


def resealed(**changes: Any) -> Callable[[Path], None]:
    """Makes a manifest that fits its own digest, but says something else."""

    def damage(folder: Path) -> None:
        body = {**json.loads((folder / MANIFEST).read_bytes()), **changes}
        del body["sha256"]
        (folder / MANIFEST).write_bytes(sealed(body))

    return damage


def cut(name: str, share: float) -> Callable[[Path], object]:
    """Keeps so many bytes of a file, or for 0.5 half of it."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share) if share in (0, 1, -1) else len(content) // 2])

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (drop_manifest, MANIFEST),
    "manifest is text": (lambda f: (f / MANIFEST).write_text("hello"), MANIFEST),
    "manifest is a list": (lambda f: (f / MANIFEST).write_text("[]"), MANIFEST),
    "manifest is deep": (lambda f: (f / MANIFEST).write_text("[" * 100_000), MANIFEST),
    "manifest is a folder": (manifest_folder, MANIFEST),
    "extra file": (lambda f: (f / "extra").write_text("x"), "extra is not listed"),
    "missing file": (lambda f: (f / "model.safetensors").rename(f.parent / "away"), r"model\.safetensors is missing"),
    "other step": (other_step, "it is step 1"),
    "a name outside": (foreign_name, r"\.\./\.\./x"),
    "newer format": (resealed(format=3), "format 3"),
    "files is a list": (resealed(files=["state.json", "model.safetensors"]), MANIFEST),
    "step is a word": (resealed(step="two"), MANIFEST),
    "file without size": (resealed(files={"state.json": {}, "model.safetensors": {}}), MANIFEST),
    **{
        f"{name} cut at {share:g}": (cut(name, share), name.replace(".", r"\."))
        for name in ("state.json", "model.safetensors", MANIFEST)
        for share in (0, 1, 0.5, -1)
    },
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_the_one_before_is_used(
    kind: str, two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = DAMAGE[kind]
    damage(two[1])
    with pytest.raises(Broken, match=message):
        verify(two[1])
    assert load_newest(tmp_path)[0] == two[0]
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert two[1].name in written.err


def test_when_all_are_broken_each_is_named(two: tuple[Path, Path], tmp_path: Path) -> None:
    drop_manifest(two[0])
    (two[1] / "state.json").unlink()
    with pytest.raises(UserError, match=r"step-00000002: state\.json is missing; step-00000001: MANIFEST"):
        load_newest(tmp_path)
