"""What a training step spends its time on: a Chrome trace and a table, from torch.profiler
(https://docs.pytorch.org/docs/stable/profiler.html)."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from core.accelerator import Accelerator

_WAIT_STEPS, _WARMUP_STEPS, _ACTIVE_STEPS = 3, 2, 6
_NUM_OPERATIONS_SHOWN = 20


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
        rows = {event.key: event for event in finished.key_averages()}
        total = {name: rows[name].cpu_time_total / 1e3 / _ACTIVE_STEPS if name in rows else 0.0 for name in _PHASES}
        forward = total["train step"] - total["backward"] - total["optimizer"]
        parts = {"data": total["data"], "forward and loss": forward}
        parts.update({name: total[name] for name in ("backward", "optimizer")})
        whole = sum(parts.values())
        lines = [f"One optimizer step: {whole:.2f} ms (mean of {_ACTIVE_STEPS}, on {self.accelerator.describe()})", ""]
        lines += [f"{name:<18}{ms:>10.2f} ms{ms / max(whole, 1e-9):>8.0%}" for name, ms in parts.items()]
        sort = "self_device_time_total" if self.accelerator.device.type == "cuda" else "self_cpu_time_total"
        lines += ["", finished.key_averages().table(sort_by=sort, row_limit=_NUM_OPERATIONS_SHOWN)]
        if torch.cuda.is_available() and self.accelerator.device.type == "cuda":
            lines.insert(1, "The times of the phases are the host's; the GPU's are in the trace and the table below.")
        (self.folder / "table.txt").write_text("\n".join(lines), encoding="utf-8")


_PHASES = ("data", "train step", "backward", "optimizer")
