"""What a step does on the host around its work on the device, so that a GPU can replay the device's part alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Action = Callable[[], object]


@dataclass
class Noted:
    """The host's actions of one captured step. before: set tensors that the step reads, such as the learning rate.
    after: count, and move schedules on."""

    before: list[Action] = field(default_factory=list)
    after: list[Action] = field(default_factory=list)
    owners: list[object] = field(default_factory=list)


class HostWork:
    """Does the host's actions at once; notes them instead while a step is captured, whose work is not done yet."""

    def __init__(self) -> None:
        self._noted: Noted | None = None

    @property
    def is_noting(self) -> bool:
        """Whether a step is being captured."""
        return self._noted is not None

    def before(self, action: Action, owner: object) -> None:
        """Sets what the step's work reads from tensors of `owner`. Raises RuntimeError for an owner's second in one
        captured step, whose values would be those of the first."""
        if self._noted is None:
            action()
            return
        if any(owner is other for other in self._noted.owners):
            raise RuntimeError(f"{type(owner).__name__} is updated twice in one train step")
        self._noted.owners.append(owner)
        self._noted.before.append(action)

    def after(self, action: Action) -> None:
        """Goes on to the next step."""
        if self._noted is None:
            action()
        else:
            self._noted.after.append(action)

    @contextmanager
    def noting(self) -> Iterator[Noted]:
        """Within it, actions are noted in what it yields, and not done."""
        self._noted = noted = Noted()
        try:
            yield noted
        finally:
            self._noted = None
