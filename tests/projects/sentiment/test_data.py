"""Texts are served in batches of like length that every rank and every start agree on; a tokenizer that knows little of
them is named."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from core.accelerator import Accelerator
from core.distributed import World
from core.errors import UserError
from projects.sentiment.config import Config
from projects.sentiment.data import LengthOrder, load_data, training_loader
from projects.sentiment.padding import few_lengths
from projects.sentiment.tokenizer import PAD
from tests.projects.sentiment.conftest import WriteTable

CPU = Accelerator(device="cpu", precision="fp32")


def settings(data: Path, **more: object) -> Config:
    tiny = {"min_count": 1, "batch_size": 4, "val_fraction": 0.2, "seed": 3}
    return Config(**{"data": str(data), **tiny, **more})  # type: ignore[arg-type]


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
    config = settings(path)
    data = load_data(config)
    encoded = {tuple(tokens.tolist()) for tokens in data.tokenizer.encode(data.train.texts)}
    for ids, labels in training_loader(data, config, CPU).batches(epoch=1):
        assert ids.dtype == labels.dtype == torch.int64
        assert len(ids) == len(labels) == 4
        for row in ids:
            length = int((row != PAD).sum())
            assert (row[length:] == PAD).all()
            assert tuple(row[:length].tolist()) in encoded
        assert bool((ids[:, -1] != PAD).any())


@pytest.mark.parametrize("most", [1, 2, 3, 5, 9])
def test_the_lengths_to_pad_to_add_the_fewest_words(most: int) -> None:
    longest = torch.tensor([3, 3, 3, 4, 7, 7, 8, 15, 16, 31])

    def padded(lengths: tuple[int, ...]) -> int:
        return sum(min(each for each in lengths if each >= batch) for batch in longest.tolist())

    chosen, different = few_lengths(longest, most), longest.unique().tolist()
    assert chosen == sorted(chosen)
    assert len(chosen) <= most
    others = [(*rest, 31) for rest in combinations(different[:-1], min(most, len(different)) - 1)]
    assert padded(tuple(chosen)) == min(map(padded, others))


def test_few_lengths_of_many_are_found_soon() -> None:
    longest = torch.arange(1, 10_001)
    chosen = few_lengths(longest, 4)
    assert chosen[-1] >= 10_000
    assert chosen == pytest.approx([2_500, 5_000, 7_500, 10_000], abs=40)


def test_batches_padded_to_few_lengths_hold_the_same_texts(write_table: WriteTable) -> None:
    path = write_table("reviews.csv", 120)
    own, few = (
        list(training_loader(load_data(config), config, CPU).batches(epoch=3))
        for config in (settings(path), settings(path, batch_lengths=2))
    )
    lengths = {ids.shape[1] for ids, _ in few}
    assert len({ids.shape[1] for ids, _ in own}) > len(lengths) == 2
    for (ids, labels), (padded, same) in zip(own, few, strict=True):
        assert padded.shape[1] == min(each for each in lengths if each >= ids.shape[1])
        assert torch.equal(torch.nn.functional.pad(ids, (0, padded.shape[1] - ids.shape[1]), value=PAD), padded)
        assert torch.equal(labels, same)


def test_the_tokenizer_is_trained_on_the_training_texts_alone_and_the_unknown_share_is_said(
    write_table: WriteTable,
) -> None:
    write_table("d/train.csv", 20)
    folder = write_table("d/test.csv", 5, extra=b"zyzzyva zyzzyva,good\n", seed=1).parent
    data = load_data(settings(folder))
    assert "zyzzyva" not in data.tokenizer.trained.get_vocab()
    note = next(note for note in data.notes if "unknown" in note)
    assert "0.0% of train" in note
    assert "0.0% of test" not in note


def write_lines(path: Path, template: str) -> Path:
    path.write_text("text,label\n" + "".join(f"{template.format(n)},{'xy'[n % 2]}\n" for n in range(40)))
    return path


def test_a_tokenizer_that_knows_nothing_is_refused_and_one_that_knows_little_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no word occurs 2 times"):
        load_data(settings(write_lines(tmp_path / "a.csv", "id{}"), min_count=2))
    data = load_data(settings(write_lines(tmp_path / "b.csv", "row id{0} x{0}y"), min_count=2))
    assert any("most words are unknown" in note for note in data.notes)


@pytest.mark.parametrize(("setting", "kind"), [("auto", "bpe"), ("bpe", "bpe"), ("word", "word")])
def test_chinese_texts_get_pieces_of_words_unless_words_are_asked_for(setting: str, kind: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "这部电影的第{}集非常好看。")
    data = load_data(settings(path, tokenizer=setting))
    assert any(f"tokenizer ({kind})" in note for note in data.notes)
