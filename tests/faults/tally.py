"""What a part of the harness has tried, and what went wrong: counts, and the first cases of each kind in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_MAX_CASES = 20
WRONG = ("lost", "unequal", "others")


@dataclass
class Tally:
    """tried: how many of each kind. wrong: how many were lost, ended unequal, or ended in another way than promised.
    cases: the first of these, each in a line."""

    tried: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(WRONG, 0)))
    cases: list[str] = field(default_factory=list)

    def count(self, kind: str) -> None:
        """Counts something that was tried."""
        self.tried[kind] += 1

    def add(self, kind: str, case: str, number: int = 1) -> None:
        """Counts something that went wrong, once or more often."""
        self.wrong[kind] += number
        if len(self.cases) < _MAX_CASES:
            self.cases.append(f"{kind}: {case}")

    def merge(self, tried: Mapping[str, int], wrong: Mapping[str, int], cases: Sequence[str]) -> None:
        """Adds what another has counted."""
        self.tried.update(tried)
        self.wrong.update(wrong)
        self.cases = [*self.cases, *cases][:_MAX_CASES]

    @property
    def num_wrong(self) -> int:
        """Everything that went wrong."""
        return sum(self.wrong.values())
