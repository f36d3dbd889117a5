"""A user's files are split by the seed or taken as they are; what is wrong with them, or doubtful, is said by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from projects.sentiment.config import Config
from projects.sentiment.datasets import Dataset, load_dataset
from tests.projects.sentiment.conftest import WriteTable


def load(data: Path, **settings: object) -> Dataset:
    return load_dataset(Config(**{"data": str(data), "val_fraction": 0.2, "seed": 3, **settings}))  # type: ignore[arg-type]


def sizes(dataset: Dataset) -> dict[str, int]:
    return {name: len(rows) for name, rows in dataset.splits.items()}


def said(dataset: Dataset, words: str) -> bool:
    return any(words in note for note in dataset.notes)


def test_one_file_is_split_by_the_seed_and_nothing_is_lost(write_table: WriteTable) -> None:
    path = write_table("reviews.csv", 100)
    data = load(path, test_fraction=0.3)
    assert sizes(data) == {"train": 56, "val": 14, "test": 30}
    assert len({row.text for rows in data.splits.values() for row in rows}) == 100
    assert data.classes == ["bad", "good"]
    assert load(path, test_fraction=0.3).splits == data.splits
    other = load(path, test_fraction=0.3, seed=4)
    assert other.splits["test"] != data.splits["test"]
    assert other.sha256 == data.sha256  # of the data, however it is split


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_folder_of_train_dev_and_test_is_taken_as_it_is(suffix: str, write_table: WriteTable) -> None:
    for number, name in enumerate(("train", "dev", "test")):
        path = write_table(f"d/{name}{suffix}", 20 - number, seed=number)
    assert sizes(load(path.parent)) == {"train": 20, "val": 19, "test": 18}


def test_without_a_test_file_dev_is_the_test_and_that_is_said(write_table: WriteTable) -> None:
    write_table("d/train.tsv", 20)
    data = load(write_table("d/dev.tsv", 10, header=("content", "label"), seed=1).parent)
    assert sizes(data) == {"train": 16, "val": 4, "test": 10}
    assert said(data, "dev.tsv is the test")
    assert said(data, "texts in column text")
    assert said(data, "texts in column content")


def test_a_test_file_without_labels_is_left_out_and_that_is_said(write_table: WriteTable) -> None:
    write_table("d/train.csv", 20)
    write_table("d/dev.csv", 10, seed=1)
    data = load(write_table("d/test.csv", 10, header=("text", "index"), seed=2).parent)
    assert sizes(data) == {"train": 16, "val": 4, "test": 10}
    assert said(data, "test.csv has no labels")


def test_folders_of_text_files_are_read(tmp_path: Path) -> None:
    for part, num in (("Train", 6), ("test", 2)):
        for label in ("neg", "pos"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(num):
                (tmp_path / part / label / f"{number}.txt").write_text(f"{part} text {number} is {label}")
    data = load(tmp_path)
    assert sizes(data) == {"train": 10, "val": 2, "test": 4}
    assert data.classes == ["neg", "pos"]
    assert sizes(load(tmp_path / "Train", test_fraction=0.25))["test"] == 3


BAD = [
    (b",good\n", "empty text"),
    (b"fine\n", "1 columns instead of 2"),
    (b"fine,\xff\n", "label that is not UTF-8"),
    (b"fine,goood\n", "a label that no other row has (goood)"),
    (b"fi\0ne,good\n", "a NUL character in the text"),
]


@pytest.mark.parametrize(("extra", "what"), BAD, ids=[what for _, what in BAD])
def test_a_bad_row_stops_with_its_line_or_is_left_out_and_listed(
    extra: bytes, what: str, write_table: WriteTable
) -> None:
    path = write_table("reviews.csv", 40, extra=extra)
    with pytest.raises(UserError) as caught:
        load(path)
    assert f"{what}: {path} line 42; repair it" in str(caught.value)
    data = load(path, on_fault="skip")
    assert [fault.what for fault in data.faults] == [what]
    assert sum(sizes(data).values()) == 40


def test_the_number_of_bad_rows_is_said(write_table: WriteTable) -> None:
    with pytest.raises(UserError, match=r"line 42 \(2 more bad rows\)"):
        load(write_table("reviews.csv", 40, extra=b",good\n,bad\nfine\n"))


def test_a_label_that_train_lacks_is_named(write_table: WriteTable) -> None:
    write_table("d/train.csv", 20)
    path = write_table("d/test.csv", 10, extra=b"fine,great\n")
    with pytest.raises(UserError, match=r"lacks \(great\): .*test\.csv line 12"):
        load(path.parent)


def test_test_texts_that_are_training_texts_too_are_counted(write_table: WriteTable) -> None:
    train = write_table("d/train.csv", 40)
    shouted = train.read_text().splitlines()[1:13]
    write_table(
        "d/test.csv",
        20,
        seed=1,
        extra="".join(f"{line.upper().replace('GOOD', 'good').replace('BAD', 'bad')}\n" for line in shouted).encode(),
    )
    data = load(train.parent)
    assert said(data, "12 of the 32 test texts are training texts too")


def test_labels_that_are_probably_the_same_and_splits_without_a_label_are_named(write_table: WriteTable) -> None:
    rare = b"one,Good\ntwo,Good\nthree,rare\nfour,rare\n"
    data = load(write_table("reviews.csv", 100, extra=rare))
    assert said(data, "probably the same: Good, good")
    assert {str(row.label) for row in data.splits["train"]} == {"bad", "good", "Good", "rare"}
    assert said(data, "no val text has the label")


def test_a_label_whose_texts_are_all_left_out_is_named(write_table: WriteTable) -> None:
    lines = ["a long text is good or not number 7,good\n", "good or not,rare\n", "Good  or not,rare\n"]
    path = write_table("reviews.csv", 20, extra="".join(lines).encode())
    refusals = []
    for seed in range(8):
        try:
            load(path, test_fraction=0.5, seed=seed)
        except UserError as error:
            refusals.append(str(error))
    assert 0 < len(refusals) < 8
    assert {text.partition(";")[0] for text in refusals} == {"labels without training texts after the split: rare"}


ROWS: dict[str, tuple[Callable[[], str], str]] = {
    "one.csv": (lambda: "text,label\na b,x\nc d,x\n", "fewer than two labels"),
    "none.csv": (lambda: "text,label\n", "fewer than two labels"),
    "bare.csv": (lambda: "text,date\na,1\n", "--label-column"),
    "many.csv": (lambda: "text,label\n" + "".join(f"text {n},{n // 2}\n" for n in range(300)), "too many labels"),
    "same.csv": (lambda: "text,label\n" + "a b,x\nA  b,y\n" * 3, "too few different texts"),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_be_learned_from_is_refused(name: str, tmp_path: Path) -> None:
    content, named = ROWS[name]
    (tmp_path / name).write_text(content())
    with pytest.raises(UserError, match=named) as caught:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than two labels"):
        load(tmp_path)
