"""Where texts come from: a published corpus, generated reviews, or the user's own files; and whether they will do."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UserError
from projects.sentiment.config import TABLES, Config
from projects.sentiment.corpora import read_imdb, read_sst2
from projects.sentiment.reading import Columns, Fault, Row, find_splits, read_classes, read_table
from projects.sentiment.synthetic import write_reviews

MAX_CLASSES = 100


@dataclass
class Corpus:
    """Rows as they were read; None where a part is to be cut off, or there is none."""

    train: list[Row]
    val: list[Row] | None = None
    test: list[Row] | None = None
    cut_test: bool = False
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_corpus(config: Config) -> Corpus:
    """The rows of the data that the settings name."""
    if config.data == "synthetic":
        num_test = max(50, config.num_synthetic // 6)
        texts, labels = write_reviews(config.num_synthetic + num_test, config.seed)
        rows = [
            Row(text, ("negative", "positive")[y], f"review {n}")
            for n, (text, y) in enumerate(zip(texts, labels, strict=True))
        ]
        return Corpus(rows[num_test:], test=rows[:num_test])
    if config.data == "imdb":
        parts = read_imdb()
        return Corpus(parts["train"], test=parts["test"])
    if config.data == "sst2":
        parts = read_sst2()
        return Corpus(parts["train"], test=parts["dev"], notes=["dev is looked at once, at the end"])
    return read_own(Path(config.data), config)


def read_own(path: Path, config: Config) -> Corpus:
    """The rows of the user's own file or folder."""
    corpus = Corpus([])
    sources = {"train": path} if path.is_file() else find_splits(path, TABLES)
    if not sources:
        sources = {"train": path}
    wanted = Columns(config.text_column, config.label_column)
    parts: dict[str, list[Row]] = {}
    for purpose, source in sources.items():
        if source.is_dir():
            parts[purpose] = read_classes(source, corpus.faults)
            continue
        rows, columns = read_table(source, wanted, corpus.faults)
        guessed = "given" if config.text_column and config.label_column else "guessed from the header"
        corpus.notes.append(f"{source}: texts in column {columns.text}, labels in column {columns.label} ({guessed})")
        if columns.label is not None:
            parts[purpose] = rows
        elif purpose == "test":
            corpus.notes.append(f"{source} has no labels and is left out")
        else:
            raise UserError("no column is known to hold labels", source, "name one with --label-column")
    corpus.train, corpus.val, corpus.test = parts["train"], parts.get("dev"), parts.get("test")
    if corpus.test is None and corpus.val is not None:
        corpus.val, corpus.test = None, corpus.val
        corpus.notes.append(
            f"{sources['dev']} is looked at once, at the end; validation is cut off from {sources['train']}"
        )
    corpus.cut_test = len(sources) == 1
    return corpus


def check_labels(corpus: Corpus, config: Config) -> list[str]:
    """The labels of the training rows, sorted. Raises UserError for labels that cannot be, and for bad rows
    where these are not to be skipped."""
    counts = Counter(row.label for row in corpus.train)
    classes = sorted(label for label, count in counts.items() if label is not None and count > 1)
    if len(classes) < 2 and not corpus.faults:
        raise UserError("fewer than two labels", f"--data {config.data}: {', '.join(classes) or 'none'}", "add texts")
    if len(classes) > MAX_CLASSES:
        where = f"--data {config.data}: {len(classes):,}"
        raise UserError("too many labels", where, f"name the right column with --label-column; at most {MAX_CLASSES}")
    for part in ("train", "val", "test"):
        good = []
        for row in getattr(corpus, part) or []:
            if row.label in classes:
                good.append(row)
            else:
                what = "a label that no other row has" if part == "train" else "a label that the training data lacks"
                corpus.faults.append(Fault(f"{what} ({row.label})", row.where))
        if getattr(corpus, part) is not None:
            if not good and not corpus.faults:
                raise UserError("no texts", f"--data {config.data}, {part}", "add texts")
            setattr(corpus, part, good)
    if corpus.faults and config.on_bad_row == "stop":
        fault, rest = corpus.faults[0], len(corpus.faults) - 1
        more = f" ({rest:,} more bad rows)" if rest else ""
        raise UserError(fault.what, f"{fault.where}{more}", "repair it, or leave out such rows with --on-bad-row skip")
    if len(classes) < 2 or not corpus.train:
        raise UserError("no usable rows of two labels", f"--data {config.data}", "repair the file")
    corpus.notes.append("labels " + ", ".join(f"{name} {counts[name]:,}" for name in classes))
    return classes
