"""What a result depends on besides settings and data: versions, machine, commit of the code."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from core.distributed import World

_PACKAGES = ("torch", "torchvision", "timm", "tokenizers", "onnx", "onnxruntime", "numpy", "safetensors")
_BYTE_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512bw", "avx2", "ssse3", "i8mm", "asimddp", "asimd")


def environment(world: World) -> dict[str, Any]:
    """What a result depends on besides settings and data: versions, machine, commit."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        **versions,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "ranks": world.size,
        "commit": git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def processor() -> str:
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    return f"{name}, {os.cpu_count()} cores"


def peak_memory() -> dict[str, float]:
    """The most memory that this process has held, without those that load its data: peak_memory_mb in the machine's
    memory, and peak_device_memory_mb of what torch holds on a GPU where it is used; in units of a million bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as file:
        # Linux gives a program's ru_maxrss the peak of the process that started it as well.
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    memory = {"peak_memory_mb": round(peak / 1e6, 1)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        memory["peak_device_memory_mb"] = round(torch.cuda.max_memory_reserved() / 1e6, 1)
    return memory


def instruction_set() -> str:
    """The processor's instructions for products of bytes, the widest first; they decide what 8-bit networks cost."""
    flags: set[str] = set()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                flags.update(line.split(":", 1)[1].split())
    present = [name for name in _BYTE_INSTRUCTIONS if name in flags]
    return ", ".join(present) or f"instructions of {platform.machine()}"


def git_commit() -> str | None:
    """The commit that this code is at, with "-dirty" where files differ from it; None outside a checkout of its own.

    Where the package is installed in a folder of another project, git would answer with that project's commit.
    """
    root = Path(__file__).parent.parent
    if _git(root, "ls-files", "--error-unmatch", str(Path(__file__))) is None:
        return None
    return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails."""
    try:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
