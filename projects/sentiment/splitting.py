"""Cutting texts in two without a leak: no text of one side is a fragment of a text of the other, or its copy.

That matters where a dataset has the phrases of its sentences, as SST-2 does: a random split would put phrases of one
sentence on both sides, and a model would be tested on what it was trained on. Texts are compared in the form in which
the tokenizer sees them, so that case and spacing make no difference.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from core.seeds import sample_generator
from projects.sentiment.tokenizer import comparable_forms


def hold_out(
    texts: Sequence[str], labels: Sequence[str | None], fraction: float, seed: int, purpose: str
) -> tuple[list[int], list[int]]:
    """Numbers of the texts to keep, and of those to hold out, which are a share of the whole texts.

    A whole text is one that is no fragment of another. A fragment is kept where a kept whole text contains it and is on
    neither side otherwise. Of a label that no kept text would have, half of the held-out texts are kept.
    """
    forms = comparable_forms(texts)
    containers = _candidates(forms)
    whole = _whole_texts(forms, containers)
    order = sample_generator(seed, 0, 0, f"hold out {purpose}").permutation(len(whole))
    num_held = min(len(whole) - 1, max(1, round(fraction * len(whole))))
    held = {whole[i] for i in order[:num_held]}
    kept_labels = {labels[i] for i in whole if i not in held}
    for label in sorted({str(labels[i]) for i in held if labels[i] not in kept_labels}):
        of_label = [i for i in sorted(held) if labels[i] == label]
        held -= set(of_label[: (len(of_label) + 1) // 2])
    kept_whole = set(whole) - held
    kept = [
        i
        for i in range(len(texts))
        if i not in held and (i in kept_whole or any(j in kept_whole and forms[i] in forms[j] for j in containers[i]))
    ]
    return kept, sorted(held)


def count_copies(texts: Sequence[str], others: Sequence[str]) -> int:
    """How many of the texts are among the others too, in the form in which the tokenizer sees them."""
    known = set(comparable_forms(others))
    return sum(form in known for form in comparable_forms(texts))


def _whole_texts(forms: Sequence[str], containers: Sequence[Sequence[int]]) -> list[int]:
    """Numbers of the texts that are no fragment of another; of equal ones the first."""
    whole: list[int] = []
    first_of: dict[str, int] = {}
    for number in sorted(range(len(forms)), key=lambda i: (-len(forms[i]), i)):
        form = forms[number]
        if first_of.setdefault(form, number) == number and not any(
            len(forms[i]) > len(form) and form in forms[i] for i in containers[number]
        ):
            whole.append(number)
    return sorted(whole)


def _candidates(forms: Sequence[str]) -> list[Sequence[int]]:
    """For each text the texts that have its rarest word, among which are all that contain it."""
    counts = Counter(word for form in forms for word in set(form.split()))
    rarest = [min(form.split(), key=lambda word: (counts[word], word), default="") for form in forms]
    wanted, with_word = set(rarest), defaultdict(list)
    for number, form in enumerate(forms):
        for word in wanted.intersection(form.split()):
            with_word[word].append(number)
    return [with_word[word] for word in rarest]
