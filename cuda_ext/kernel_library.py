"""Finds the library of a device's kernels in the cache, or builds it.

A library's name is a hash of everything that its content depends on: sources, flags, PyTorch, machine, compiler,
architectures. A library in the cache is used without a compiler. One process builds a missing one, and the others of
this machine wait for it.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import get_worker_info

from cuda_ext import cache, compiler, toolchain
from cuda_ext.toolchain import Tools, Unavailable

CSRC = Path(__file__).parent / "csrc"
_FILES = {"cpu": ("*_cpu.cpp", "*.h"), "cuda": ("*_cuda.cu", "*.h", "*.cuh")}
CFLAGS = ["-O3", "-DTORCH_TARGET_VERSION=0x020b000000000000"]  # the stable ABI of torch 2.11
_CUDA_CFLAGS = [*CFLAGS, "-DUSE_CUDA"]
_EXPECTED = {"cpu": "10 s", "cuda": "a minute"}
BUILD_SECONDS = 600.0
LOCK_SECONDS = 600.0
NOTICE_SECONDS = 10.0
_MAX_ERROR_CHARACTERS = 200
_ERROR = re.compile(r"\berror\b|Error:|cannot find")
_TRANSIENT = re.compile(
    r"No module named|No space left on device|Input/output error|"
    r"[Cc]annot allocate memory|out of memory|Killed|signal (?:9|15)\b"
)
TRY_AGAIN = "python -m cuda_ext build tries again"


@dataclass(frozen=True)
class Recipe:
    """What to build: a device's sources in a folder, and for "cuda" the architectures; None: the GPUs here."""

    device: str
    folder: Path = field(default_factory=lambda: CSRC)
    arch: str | None = None


def locate(recipe: Recipe, *, again: bool = False) -> tuple[Path, bool]:
    """A library's path, and whether this call built it. again: build even if that has failed before.

    Raises Unavailable.
    """
    arch = architectures(recipe)
    library = kept(recipe)
    if library is not None:
        return library, False
    tools = toolchain.find(recipe.device)
    refusals: list[str] = []
    for folder in cache.folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (refusal := cache.refusal(folder)) is None:
                return build_in(folder, recipe, arch, tools, again=again, because="; ".join(refusals))
        except OSError as error:
            refusal = cache.refusal(folder) or f"{folder} cannot be written ({cache.reason_of(error)})"
        refusals.append(refusal)
    raise Unavailable("; ".join(refusals), "set ATELIER_CACHE to a folder of your own")


def architectures(recipe: Recipe) -> str:
    """The GPU architectures to compile for, separated by semicolons; "" for a CPU. Raises Unavailable."""
    if recipe.device == "cpu":
        return ""
    if torch.version.cuda is None:
        raise Unavailable("this PyTorch has no CUDA", "install one that has")
    if recipe.arch is not None:
        return recipe.arch
    if not (gpus := toolchain.gpus()):
        raise Unavailable("no GPU", "python -m cuda_ext build --arch 9.0 builds for one that is elsewhere")
    return toolchain.architectures(gpus)


def kept(recipe: Recipe) -> Path | None:
    """A library in the cache that fits; where this machine has no compiler, that of any. Raises Unavailable."""
    identity = toolchain.identity(recipe.device)
    gpus = toolchain.gpus() if recipe.device == "cuda" else []

    def fits(facts: dict[str, Any]) -> bool:
        runs = all(toolchain.covers(facts["arch"], gpu) for gpu in gpus)
        return identity in (None, facts["compiler"]) and (runs if recipe.arch is None else facts["arch"] == recipe.arch)

    prefix = f"{recipe.device}-{_content_key(recipe, read_sources(recipe))}-"
    for folder in cache.folders():
        if cache.refusal(folder) is None and (library := cache.find(folder, prefix, fits)) is not None:
            return library
    return None


def read_sources(recipe: Recipe) -> dict[str, bytes]:
    """Sources and headers of a library. Raises Unavailable where there are none."""
    paths = sorted(path for pattern in _FILES[recipe.device] for path in recipe.folder.glob(pattern))
    sources = {path.name: path.read_bytes() for path in paths}
    if not _to_compile(sources):
        raise Unavailable(f"no {recipe.device} sources in {recipe.folder}", "install the package whole")
    return sources


def _to_compile(sources: Mapping[str, bytes]) -> list[str]:
    """The names of the sources without the headers."""
    return [name for name in sources if name.endswith((".cpp", ".cu"))]


def _content_key(recipe: Recipe, sources: Mapping[str, bytes]) -> str:
    """A hash of what a library is made from, without compiler and architectures."""
    facts = {
        "sources": {name: hashlib.sha256(content).hexdigest() for name, content in sources.items()},
        "flags": _CUDA_CFLAGS if recipe.device == "cuda" else CFLAGS,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "machine": os.uname().machine,
        "cxx11_abi": torch.compiled_with_cxx11_abi(),
    }
    return _digest(facts)


def _digest(facts: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def name_of(recipe: Recipe, arch: str, sources: Mapping[str, bytes]) -> str:
    """A library's name: device, hash of its content, hash of compiler and architectures."""
    return f"{recipe.device}-{_content_key(recipe, sources)}-{_digest(_origin(recipe, arch))}"


def _origin(recipe: Recipe, arch: str) -> dict[str, str | None]:
    """The compiler and the architectures of a library."""
    return {"compiler": toolchain.identity(recipe.device), "arch": arch}


def failed_before(recipe: Recipe, arch: str) -> Path | None:
    """The log of a failed build of this same library."""
    name = name_of(recipe, arch, read_sources(recipe))
    logs = [folder / f"{name}.failed.txt" for folder in cache.folders() if cache.refusal(folder) is None]
    return next((log for log in logs if log.exists()), None)


def build_in(folder: Path, recipe: Recipe, arch: str, tools: Tools, *, again: bool, because: str) -> tuple[Path, bool]:
    """Builds into a folder of libraries, or waits for the process that does.

    because: why a better folder is not used. Raises Unavailable; OSError where the folder is not writable.
    """
    sources = read_sources(recipe)
    name = name_of(recipe, arch, sources)
    lock, log = folder / f"{name}.lock", folder / f"{name}.failed.txt"

    def waits() -> None:
        if speaks():
            say(f"waiting for another process that compiles the {recipe.device} kernels ({lock})")

    try:
        with cache.locked(lock, LOCK_SECONDS, NOTICE_SECONDS, waits):
            if (library := cache.whole(folder / name)) is not None:
                return library, False
            if log.exists() and not again:
                raise Unavailable(f"compiling failed before (log: {log})", TRY_AGAIN, log)
            where = f" into {folder}, because {because}" if because else ""
            say(f"compiling the {recipe.device} kernels{where} (once, about {_EXPECTED[recipe.device]}) ...")
            part = cache.working_folder(folder, name)
            try:
                file = _compile_in(part, recipe.device, sources, arch, tools, log)
                return cache.publish(part, file, folder / name, _origin(recipe, arch)), True
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except cache.Busy:
        what = f"another process has been compiling for {LOCK_SECONDS:.0f} s ({lock})"
        raise Unavailable(what, "wait for it, or end it") from None


def _compile_in(
    part: Path, device: str, sources: Mapping[str, bytes], arch: str, tools: Tools, failure_log: Path
) -> str:
    """Compiles in a private folder and returns the library's file name. Raises Unavailable, and then writes a log."""
    for name, content in sources.items():  # copies, so that the library is made from what its name says
        (part / name).write_bytes(content)
    if tools.toolkit is not None:
        toolchain.link_cuda_runtime(tools.toolkit, part)
    request = compiler.Request(
        name=f"atelier_{device}",
        sources=_to_compile(sources),
        cflags=CFLAGS,
        cuda_cflags=_CUDA_CFLAGS,
        cuda_home=str(tools.toolkit.home) if tools.toolkit else None,
    )
    outcome = compiler.compile_library(part, request, toolchain.environment(tools, arch), BUILD_SECONDS)
    if outcome == compiler.SUCCESS:
        failure_log.unlink(missing_ok=True)
        return f"{request.name}.so"
    output = (part / compiler.LOG).read_text("utf-8", "replace").replace(f"{part}{os.sep}", "")
    errors = [line.strip() for line in output.splitlines() if _ERROR.search(line)]
    what = f"{outcome}: {errors[0][:_MAX_ERROR_CHARACTERS]}" if errors else outcome
    if outcome.startswith(compiler.KILLED) or _TRANSIENT.search(f"{outcome}\n{output}"):
        raise Unavailable(what, "the next start tries again")
    failure_log.write_text(f"{what}\n\n{output}", "utf-8")
    raise Unavailable(f"{what} (log: {failure_log})", TRY_AGAIN, failure_log)


def speaks() -> bool:
    """Whether this process prints notices: the first of a machine's ranks, the first of a loader's workers."""
    worker = get_worker_info()
    rank = os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))
    return rank == "0" and (worker is None or worker.id == 0)


def say(text: str) -> None:
    """Prints one line to standard error, if there is one."""
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    with suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)
