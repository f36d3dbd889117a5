"""Held-out texts share nothing with kept ones, whatever case and spacing: no copy, no fragment; no label is lost."""

from collections.abc import Callable

import pytest

from projects.sentiment.splitting import count_copies, hold_out


def test_no_held_out_text_is_a_fragment_of_a_kept_one_nor_the_other_way_round() -> None:
    whole = [f"word{n} is a very fine film number{n}" for n in range(50)]
    fragments = [" ".join(text.split()[:k]) for text in whole for k in (1, 3)]
    common = ["a very fine film", "fine"]
    texts = [*fragments, *common, *whole, whole[7]]
    labels = ["good"] * len(texts)
    kept, held = hold_out(texts, labels, 0.2, seed=0, purpose="val")
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
    assert hold_out(texts, labels, 0.2, seed=0, purpose="val") == (kept, held)
    assert hold_out(texts, labels, 0.2, seed=1, purpose="val") != (kept, held)


@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace(" ", "  "), lambda text: f"{text}<br />"])
def test_copies_that_differ_in_case_or_spacing_stay_on_one_side(change: Callable[[str], str]) -> None:
    texts = [f"film number {n} isn't dull" for n in range(40)]
    texts += [change(text) for text in texts]
    kept, held = hold_out(texts, ["x"] * len(texts), 0.3, seed=0, purpose="test")
    assert len(held) == 12
    assert not {i % 40 for i in kept} & {i % 40 for i in held}
    assert count_copies([texts[i] for i in held], [texts[i] for i in kept]) == 0
    assert count_copies(texts[40:], texts[:40]) == 40


@pytest.mark.parametrize("seed", range(8))
def test_a_label_of_few_texts_keeps_some_to_train_on(seed: int) -> None:
    texts, labels = [f"text {n}" for n in range(40)], ["rare"] * 2 + ["one"] + ["common"] * 37
    kept, held = hold_out(texts, labels, 0.5, seed, "val")
    assert {labels[i] for i in kept} == {"rare", "one", "common"}
    assert 18 <= len(held) <= 20
    assert sorted([*kept, *held]) == list(range(40))
