"""Which annotations of a Pascal VOC folder are for training, validation and test: the lists in ImageSets/Main."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from core.errors import UserError
from core.vision.folders import SUFFIXES
from projects.detection.annotations import Annotations
from projects.detection.image_files import read_regular

_MAX_LIST_BYTES = 64 << 20
_SPLITS = ("train", "val", "test")
_ENDINGS = (*SUFFIXES, ".xml")


def read_splits(root: Path, files: Mapping[str, Path], annotations: Annotations) -> dict[str, list[str]]:
    """The annotations of each split, as keys of `files`; everything as the split "all" where there is no list.

    trainval without train is trained on, without what val lists. Without either, what val and test do not list is
    trained on. Raises UserError where nothing is left for training.
    """
    folder = root / "ImageSets" / "Main"
    paths = {name: folder / f"{name}.txt" for name in (*_SPLITS, "trainval")}
    lists = {name: _read_list(path, files, annotations) for name, path in paths.items() if path.exists()}
    if not lists:
        return {"all": sorted(files)}
    both = lists.pop("trainval", None)
    if "train" not in lists:
        if both is None:
            listed = {stem for split in lists.values() for stem in split}
            source = f"what {' and '.join(f'{name}.txt' for name in lists)} does not list"
        else:
            listed, source = set(lists.get("val", [])), "trainval.txt"
        lists["train"] = [stem for stem in (sorted(files) if both is None else both) if stem not in listed]
        annotations.notes.append(f"there is no train.txt; trained on: {source}")
    elif both is not None and "val" not in lists:
        train = set(lists["train"])
        lists["val"] = [stem for stem in both if stem not in train]
    result = _without_repeats({name: lists[name] for name in _SPLITS if name in lists}, folder, annotations)
    if not result["train"]:
        raise UserError("no images to train on", folder, "list some in train.txt")
    unlisted = len(files) - sum(len(split) for split in result.values())
    if unlisted > 0:
        annotations.notes.append(f"{unlisted:,} annotations are in no list and are not used")
    return result


def _without_repeats(
    lists: Mapping[str, Iterable[str]], folder: Path, annotations: Annotations
) -> dict[str, list[str]]:
    """The lists without names that an earlier one has, or that stand twice; each of these is a fault."""
    result: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for name, stems in lists.items():
        result[name] = []
        for stem in stems:
            if stem in seen:
                annotations.add_fault(folder / f"{name}.txt", stem, f"it stands in {seen[stem]} already")
            else:
                seen[stem] = f"{name}.txt"
                result[name].append(stem)
    return result


def _read_list(path: Path, files: Mapping[str, Path], annotations: Annotations) -> list[str]:
    """The annotations that a list names, a line each. Raises UserError for a file that is no text."""
    try:
        text = read_regular(path, _MAX_LIST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError("not a readable list of images", f"{path} ({error})", "write one name a line") from error
    by_name: dict[str, list[str]] = {}
    for stem in files:
        by_name.setdefault(Path(stem).name, []).append(stem)
    stems = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            found = _find(line.strip(), files, by_name)
            if found is None:
                what = f"the annotation file is missing: {line.strip()[:200]}"
                annotations.add_fault(path, f"line {number}", what)
            else:
                stems.append(found)
    return stems


def _find(line: str, files: Mapping[str, Path], by_name: Mapping[str, list[str]]) -> str | None:
    """The annotation that a line means: a name, with or without an ending, maybe with VOC's -1, 0 or 1 behind it."""
    words = line.split()
    candidates = [line, *([" ".join(words[:-1])] if len(words) > 1 and words[-1] in ("-1", "0", "1") else [])]
    for text in candidates:
        bare = text[: -len(Path(text).suffix)] if Path(text).suffix.lower() in _ENDINGS else text
        for name in (text, bare):
            if name in files:
                return name
            if len(by_name.get(name, [])) == 1:
                return by_name[name][0]
    return None
