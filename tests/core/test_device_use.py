"""How busy a GPU was, from events of a clock that the test sets."""

import pytest
import torch

from core.device_use import DeviceUse


class Clock:
    """A device that has done everything up to `done` milliseconds of its own time."""

    def __init__(self) -> None:
        self.now, self.done = 0.0, 0.0

    def event(self) -> "Moment":
        return Moment(self)


class Moment:
    """An event of that device."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, -1.0

    def record(self) -> None:
        self.at = self.clock.now

    def query(self) -> bool:
        return self.at <= self.clock.done

    def elapsed_time(self, end_event: "Moment") -> float:
        assert self.query()
        assert end_event.query(), "asked before the device has come there"
        return end_event.at - self.at


def test_the_share_is_that_of_the_time_between_the_first_and_the_last_step() -> None:
    clock = Clock()
    use = DeviceUse(clock.event)
    for busy, idle in [(3.0, 1.0), (2.0, 4.0)]:
        clock.now = clock.done = 0.0
        for _ in range(200):  # more than are kept; the device is always some steps behind
            with use.step():
                clock.now += busy
            clock.now += idle
            clock.done = clock.now - 30
        clock.done = clock.now
        assert use.take()["gpu_busy"] == pytest.approx(busy * 200 / (busy * 200 + idle * 199), abs=1e-4)
        assert use.take() == {}
    assert use.whole()["gpu_busy"] == pytest.approx(1000 / (1000 + 199 * 5), abs=1e-4)


def test_a_cpu_tells_nothing() -> None:
    use = DeviceUse.of(torch.device("cpu"))
    with use.step():
        pass
    assert use.take() == use.whole() == {}
