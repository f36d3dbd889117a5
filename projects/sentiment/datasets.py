"""Texts from a published dataset, the generator or the user's own files, checked and split into train, val, test."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UserError
from projects.sentiment.archives import read_imdb, read_sst2
from projects.sentiment.config import TABLES, Config
from projects.sentiment.splitting import count_copies, hold_out
from projects.sentiment.synthetic import write_reviews
from projects.sentiment.tables import Columns, Fault, Row, read_table, similar_labels
from projects.sentiment.text_folders import find_splits, read_classes

_MAX_CLASSES = 100


@dataclass
class Dataset:
    """The rows of each split, by train, val and test; a split that is missing has no entry.

    cut_test: whether a test split is to be cut off from train. notes: what a user should know. faults: rows left out.
    sha256: of all rows before a split was cut off.
    """

    splits: dict[str, list[Row]]
    cut_test: bool = False
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    sha256: str = ""


def load_dataset(config: Config) -> Dataset:
    """The data that the settings name, with all splits. Raises UserError, naming file, line and reason."""
    dataset = _read(config)
    _check_rows(dataset, config)
    dataset.sha256 = _sha256_of(dataset)
    splits = dataset.splits
    for name in ("val", "test"):
        if name in splits and (num := count_copies(_texts(splits[name]), _texts(splits["train"]))):
            part = f"{num:,} of the {len(splits[name]):,} {name} texts are training texts too, but for case and spacing"
            dataset.notes.append(f"{part}; results on them say nothing about new texts")
    for name, fraction in (("test", config.test_fraction), ("val", config.val_fraction)):
        if name not in splits and (name == "val" or dataset.cut_test):
            _cut_off(dataset, name, fraction, config)
    for name, rows in splits.items():
        missing = sorted(set(dataset.classes) - {str(row.label) for row in rows})
        if missing and name == "train":
            todo = "add different texts of them, or another --seed"
            raise UserError("labels without training texts after the split", ", ".join(missing), todo)
        if missing:
            dataset.notes.append(f"no {name} text has the label {', '.join(missing)}; the results are of the others")
    return dataset


def _cut_off(dataset: Dataset, name: str, fraction: float, config: Config) -> None:
    """Moves a share of the training texts to a new split. Raises UserError where there are too few."""
    rows = dataset.splits["train"]
    kept, held = hold_out(_texts(rows), [row.label for row in rows], fraction, config.seed, name)
    if not held:
        where = f"--data {config.data}: {len(rows):,} for training"
        raise UserError("too few different texts to hold some out", where, "add texts")
    if num := len(rows) - len(kept) - len(held):
        note = f"{num:,} texts are fragments or copies of texts held out for {name} and are left out"
        dataset.notes.append(note)
    dataset.splits[name] = [rows[i] for i in held]
    dataset.splits["train"] = [rows[i] for i in kept]


def _read(config: Config) -> Dataset:
    """The rows of the data that the settings name."""
    if config.data == "synthetic":
        num_test = max(50, config.num_synthetic // 6)
        pairs = zip(*write_reviews(config.num_synthetic + num_test, config.seed), strict=True)
        rows = [Row(text, ("negative", "positive")[y], f"review {n}") for n, (text, y) in enumerate(pairs)]
        return Dataset({"train": rows[num_test:], "test": rows[:num_test]})
    if config.data == "imdb":
        return Dataset(read_imdb())
    if config.data == "sst2":
        rows_of = read_sst2()
        note = "SST-2's dev sentences are the test: they are evaluated once, at the end"
        return Dataset({"train": rows_of["train"], "test": rows_of["dev"]}, notes=[note])
    return _read_own(Path(config.data), config)


def _read_own(path: Path, config: Config) -> Dataset:
    """The rows of the user's own file or folder."""
    sources = {"train": path} if not path.is_dir() else find_splits(path, TABLES) or {"train": path}
    dataset = Dataset({}, cut_test=len(sources) == 1)
    wanted = Columns(config.text_column, config.label_column)
    for split, source in sources.items():
        if source.is_dir():
            dataset.splits[split] = read_classes(source, dataset.faults, dataset.notes)
            continue
        rows, columns = read_table(source, wanted, dataset.faults)
        chosen = "given" if config.text_column and config.label_column else "guessed from the header"
        dataset.notes.append(f"{source}: texts in column {columns.text}, labels in column {columns.label} ({chosen})")
        if columns.label is not None:
            dataset.splits[split] = rows
        elif split == "test":
            dataset.notes.append(f"{source} has no labels and is left out")
        else:
            raise UserError("no column is known to hold labels", source, "name one with --label-column")
    if dev := dataset.splits.pop("dev", None):
        name = "val" if "test" in dataset.splits else "test"
        dataset.splits[name] = dev
        if name == "test":
            note = f"{sources['dev']} is the test: it is evaluated once, at the end; validation texts are cut off from"
            dataset.notes.append(f"{note} {sources['train']}")
    return dataset


def _check_rows(dataset: Dataset, config: Config) -> None:
    """Sets the classes, which are the labels of at least two training rows, and leaves out the rows of other labels.

    Raises UserError for labels that cannot be, and for the first bad row where these are not to be skipped.
    """
    data, faults = f"--data {config.data}", dataset.faults
    counts = Counter(str(row.label) for row in dataset.splits["train"])
    dataset.classes = sorted(label for label, count in counts.items() if count > 1)
    if len(dataset.classes) < 2 and not faults:
        todo = "add texts; a folder has to hold CLASS/*.txt, CLASS.txt, or train.csv"
        raise UserError("fewer than two labels", f"{data}: {', '.join(dataset.classes) or 'none'}", todo)
    if len(dataset.classes) > _MAX_CLASSES:
        todo = f"name the right column with --label-column; at most {_MAX_CLASSES}"
        raise UserError("too many labels", f"{data}: {len(dataset.classes):,}", todo)
    for name, rows in dataset.splits.items():
        what = "a label that no other row has" if name == "train" else "a label that the training data lacks"
        faults += [Fault(f"{what} ({row.label})", row.where) for row in rows if row.label not in dataset.classes]
        dataset.splits[name] = [row for row in rows if row.label in dataset.classes]
        if not dataset.splits[name] and not faults:
            raise UserError("no texts", f"{data}, {name}", "add texts")
    if faults and config.on_fault == "stop":
        more = f" ({len(faults) - 1:,} more bad rows)" if len(faults) > 1 else ""
        todo = "repair it, or leave out such rows with --on-fault skip"
        raise UserError(faults[0].what, f"{faults[0].where}{more}", todo)
    if len(dataset.classes) < 2 or not all(dataset.splits.values()):
        raise UserError("no usable rows of two labels", data, "repair the file")
    dataset.notes.append("labels " + ", ".join(f"{name} {counts[name]:,}" for name in dataset.classes))
    for names in similar_labels(dataset.classes):
        dataset.notes.append(
            f"labels that are probably the same: {', '.join(names)}; they are learned as different ones"
        )


def _sha256_of(dataset: Dataset) -> str:
    """The hex SHA-256 of all texts and labels by split."""
    digest = hashlib.sha256()
    for name, rows in sorted(dataset.splits.items()):
        digest.update(name.encode())
        for row in rows:
            digest.update(f"\0{row.text}\0{row.label}".encode())
    return digest.hexdigest()


def _texts(rows: Iterable[Row]) -> list[str]:
    """The texts of rows."""
    return [row.text for row in rows]
