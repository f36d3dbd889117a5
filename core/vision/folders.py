"""Which images a folder holds: class folders, images below a folder, the inputs of an infer program.

Layout as in torchvision's ImageFolder: ROOT/CLASS/**/image.jpg, or ROOT/train/CLASS/** with val and test beside it.
Hidden names never count, links are followed, and what is left out is counted. No torch.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_HIDDEN_NAMES = ("__macosx", "thumbs.db", "desktop.ini")
_HIDDEN = "hidden"


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    paths: in the order of names. labels: int64 [N], rows of `classes`; all 0 where there are no classes. notes: what a
    user should know, such as what was left out, a line each.
    """

    paths: Sequence[Path]
    labels: NDArray[np.int64]
    classes: Sequence[str] = ()
    notes: Sequence[str] = ()


def find_splits(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders for train, val and test in ROOT, and notes; ROOT itself as train where it is not divided.

    Train/, valid/, validation/ and the like are taken too. A folder called train that has neither folders in it nor
    val or test beside it, but other folders, is a class. Raises UserError for two folders of one split, and where val
    or test are alone.
    """
    found: dict[str, Path] = {}
    others: list[str] = []
    for folder in visible_folders(root):
        split = next((split for split, names in SPLIT_NAMES.items() if folder.name.lower() in names), None)
        if split is None:
            others.append(folder.name)
        elif split in found:
            where = f"{found[split].name} and {folder.name} in {root}"
            raise UserError(f"two folders for {split}", where, "keep one")
        else:
            found[split] = folder
    if "train" not in found:
        if found and not others:
            raise UserError("no training images", f"{root} has only {', '.join(found)}", "add a folder train")
        return {"train": root}, []
    if others and len(found) == 1 and not visible_folders(found["train"]):
        return {"train": root}, []
    notes = [f"{root}: not used: {', '.join(others)}"] if others else []
    return {split: found[split] for split in SPLIT_NAMES if split in found}, notes


def list_classes(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """The images in and below ROOT/CLASS; `classes` gives the training data's classes for another split.

    Raises UserError for fewer than two classes, a class without images, and a class that the training data lacks.
    """
    todo = "give a folder with one folder of images per class"
    folders = {folder.name: folder for folder in visible_folders(root)}
    if len(folders) < 2 and classes is None:
        raise UserError("fewer than two class folders", root, todo)
    names = list(classes) if classes is not None else sorted(folders)
    unknown = sorted(set(folders) - set(names))
    if unknown:
        raise UserError("a class that the training data lacks", root / unknown[0], f"known are {', '.join(names)}")
    left_out = _left_out_beside(root)
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        own: Counter[str] = Counter()
        inside = sorted(_walk(folders[name], own)) if name in folders else []
        if not inside and classes is None:
            what = f"{folders[name]}{_in_words(own)}"
            raise UserError("a class without images", what, "add images, or remove the folder")
        paths += inside
        labels += [label] * len(inside)
        left_out += own
    if not paths:
        raise UserError("no images", root, todo)
    notes = _notes(root, left_out)
    missing = [name for label, name in enumerate(names) if label not in set(labels)]
    if missing:
        notes.append(f"{root}: no images of {', '.join(missing)}")
    if classes is None:
        notes += [f"{root}: {one} and {other} are probably the same class" for one, other in _alike(names)]
    return Listing(paths, np.asarray(labels, dtype=np.int64), names, notes)


def list_images(root: Path) -> Listing:
    """The images in and below a folder, without classes. Raises UserError where there are none."""
    left_out: Counter[str] = Counter()
    paths = sorted(_walk(root, left_out))
    if not paths:
        known = ", ".join(sorted(SUFFIXES))
        raise UserError("no images", f"{root}{_in_words(left_out)}", f"known file name endings are {known}")
    return Listing(paths, np.zeros(len(paths), dtype=np.int64), (), _notes(root, left_out))


def input_images(inputs: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """What an infer program is given: images in the order given, folders replaced by what is in and below them.

    Returns pairs (path, name below its folder), and notes on what was left out. Raises UserError for what is not
    there, and for a folder without images.
    """
    pairs: list[tuple[Path, Path]] = []
    notes: list[str] = []
    for given in inputs:
        if given.is_dir():
            listing = list_images(given)
            pairs += [(path, path.relative_to(given)) for path in listing.paths]
            notes += listing.notes
        elif given.exists():
            pairs.append((given, Path(given.name)))
        else:
            raise UserError("no such file", given, "give an image or a folder of images")
    return pairs, notes


def visible_folders(root: Path) -> list[Path]:
    """The folders in a folder, links to folders too, without hidden ones, in the order of names."""
    if not root.is_dir():
        return []
    return [entry for entry in _entries(root) if not is_hidden(entry.name) and entry.is_dir()]


def is_hidden(name: str) -> bool:
    """Whether a name is one that systems and programs make for themselves: .git, ._x.jpg, __MACOSX …"""
    return name.startswith(".") or name.lower() in _HIDDEN_NAMES


def _walk(root: Path, left_out: Counter[str]) -> Iterator[Path]:
    """The images in and below a folder, in no order; other files are counted. Each real folder is visited once."""
    visited: set[Path] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        real = folder.resolve()
        if real in visited:  # a link to a folder above it, or a second link to the same
            left_out["folders linked again"] += 1
            continue
        visited.add(real)
        for entry in _entries(folder):
            if is_hidden(entry.name):
                left_out[_HIDDEN] += 1
            elif entry.is_dir():
                folders.append(entry)
            elif entry.suffix.lower() in SUFFIXES:
                yield entry  # also what cannot be opened: decoding it names it
            else:
                left_out[entry.suffix.lower() or "without ending"] += 1


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in the order of names. Raises UserError where it may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise UserError("not a readable folder", f"{folder} ({reason})", "make it readable, or remove it") from error


def _left_out_beside(root: Path) -> Counter[str]:
    """What lies in a folder of class folders and is not one."""
    left_out: Counter[str] = Counter()
    for entry in _entries(root) if root.is_dir() else ():
        if is_hidden(entry.name):
            left_out[_HIDDEN] += 1
        elif not entry.is_dir():
            left_out["beside the class folders"] += 1
    return left_out


def _notes(root: Path, left_out: Mapping[str, int]) -> list[str]:
    """A line on what was left out; none for nothing."""
    words = _in_words(left_out)
    return [f"{root}{words}"] if words else []


def _in_words(left_out: Mapping[str, int]) -> str:
    """The counts as an addition to a path: ": left out: 2 .heic, 1 hidden"; empty for none."""
    counted = ", ".join(f"{num:,} {kind}" for kind, num in sorted(left_out.items()) if num)
    return f": left out: {counted}" if counted else ""


def _alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in case, spaces or Unicode form."""
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if plain in seen:
            pairs.append((seen[plain], name))
        seen.setdefault(plain, name)
    return pairs
