"""Generated reviews: opinions under negation, in contrasts and with intensifiers, among sentences that say nothing.

No word tells much of the label. Praise is nearly as frequent in bad reviews as in good ones, because it often stands
under a negation, or in the half of a contrast that does not count ("although the cast is superb, the plot is dull").
What is negated, and which half is the main clause, decides, and so the order of words does. Each review is a function
of the seed and its number.
"""

import numpy as np
from numpy.typing import NDArray

from core.seeds import sample_generator

_ADJECTIVES = (
    ("dull", "clumsy", "tedious", "awful", "shallow", "lifeless", "forgettable", "messy", "dreary", "bland"),
    ("superb", "gripping", "charming", "brilliant", "moving", "clever", "delightful", "witty", "inspired", "fresh"),
)
_ASPECTS = (
    "the plot",
    "the acting",
    "the cast",
    "the script",
    "the music",
    "the camera work",
    "the ending",
    "the pace",
)
_SHARE_TURNED = 0.4  # of adjectives that stand under a negation
_DEGREES = ("", "", "very", "really", "truly", "quite", "rather", "so")
# {a}: an aspect, {d}: a degree, {j}: an adjective. The second list turns the adjective round.
_PLAIN = (
    "{a} is {d} {j}",
    "{a} is {d} {j} from start to finish",
    "{a} seems {d} {j}",
    "i found {a} {d} {j}",
    "{a} is nothing if not {j}",
    "{a} is never anything other than {j}",
)
_NEGATED = (
    "{a} is not {d} {j}",
    "{a} isn't what i would call {d} {j}",
    "i would not say that {a} is {d} {j}",
    "{a} is anything but {j}",
    "{a} is far from {j}",
    "{a} is hardly {j} at all",
    "nobody could call {a} {d} {j}",
    "{a} never gets {d} {j}",
)
# {m}: the clause that counts, {o}: one of the other polarity, {s}: one of the same.
_FRAMES = (
    "{m}.",
    "although {o}, {m}.",
    "{m}, although {o}.",
    "{o}, but {m}.",
    "it may be that {o}; still, {m}.",
    "{m}, even if {o}.",
    "i had been told that {o}, yet {m}.",
    "not only do i think that {s}, but {m} as well.",
)
_NEUTRAL = (
    "i saw it with my brother on a {t}.",
    "it runs for {n} minutes.",
    "the story is set in {p}.",
    "it is the director's {o} film.",
    "we watched it at home on a {t}.",
    "there are {n} people in the credits.",
    "it was shot in {p} in {n} days.",
)
_FILLERS = {
    "{t}": ("monday", "tuesday", "friday", "sunday"),
    "{n}": ("ninety", "forty", "eighty", "thirty"),
    "{p}": ("rome", "a small town", "the desert", "the future"),
    "{o}": ("first", "second", "third", "last"),
}


def write_reviews(num: int, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """`num` reviews with labels 0 (negative) and 1 (positive), half of them each."""
    if num < 1:
        raise ValueError(f"num is {num}, allowed are at least 1")
    labels = np.asarray([(number + seed) % 2 for number in range(num)], dtype=np.int64)
    return [_write_review(seed, number, int(label)) for number, label in enumerate(labels)], labels


def _write_review(seed: int, number: int, label: int) -> str:
    """One review: a sentence that counts, with none to two neutral ones before or after it."""
    random = sample_generator(seed, 0, number, "review")
    aspects = [_ASPECTS[k] for k in random.permutation(len(_ASPECTS))[:3]]
    frame = _FRAMES[random.integers(len(_FRAMES))]
    for mark, polarity, aspect in (
        ("{m}", label, aspects[0]),
        ("{o}", 1 - label, aspects[1]),
        ("{s}", label, aspects[2]),
    ):
        frame = frame.replace(mark, _clause(polarity, aspect, random))
    sentences = [frame, *(_neutral(random) for _ in range(random.integers(3)))]
    return " ".join(sentences[k] for k in random.permutation(len(sentences)))


def _clause(polarity: int, aspect: str, random: np.random.Generator) -> str:
    """An opinion; its adjective is of the other polarity half of the time, and then turned round."""
    turned = int(random.random() < _SHARE_TURNED)
    templates, adjectives = (_PLAIN, _NEGATED)[turned], _ADJECTIVES[polarity ^ turned]
    text = templates[random.integers(len(templates))].replace("{a}", aspect)
    text = text.replace("{d}", _DEGREES[random.integers(len(_DEGREES))])
    return " ".join(text.replace("{j}", adjectives[random.integers(len(adjectives))]).split())


def _neutral(random: np.random.Generator) -> str:
    """A sentence without an opinion."""
    text = _NEUTRAL[random.integers(len(_NEUTRAL))]
    for mark, words in _FILLERS.items():
        text = text.replace(mark, words[random.integers(len(words))])
    return text
