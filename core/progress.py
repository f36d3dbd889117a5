"""What a person sees while a training runs: a live bar on a terminal, a line an epoch elsewhere; all on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LOOKS = 0.5
T = TypeVar("T")


def counted(items: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
    """The items one by one; where standard error is a terminal, with a bar of how many have been taken there.

    total: how many there are, None where that is not known; unit: their name in the plural.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield from items
        return
    columns = (BarColumn(bar_width=16), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    # What goes to a file or a pipe must not end up on the terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(unit, total=total)
        for item in items:
            yield item
            bar.advance(task)


class ProgressBar:
    """Steps done of `total`, loss, samples a second and time left. Silent on all ranks but the first."""

    def __init__(self, total_steps: int, first_step: int, samples_per_step: int, *, silent: bool) -> None:
        self.total_steps, self.samples_per_step = total_steps, samples_per_step
        self._console = Console(stderr=True, quiet=silent, highlight=False)
        self._bar: Progress | None = None
        if self._console.is_terminal and not silent:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
            self._task = self._bar.add_task("training", total=total_steps, completed=first_step, text="")
        self._began, self._first_step = time.perf_counter(), first_step
        self._next_look = 0.0

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def is_due(self) -> bool:
        """Whether it is time to look at numbers again; asking costs well under a microsecond."""
        return self._bar is not None and time.perf_counter() >= self._next_look

    def show(self, epoch: int, step: int, loss: float) -> None:
        """Moves the bar."""
        if self._bar is not None:
            text = f"{step}/{self.total_steps}  loss {loss:.3f}  {self.rate(step):,.0f}/s  {self.left(step)} left"
            self._bar.update(self._task, completed=step, description=f"epoch {epoch + 1}", text=text, refresh=True)
            self._next_look = time.perf_counter() + _SECONDS_BETWEEN_LOOKS

    def print(self, text: str) -> None:
        """Writes a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def rate(self, step: int) -> float:
        """Samples a second since this process began, evaluations included."""
        return (step - self._first_step) * self.samples_per_step / max(self.seconds(), 1e-9)

    def seconds(self) -> float:
        """Time since the loop of this process began."""
        return time.perf_counter() - self._began

    def left(self, step: int) -> str:
        """Time to the last step at the rate so far, as h:mm:ss."""
        done = step - self._first_step
        seconds = int(self.seconds() / max(done, 1) * (self.total_steps - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
