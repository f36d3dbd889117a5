"""Checkpoints: a folder a step, tensors as safetensors, the rest as JSON, and a manifest with sizes and SHA-256.

    checkpoints/step-00001200/{model.safetensors, optimizer.safetensors, ..., state.json, MANIFEST.json}

There is no pickle, so a file cannot run code. A folder is written under a temporary name, synced, renamed, and its
parent synced: at any instant the newest complete one is either the old or the new one, and a
flipped bit anywhere in it is found before a number of it is used.

`python -m core.checkpoint verify RUN_DIR` prints a line for every checkpoint.
"""

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from core.config import Parser
from core.errors import RunError, UserError, advice, run_command

Buffer = bytes | memoryview
FORMAT = 1
WRITERS = 4
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
MANIFEST = "MANIFEST.json"
TEMPORARY = ".tmp-"
REPLACED = f"{TEMPORARY}replaced-"


class Broken(Exception):
    """A checkpoint is not what was written; the text says what is wrong."""


class NotFinite(Exception):
    """A number that JSON does not have; the text says where it stands."""


def save(run_dir: Path, step: int, state: Mapping[str, Any], *, project: str) -> Path:
    """Writes the state of a step and returns its folder.

    state: names with trees of dicts, lists, tuples, tensors, numbers, strings and None, as state_dict() gives them.
    Raises RunError, with the older checkpoints as they were, for a full disk, a read-only folder, or a value that
    is not finite.
    """
    parent = run_dir / "checkpoints"
    final, temporary = parent / f"step-{step:08d}", parent / f"{TEMPORARY}{step:08d}-{os.getpid()}"
    replaced = parent / f"{REPLACED}{final.name}"
    files = encode_files(state, step)
    try:
        temporary.mkdir(parents=True)
        with ThreadPoolExecutor(WRITERS) as pool:  # hashing and waiting for the disk both let other threads run
            written = pool.map(lambda name: write(temporary / name, files[name]), files)
            listing = dict(zip(files, written, strict=True))
        body = {"format": FORMAT, "project": project, "step": step, "files": listing}
        write(temporary / MANIFEST, [sealed(body)])
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


def load(folder: Path, *, project: str | None = None) -> dict[str, Any]:
    """The state that save was given; tensors on the CPU. Raises Broken, or UserError for another project's."""
    manifest = verify(folder)
    if project is not None and manifest["project"] != project:
        raise UserError("a checkpoint of another project", folder, f"it was made by {manifest['project']}")
    tensors: dict[str, Tensor] = {}
    try:
        for name in manifest["files"]:
            if name.endswith(".safetensors"):
                part = safetensors.torch.load((folder / name).read_bytes())
                tensors.update({f"{name.removesuffix('.safetensors')}/{key}": value for key, value in part.items()})
        tree = json.loads((folder / "state.json").read_bytes())
        return {name: decode(value, tensors) for name, value in tree.items()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that is just as it was written; raises Broken with the reason otherwise."""
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
        for name in sorted(present ^ set(body["files"])):
            raise Broken(f"{name} is {'missing' if name in body['files'] else 'not listed'}")
        for name, expected in body["files"].items():
            content = (folder / name).read_bytes()
            if len(content) != expected["size"]:
                raise Broken(f"{name} has {len(content)} bytes of {expected['size']}")
            if hashlib.sha256(content).hexdigest() != expected["sha256"]:
                raise Broken(f"{name}: digest mismatch")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise Broken(f"{MANIFEST} or a listed file is unreadable: {reason}") from error
    return body


def folders(run_dir: Path) -> list[Path]:
    """The run's checkpoints, the oldest step first, whatever their state."""
    return sorted(p for p in (run_dir / "checkpoints").glob("step-*") if p.is_dir())


def newest_good(run_dir: Path) -> Path:
    """The newest checkpoint that verifies; a line on stderr for each broken one passed over. UserError for none."""
    broken = []
    for folder in reversed(folders(run_dir)):
        try:
            verify(folder)
            return folder
        except Broken as error:
            broken.append(f"{folder.name}: {error}")
            print(f"checkpoint {folder} is broken ({error}); trying the one before it", file=sys.stderr)
    reason = "; ".join(broken) or "it has none"
    raise UserError("no good checkpoint", f"{run_dir} ({reason})", "start a new run")


def best(run_dir: Path) -> Path:
    """The checkpoint that was best in validation, unread; the newest good one of a run without validation."""
    newest = newest_good(run_dir)
    best_step = load(newest)["loop"]["best_step"]
    return newest if best_step is None else newest.with_name(f"step-{best_step:08d}")


def rotate(run_dir: Path, keep: int, protected: Collection[int]) -> None:
    """Deletes all but the newest `keep` checkpoints and the protected steps', once the newest has been read back.

    Raises RunError, with nothing deleted, where the disk holds something else than was written.
    """
    names = {f"step-{step:08d}" for step in protected}
    *_, newest = present = folders(run_dir)
    superfluous = [folder for folder in present[:-keep] if folder.name not in names]
    if superfluous:
        try:
            verify(newest)
        except Broken as error:
            raise RunError(
                "checkpoint not written as it should be", f"{newest}: {error}", "look at the disk"
            ) from error
    for folder in superfluous:
        doomed = folder.with_name(f"{TEMPORARY}{folder.name}")  # half a deletion must not look like a checkpoint
        folder.rename(doomed)
        shutil.rmtree(doomed)


def sweep(run_dir: Path) -> None:
    """Deletes what a killed save or deletion left behind. Only the holder of the run's lock may."""
    for folder in (run_dir / "checkpoints").glob(f"{REPLACED}*"):
        put_back(folder)
    for folder in (run_dir / "checkpoints").glob(f"{TEMPORARY}*"):
        shutil.rmtree(folder, ignore_errors=True)


def put_back(replaced: Path) -> None:
    """Gives a folder that was to be replaced its name again, unless the new one has it."""
    final = replaced.with_name(replaced.name.removeprefix(REPLACED))
    if replaced.exists() and not final.exists():
        replaced.rename(final)


def encode_files(state: Mapping[str, Any], step: int) -> dict[str, Sequence[Buffer]]:
    """File names with contents; raises RunError for a tensor that is not finite."""
    files: dict[str, Sequence[Buffer]] = {}
    tree = {}
    for name, value in state.items():
        tensors: dict[str, Tensor] = {}
        try:
            tree[name] = encode(value, name, "", tensors, {})
        except NotFinite as error:
            raise RunError("a value is not finite", f"{error} at step {step}", "try a lower --lr") from error
        for key, tensor in tensors.items():
            if tensor.is_floating_point() and not is_finite(tensor):
                raise RunError("a value is not finite", f"{name}/{key} at step {step}", "try a lower --lr")
        if tensors:
            files[f"{name}.safetensors"] = as_safetensors(tensors)
    files["state.json"] = [json.dumps(tree, allow_nan=False).encode()]
    return files


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; one pass without a copy, since NaN is both minimum and maximum."""
    return tensor.numel() == 0 or all(bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor))


def as_safetensors(tensors: Mapping[str, Tensor]) -> Sequence[Buffer]:
    """The pieces of a safetensors file: the header's length and the header, then each tensor's own memory.

    The library's save() would copy every tensor once more; the format is
    https://huggingface.co/docs/safetensors/index#format, and the library reads it.
    """
    header, buffers, end = {}, [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):  # keeps all aligned
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        buffers.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *buffers]


def encode(value: Any, name: str, path: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """A tree as JSON, its tensors put aside under their paths; a tensor that stands twice is stored once."""
    if isinstance(value, Tensor):
        identity = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else path
        if identity not in seen:
            while path in tensors:  # {"a.b": x} beside {"a": {"b": y}}, or 1 beside "1"
                path += "'"
            seen[identity] = path
            tensors[path] = stored_alone(value.detach().cpu().contiguous())
        # Optimizers walk weights and moments side by side in memory, so the layout has to come back as well.
        channels_last = value.ndim == 4 and not value.is_contiguous()
        return {"tensor": f"{name}/{seen[identity]}", "channels_last": channels_last}
    if isinstance(value, Mapping):
        pairs = [[key, encode(item, name, f"{path}.{key}".lstrip("."), tensors, seen)] for key, item in value.items()]
        if not all(isinstance(key, str | int) and not isinstance(key, bool) for key, _ in pairs):
            raise TypeError(f"{name}/{path}: a checkpoint's keys are strings and whole numbers")
        return {"items": pairs}
    if isinstance(value, list | tuple):
        items = [encode(item, name, f"{path}.{i}".lstrip("."), tensors, seen) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        raise NotFinite(f"{name}/{path}".rstrip("/"))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}/{path}: {type(value).__name__} has no place in a checkpoint")


def stored_alone(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own: safetensors refuses views that overlap."""
    return tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that encode was given."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        return tensor.contiguous(memory_format=torch.channels_last) if value["channels_last"] else tensor
    if "tuple" in value:
        return tuple(decode(item, tensors) for item in value["tuple"])
    return {key: decode(item, tensors) for key, item in value["items"]}


def sealed(body: Mapping[str, Any]) -> bytes:
    """The manifest's bytes, in one fixed form, with the digest of its own content."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, sort_keys=True, indent=1).encode()


def write(path: Path, pieces: Sequence[Buffer]) -> dict[str, Any]:
    """Writes and syncs a new file; returns its size and SHA-256. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for piece in pieces:
            size += len(piece)
            digest.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]  # one call may write less than it was given
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": digest.hexdigest()}


def sync_folder(path: Path) -> None:
    """Makes the folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Puts a file in place as a whole: at any instant the path holds the old or the new content."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        write(temporary, [data])
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    """The command line: verify RUN_DIR."""
    parser = Parser(prog="python -m core.checkpoint", description="Check a run's checkpoints.")
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
