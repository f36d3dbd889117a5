"""Checkpoints: a folder a step, tensors as safetensors, the rest as JSON, and a manifest with sizes and SHA-256.

    checkpoints/step-00001200/{model.safetensors, optimizer.safetensors, ..., state.json, MANIFEST.json}

There is no pickle, so a file cannot run code. A folder is written under a temporary name, synced, renamed, and its
parent synced: at any instant the newest complete one is either the old or the new one, and a
flipped bit anywhere in it is found before a number of it is used.

`python -m core.checkpoint verify RUN_DIR` prints a line for every checkpoint.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from core.command_line import Parser
from core.errors import RunError, UserError, advice, printable, run_command
from core.files import TEMPORARY, sync_folder, temporary_beside, write_synced
from core.state_tree import decode, encode_files

FORMAT = 2
_WRITERS = 4
MANIFEST = "MANIFEST.json"
_STATE = "state.json"
REPLACED = f"{TEMPORARY}replaced-"


class Broken(Exception):
    """A checkpoint is not what was written; the text says what is wrong."""


def save(run_dir: Path, step: int, state: Mapping[str, Any], *, project: str, best_step: int | None = None) -> Path:
    """Writes the state of a step and returns its folder.

    state: names with trees of dicts, lists, tuples, tensors, numbers, strings and None, as state_dict() gives them.
    best_step: the step that was best in validation so far. Raises RunError, with the older checkpoints as they were,
    for a full disk, a read-only folder, or a value that is not finite.
    """
    final = folder_of(run_dir, step)
    parent, temporary, replaced = final.parent, temporary_beside(final), final.with_name(f"{REPLACED}{final.name}")
    files = encode_files(state, step, _STATE)
    try:
        temporary.mkdir(parents=True)
        with ThreadPoolExecutor(_WRITERS) as pool:  # hashing and waiting for the disk both let other threads run
            written = pool.map(lambda name: write_synced(temporary / name, files[name]), files)
            listing = dict(zip(files, written, strict=True))
        body = {"format": FORMAT, "project": project, "step": step, "best_step": best_step, "files": listing}
        write_synced(temporary / MANIFEST, [sealed(body)])
        sync_folder(temporary)
        if final.exists():  # a broken one that a resumed run has passed again, or the same step saved twice
            if replaced.exists():
                shutil.rmtree(replaced)
            final.rename(replaced)
        temporary.rename(final)
        sync_folder(parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        put_back(replaced)
        shutil.rmtree(temporary, ignore_errors=True)
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        what = f"checkpoint of step {step} not written, {reason}"
        raise RunError(what, error.filename or parent, advice(error)) from error
    return final


def load(folder: Path, *, project: str | None = None, only: Iterable[str] | None = None) -> dict[str, Any]:
    """The state that save was given; tensors on the CPU. Each file is read once, and its bytes are verified.

    only: names of the state to read; those that it does not have are left out. Raises Broken, or UserError for
    another project's.
    """
    manifest = _read_manifest(folder)
    if project is not None and manifest["project"] != project:
        raise UserError("a checkpoint of another project", folder, f"it was made by {manifest['project']}")
    wanted = None if only is None else set(only)
    tensors: dict[str, Tensor] = {}
    tree: dict[str, Any] = {}
    try:
        for name in manifest["files"]:
            part = name.removesuffix(".safetensors")
            if name == _STATE:
                tree = json.loads(_read_verified(folder, name, manifest))
            elif wanted is None or part in wanted:
                content = safetensors.torch.load(_read_verified(folder, name, manifest))
                tensors.update({f"{part}/{key}": value for key, value in content.items()})
        return {name: decode(value, tensors) for name, value in tree.items() if wanted is None or name in wanted}
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error  # a RecursionError is a RuntimeError


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that is just as it was written; raises Broken with the reason otherwise."""
    manifest = _read_manifest(folder)
    for name in manifest["files"]:
        _read_verified(folder, name, manifest)
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that has just the files that it lists, unread; raises Broken otherwise."""
    try:
        data = (folder / MANIFEST).read_bytes()
        body = json.loads(data)
        if not isinstance(body, dict) or sealed({k: v for k, v in body.items() if k != "sha256"}) != data:
            raise Broken(f"{MANIFEST} was changed")
        if body["format"] != FORMAT:
            raise Broken(f"format {body['format']}; this version reads format {FORMAT}")
        if f"step-{body['step']:08d}" != folder.name:
            raise Broken(f"it is step {body['step']}, not {folder.name}")
        present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
        if not all(isinstance(each["size"], int) and each["sha256"] for each in body["files"].values()):
            raise Broken(f"{MANIFEST} is no manifest")
        for name in sorted(present ^ set(body["files"])):
            raise Broken(f"{name} is {'missing' if name in body['files'] else 'not listed'}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise Broken(f"{MANIFEST} is unreadable: {reason}") from error
    return body


def folder_of(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def folders(run_dir: Path) -> list[Path]:
    """The run's checkpoints, the oldest step first, whatever their state."""
    return sorted(p for p in (run_dir / "checkpoints").glob("step-*") if p.is_dir())


def load_newest(
    run_dir: Path, *, project: str | None = None, only: Iterable[str] | None = None
) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint that can be read, and its state as load gives it; a line on stderr for each passed over.

    Raises UserError where there is none.
    """
    wanted = None if only is None else list(only)
    broken = []
    for folder in reversed(folders(run_dir)):
        try:
            return folder, load(folder, project=project, only=wanted)
        except Broken as error:
            broken.append(f"{folder.name}: {error}")
            say_broken(folder, str(error))
    raise no_good_one(run_dir, broken)


def no_good_one(run_dir: Path, broken: Sequence[str]) -> UserError:
    """The error of a run without a checkpoint that can be used. broken: what is wrong with those that are there."""
    return UserError("no good checkpoint", f"{run_dir} ({'; '.join(broken) or 'it has none'})", "start a new run")


def good_steps(run_dir: Path) -> list[int]:
    """The steps of all checkpoints that are just as they were written."""
    steps = []
    for folder in folders(run_dir):
        with suppress(Broken):
            steps.append(int(verify(folder)["step"]))
    return steps


def say_broken(folder: Path, reason: str) -> None:
    """Prints that a checkpoint is passed over."""
    print(printable(f"checkpoint {folder} is broken ({reason}); trying the one before it"), file=sys.stderr)


def best_step(run_dir: Path) -> int | None:
    """The step that was best in validation, as the newest readable manifest has it; None without validation."""
    for folder in reversed(folders(run_dir)):
        with suppress(Broken):
            step = _read_manifest(folder)["best_step"]
            return step if isinstance(step, int) else None
    return None


def put_back(replaced: Path) -> None:
    """Gives a folder that was to be replaced its name again, unless the new one has it."""
    final = replaced.with_name(replaced.name.removeprefix(REPLACED))
    if replaced.exists() and not final.exists():
        replaced.rename(final)


def _read_verified(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """The bytes of a listed file; raises Broken where they are not those that were written."""
    try:
        content, expected = (folder / name).read_bytes(), manifest["files"][name]
        if len(content) != expected["size"]:
            raise Broken(f"{name} has {len(content)} bytes of {expected['size']}")
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise Broken(f"{name}: digest mismatch")
    except (OSError, KeyError, TypeError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise Broken(f"{name} is unreadable: {reason}") from error
    return content


def sealed(body: Mapping[str, Any]) -> bytes:
    """The manifest's bytes, in one fixed form, with the digest of its own content."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, sort_keys=True, indent=1).encode()


def main() -> None:
    """The command line: verify RUN_DIR."""
    parser = Parser("core.checkpoint", "Check a run's checkpoints.")
    parser.add_argument("command", choices=["verify"])
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    found = folders(arguments.run_dir)
    if not found:
        raise UserError("no checkpoints", arguments.run_dir, "give a run folder")
    num_broken = 0
    for folder in found:
        try:
            size = sum(entry["size"] for entry in verify(folder)["files"].values())
            print(f"{folder.name}  good  {size / 1e6:.1f} MB")
        except Broken as error:
            num_broken += 1
            print(f"{folder.name}  BROKEN  {error}")
    if num_broken:
        what = f"{num_broken} of {len(found)} checkpoints are broken"
        raise RunError(what, arguments.run_dir, "resume passes them over")


if __name__ == "__main__":
    run_command(main)
