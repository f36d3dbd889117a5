"""Texts are split without leaks, served in batches of like length that every rank and every start agree on, and what
is wrong with files is said by name."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from core.distributed import World
from core.errors import UserError
from projects.sentiment.config import Config
from projects.sentiment.data import Data, LengthOrder, load_data, training_loader
from projects.sentiment.splitting import hold_out
from projects.sentiment.train import parse_arguments
from projects.sentiment.vocab import PAD
from tests.projects.sentiment.conftest import WriteTable

TINY = ["--min-count", "1", "--batch-size", "4", "--val-fraction", "0.2", "--seed", "3"]


def settings(data: Path, *more: str) -> Config:
    return parse_arguments(["--data", str(data), *TINY, *more]).config


def load(data: Path, *more: str) -> Data:
    return load_data(settings(data, *more))


def test_one_file_is_split_by_the_seed_and_nothing_is_lost(write_table: WriteTable) -> None:
    data = load(write_table("reviews.csv", 100), "--test-fraction", "0.3")
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (56, 14, 30)
    parts = [set(split.texts) for split in (data.train, data.val, data.test)]
    assert len(parts[0] | parts[1] | parts[2]) == 100
    assert list(data.classes) == ["bad", "good"]
    again = load(write_table("reviews.csv", 100), "--test-fraction", "0.3")
    assert again.digest() == data.digest()
    other = load(write_table("reviews.csv", 100), "--test-fraction", "0.3", "--seed", "4")
    assert set(other.test.texts if other.test else ()) != parts[2]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_folder_of_train_dev_and_test_is_taken_as_it_is(suffix: str, write_table: WriteTable) -> None:
    for number, name in enumerate(("train", "dev", "test")):
        path = write_table(f"d/{name}{suffix}", 20 - number, seed=number)
    data = load(path.parent)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (20, 19, 18)


def test_without_a_test_file_dev_is_the_test_and_that_is_said(write_table: WriteTable) -> None:
    write_table("d/train.tsv", 20)
    data = load(write_table("d/dev.tsv", 10, seed=1).parent)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 10)
    assert any("looked at once, at the end" in note for note in data.notes)


def test_columns_may_be_called_differently_in_each_file(write_table: WriteTable) -> None:
    write_table("d/train.tsv", 20, header=("sentence", "label"))
    data = load(write_table("d/dev.tsv", 10, header=("content", "label"), seed=1).parent)
    assert sum("texts in column sentence" in note for note in data.notes) == 1
    assert sum("texts in column content" in note for note in data.notes) == 1


def test_a_test_file_without_labels_is_left_out_and_that_is_said(write_table: WriteTable) -> None:
    write_table("d/train.csv", 20)
    write_table("d/dev.csv", 10, seed=1)
    data = load(write_table("d/test.csv", 10, header=("text", "index"), seed=2).parent)
    assert data.test is not None
    assert len(data.test) == 10
    assert any("test.csv has no labels" in note for note in data.notes)


def test_folders_of_text_files_are_read(tmp_path: Path) -> None:
    for part, num in (("train", 6), ("test", 2)):
        for label in ("neg", "pos"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(num):
                (tmp_path / part / label / f"{number}.txt").write_text(f"{part} text {number} is {label}")
    data = load(tmp_path)
    assert data.test is not None
    assert (len(data.train) + len(data.val), len(data.test)) == (12, 4)
    assert list(data.classes) == ["neg", "pos"]
    single = load(tmp_path / "train", "--test-fraction", "0.25")
    assert single.test is not None
    assert len(single.test) == 3


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
    data = load(path, "--on-bad-row", "skip")
    assert [fault.what for fault in data.faults] == [what]
    assert len(data.train) + len(data.val) + (len(data.test) if data.test else 0) == 40


def test_the_number_of_bad_rows_is_said(write_table: WriteTable) -> None:
    with pytest.raises(UserError, match=r"line 42 \(2 more bad rows\)"):
        load(write_table("reviews.csv", 40, extra=b",good\n,bad\nfine\n"))


def test_a_label_that_train_lacks_is_named(write_table: WriteTable) -> None:
    write_table("d/train.csv", 20)
    path = write_table("d/test.csv", 10, extra=b"fine,great\n")
    with pytest.raises(UserError, match=r"lacks \(great\): .*test\.csv line 12"):
        load(path.parent)


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, write_table: WriteTable) -> None:
    (tmp_path / "one.csv").write_text("text,label\na b,x\nc d,x\n")
    (tmp_path / "none.csv").write_text("text,label\n")
    (tmp_path / "bare.csv").write_text("text,date\na,1\n")
    lines = "".join(f"text {n},{n // 2}\n" for n in range(300))
    (tmp_path / "many.csv").write_text("text,label\n" + lines)
    (tmp_path / "same.csv").write_text("text,label\n" + "a b,x\na b,y\n" * 3)
    (tmp_path / "empty").mkdir()
    for name, named in (
        ("one.csv", "fewer than two labels"),
        ("none.csv", "fewer than two labels"),
        ("bare.csv", "--label-column"),
        ("many.csv", "too many labels"),
        ("empty", "fewer than two labels"),
        ("same.csv", "too few different texts"),
    ):
        with pytest.raises(UserError, match=named) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_no_held_out_text_is_a_fragment_of_a_kept_one_nor_the_other_way_round() -> None:
    whole = [f"word{n} is a very fine film number{n}" for n in range(50)]
    fragments = [" ".join(text.split()[:k]) for text in whole for k in (1, 3)]
    common = ["a very fine film", "fine"]
    texts = [*fragments, *common, *whole, whole[7]]
    kept, held = hold_out(texts, 0.2, seed=0, purpose="val")
    assert len(held) == 10
    assert all(texts[i] in whole for i in held)
    inside = [f" {texts[i]} " for i in kept]
    for i in held:
        text = f" {texts[i]} "
        assert not any(text in other for other in inside)
        number = texts[i].split()[0].removeprefix("word")
        assert not any(f"word{number} " in other for other in inside)
    assert {texts.index(text) for text in common} <= set(kept)
    assert (len(texts) - 1 in kept) == (texts.index(whole[7]) in kept)  # a copy goes where its twin goes, or nowhere
    assert hold_out(texts, 0.2, seed=0, purpose="val") == (kept, held)
    assert hold_out(texts, 0.2, seed=1, purpose="val") != (kept, held)


def order(**changes: object) -> LengthOrder:
    lengths = torch.from_numpy(np.random.default_rng(0).geometric(0.1, 1_003))
    settings = {"num_samples": 1_003, "batch_size": 16, "seed": 5, "lengths": lengths, **changes}
    return LengthOrder(**settings)  # type: ignore[arg-type]


def test_an_epoch_has_every_text_at_most_once_in_batches_of_like_length() -> None:
    batches = list(order().indices(0))
    assert len(batches) == len(order()) == 62
    everything = torch.cat(batches)
    assert len(everything.unique()) == len(everything) == 62 * 16
    lengths = order().lengths
    padded = sum(16 * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.25 * int(lengths[everything].sum())
    assert not all(int(lengths[a].max()) <= int(lengths[b].max()) for a, b in pairwise(batches))


def test_every_epoch_has_another_order_and_any_batch_can_be_the_first() -> None:
    first, second = ([batch.tolist() for batch in order().indices(epoch)] for epoch in (0, 1))
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))
    for start in (0, 1, 40, 61, 62):
        assert [batch.tolist() for batch in order().indices(0, start)] == first[start:]


def test_ranks_share_every_batch() -> None:
    whole = [batch.tolist() for batch in order().indices(2)]
    shares = [list(order(world=World(rank, rank, 2)).indices(2)) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        assert sorted(torch.cat([share[number] for share in shares]).tolist()) == sorted(batch)


def test_evaluation_takes_every_text_once() -> None:
    batches = list(order(training=False).indices(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(1_003))


def test_batches_hold_the_tokens_of_their_texts_and_padding_after_them(write_table: WriteTable) -> None:
    path = write_table("reviews.csv", 60)
    data, config = load(path), settings(path)
    encoded = {tuple(tokens.tolist()) for tokens in data.vocabulary.encode(data.train.texts)}
    for ids, labels in training_loader(data, config, World()).batches(epoch=1):
        assert ids.dtype == labels.dtype == torch.int64
        assert len(ids) == len(labels) == 4
        for row in ids:
            length = int((row != PAD).sum())
            assert (row[length:] == PAD).all()
            assert tuple(row[:length].tolist()) in encoded
        assert bool((ids[:, -1] != PAD).any())


def test_the_tokenizer_knows_only_words_of_the_training_texts(write_table: WriteTable) -> None:
    write_table("d/train.csv", 20)
    data = load(write_table("d/test.csv", 5, extra=b"zyzzyva zyzzyva,good\n", seed=1).parent)
    assert "zyzzyva" not in data.vocabulary.tokenizer.get_vocab()
