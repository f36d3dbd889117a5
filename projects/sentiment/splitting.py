"""Cutting texts in two without a leak: no text of one side is a fragment of a text of the other, or its copy.

That matters where a corpus has the phrases of its sentences, as SST-2 does: at random, phrases of a sentence would lie
on both sides, and a model would be asked for what it has seen.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from core import randomness


def hold_out(texts: Sequence[str], fraction: float, seed: int, purpose: str) -> tuple[list[int], list[int]]:
    """Numbers of the texts to keep, and of those to hold out: a share of the whole texts, those that are no
    fragment of another. A fragment is kept where a whole text that is kept contains it, and in neither elsewhere."""
    spaced = [f" {' '.join(text.split())} " for text in texts]
    containers = candidates(spaced)
    whole: list[int] = []
    taken: dict[str, int] = {}
    for number in sorted(range(len(texts)), key=lambda i: (-len(spaced[i]), i)):
        first = taken.setdefault(spaced[number], number)
        if first == number and not any(
            len(spaced[i]) > len(spaced[number]) and spaced[number] in spaced[i] for i in containers[number]
        ):
            whole.append(number)
    whole.sort()
    order = randomness.sample_generator(seed, 0, 0, f"hold out {purpose}").permutation(len(whole))
    num_held = min(len(whole) - 1, max(1, round(fraction * len(whole))))
    held = {whole[i] for i in order[:num_held]}
    kept_whole = set(whole) - held
    kept = [
        i
        for i in range(len(texts))
        if i not in held and (i in kept_whole or any(j in kept_whole and spaced[i] in spaced[j] for j in containers[i]))
    ]
    return kept, sorted(held)


def candidates(spaced: Sequence[str]) -> list[Sequence[int]]:
    """For each text the texts that have its rarest word, among which are all that contain it."""
    counts = Counter(word for text in spaced for word in set(text.split()))
    rarest = [min(text.split(), key=lambda word: (counts[word], word), default="") for text in spaced]
    wanted, found = set(rarest), defaultdict(list)
    for number, text in enumerate(spaced):
        for word in wanted.intersection(text.split()):
            found[word].append(number)
    return [found[word] for word in rarest]
