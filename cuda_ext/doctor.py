"""A report of what kernels need: what this machine has, what is missing, and what to do about it."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from cuda_ext import cache, toolchain
from cuda_ext.build import DEVICES, ExtensionError, mode, obtain
from cuda_ext.kernel_library import TRY_AGAIN, Recipe, architectures, failed_before, kept
from cuda_ext.toolchain import Unavailable


def examine() -> bool:
    """Prints the report; returns whether all kernels for this machine work or can be built."""
    switch, fine = _switched()
    rows = [
        ("python", f"{platform.python_version()}, {sys.executable}"),
        ("torch", f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"),
        ("c++", cxx()),
        ("ninja", ninja()),
        *(("nvcc", text) for text in nvccs()),
        ("GPUs", gpus()),
        *(("cache", f"{folder}, {_state(folder)}") for folder in cache.folders()),
        ("ATELIER_EXT", switch),
    ]
    for device in DEVICES:
        text, device_is_fine = _verdict(device)
        rows.append((f"{device} kernels", text))
        fine = fine and device_is_fine
    for name, text in rows:
        print(f"{name:13}{text}")
    return fine


def _switched() -> tuple[str, bool]:
    """The value of ATELIER_EXT, and whether it is a known one."""
    try:
        return mode(), True
    except ExtensionError as error:
        return str(error), False


def cxx() -> str:
    """The C++ compiler."""
    try:
        command = toolchain.cxx()
    except Unavailable as error:
        return str(error)
    version = toolchain.answer([*shlex.split(command), "--version"]).splitlines() or ["does not run"]
    return f"{command}, {version[0]}"


def ninja() -> str:
    """The ninja program."""
    try:
        path = toolchain.ninja()
    except Unavailable as error:
        return str(error)
    return f"{path}, {toolchain.answer([str(path), '--version']).strip() or 'does not run'}"


def nvccs() -> Iterator[str]:
    """Every nvcc and how it fits."""
    wanted = torch.version.cuda
    for nvcc in toolchain.nvccs():
        version = toolchain.version_of(nvcc)
        if version is None:
            yield f"{nvcc}, does not run"
            continue
        fits = wanted is not None and int(wanted.split(".")[0]) == version[0]
        words = "fits" if fits else "does not fit"
        yield f"{nvcc}, CUDA {version[0]}.{version[1]}, {words} PyTorch, toolkit {toolchain.home_of(nvcc)}"
    if not toolchain.nvccs():
        yield f"none; {toolchain.INSTALL_NVCC}"


def gpus() -> str:
    """The GPUs that PyTorch sees."""
    if not (capabilities := toolchain.gpus()):
        return "none that PyTorch sees"
    names = [torch.cuda.get_device_name(index) for index in range(len(capabilities))]
    return ", ".join(f"{name} ({major}.{minor})" for name, (major, minor) in zip(names, capabilities, strict=True))


def _state(folder: Path) -> str:
    """Whether a folder is used for libraries, and how many there are."""
    if (refusal := cache.refusal(folder)) is not None:
        return f"not used: {refusal}"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = "" if os.access(existing, os.W_OK) else ", cannot be written"
    if not folder.exists():
        return f"not there yet{writable}"
    files = [path for path in folder.rglob("*") if path.is_file()]
    libraries = sum(re.fullmatch(r"[^.]+", path.parent.name) is not None for path in files if path.suffix == ".so")
    return f"libraries: {libraries}, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB{writable}"


def _verdict(device: str) -> tuple[str, bool]:
    """The state of a device's kernels, and whether it is as good as it can be."""
    recipe = Recipe(device)
    try:
        if device == "cuda" and not has_gpu():
            return "not needed, no GPU", True
        arch = architectures(recipe)
        if kept(recipe) is None:
            toolchain.find(device)
            if (log := failed_before(recipe, arch)) is not None:
                return f"plain PyTorch instead: compiling failed before (log: {log}); {TRY_AGAIN}", False
            return "can be built: by the first use, or by python -m cuda_ext build", True
    except Unavailable as error:
        return f"plain PyTorch instead: {error}", False
    status = obtain(recipe)
    return (f"work, {status.library}", True) if status.active else (f"plain PyTorch instead: {status.reason}", False)


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, even one that PyTorch does not see."""
    return bool(toolchain.gpus()) or Path("/proc/driver/nvidia/gpus").exists()
