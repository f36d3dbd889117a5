"""What a training step spends its time on: a Chrome trace and a table, from torch.profiler
(https://docs.pytorch.org/docs/stable/profiler.html)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

from torch.profiler import ProfilerActivity, profile, record_function, schedule

from core.accelerator import Accelerator

_WAIT_STEPS, _WARMUP_STEPS, _ACTIVE_STEPS = 3, 2, 6
_NUM_OPERATIONS_SHOWN = 20
_PHASES = ("data", "train step", "backward", "optimizer")  # the last two are parts of the train step
_MUCH = 0.2  # of the time, from which on waiting deserves advice
Span = tuple[float, float]


class StepProfiler:
    """Records some steps after a few that settle; leaves `profile/` in the run folder. Free when off."""

    def __init__(self, run_path: Path, accelerator: Accelerator, *, enabled: bool) -> None:
        self.folder, self.accelerator = run_path / "profile", accelerator
        self._profile: Any = None
        if enabled:
            activities = [ProfilerActivity.CPU]
            if accelerator.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=_WAIT_STEPS, warmup=_WARMUP_STEPS, active=_ACTIVE_STEPS, repeat=1),
                on_trace_ready=self._write,
                acc_events=True,  # of one cycle; without it some releases warn
            )

    def __enter__(self) -> Self:
        if self._profile is not None:
            self.accelerator.profiling = True
            self._profile.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._profile is not None:
            self.accelerator.profiling = False
            self._profile.stop()

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """A named part of the step."""
        return record_function(name) if self._profile is not None else nullcontext()

    def step(self) -> None:
        """Ends a step."""
        if self._profile is not None:
            self._profile.step()

    def _write(self, finished: Any) -> None:
        """Writes the trace and the table."""
        self.folder.mkdir(exist_ok=True)
        finished.export_chrome_trace(str(self.folder / "trace.json"))
        is_gpu = self.accelerator.device.type == "cuda"
        lines = step_table(finished.events(), self.accelerator.describe(), is_gpu=is_gpu)
        sort = "self_device_time_total" if is_gpu else "self_cpu_time_total"
        lines += ["", finished.key_averages().table(sort_by=sort, row_limit=_NUM_OPERATIONS_SHOWN)]
        (self.folder / "table.txt").write_text("\n".join(lines), encoding="utf-8")


def step_table(events: Sequence[Any], where: str, *, is_gpu: bool) -> list[str]:
    """Lines that say how long a step takes, by phase, and what it waits for.

    events: of the profiler, in microseconds. where: the device in words. On a GPU a phase has two times: the host's, in
    which work is started, and that of the device's work which was started in it.
    """
    spans = {name: _spans(events, name) for name in _PHASES}
    host = {name: sum(end - start for start, end in each) for name, each in spans.items()}
    whole = host["data"] + host["train step"]
    lines = [f"One optimizer step: {_ms(whole):.2f} ms (mean of {_ACTIVE_STEPS}, on {where})"]
    columns = {"host": _disjoint(host)}
    if is_gpu:
        columns["device"] = _disjoint(_device_times(events, spans))
    verdict = _verdict(events, spans) if is_gpu else f"Data takes {host['data'] / max(whole, 1e-9):.0%} of it."
    lines += [verdict, "", *([f"{'':<18}" + "".join(f"{name:>21}" for name in columns)] if is_gpu else [])]
    for name in columns["host"]:
        shares = ((part[name], part[name] / max(sum(part.values()), 1e-9)) for part in columns.values())
        lines.append(f"{name:<18}" + "".join(f"{_ms(time):>10.2f} ms{share:>8.0%}" for time, share in shares))
    return lines


def _device_times(events: Sequence[Any], spans: dict[str, list[Span]]) -> dict[str, float]:
    """The device's time by the phase in which its work was started, from whichever thread."""
    device: dict[str, float] = dict.fromkeys(spans, 0.0)
    for event in (each for each in events if each.device_type.name == "CPU" and _is_work(each)):
        for name, each in spans.items():
            if any(start <= event.time_range.start < end for start, end in each):
                device[name] += sum(kernel.duration for kernel in event.kernels)
    return device


def _verdict(events: Sequence[Any], spans: dict[str, list[Span]]) -> str:
    """The share of the time in which a GPU does nothing, and what it waits for then."""
    kernels = (e.time_range for e in events if e.device_type.name == "CUDA" and _is_work(e))
    work = [(each.start, each.end) for each in kernels]
    steps = [*spans["data"], *spans["train step"]]
    if not work or not steps:
        return "The GPU did no work in these steps."
    begin, end = min(start for start, _ in steps), max(end for _, end in [*steps, *work])
    idle, data_idle, last = 0.0, 0.0, begin
    for start, stop in [*sorted(work), (end, end)]:
        if start > last:
            idle += start - last
            data_idle += sum(max(0.0, min(start, until) - max(last, since)) for since, until in spans["data"])
        last = max(last, stop)
    share, data = idle / (end - begin), data_idle / (end - begin)
    reason, advice = "for Python to start its work", "a larger batch, or without --profile as CUDA graphs"
    if data > share / 2:
        reason, advice = "for data", "--workers, or data that fits on the GPU"
    tried = f": try {advice}" if share > _MUCH else ""
    return f"The GPU waits {share:.0%} of the time, mostly {reason} ({data:.0%} for data){tried}."


def _is_work(event: Any) -> bool:
    """Whether an event is not the frame of a phase or step, which the profiler mirrors on the device."""
    return event.name not in _PHASES and not event.name.startswith("ProfilerStep")


def _spans(events: Sequence[Any], name: str) -> list[Span]:
    """When the host was in a phase."""
    found = (e.time_range for e in events if e.name == name and e.device_type.name == "CPU")
    return [(each.start, each.end) for each in found]


def _disjoint(total: dict[str, float]) -> dict[str, float]:
    """Times by phase, of which none is a part of another."""
    forward = total["train step"] - total["backward"] - total["optimizer"]
    return {"data": total["data"], "forward and loss": forward, **{n: total[n] for n in ("backward", "optimizer")}}


def _ms(microseconds: float) -> float:
    """Milliseconds of one step."""
    return microseconds / 1e3 / _ACTIVE_STEPS
