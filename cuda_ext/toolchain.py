"""Finds the compilers of this machine (C++, ninja, nvcc) and its GPUs, and names what is missing.

To load a library from the cache no program is run: compilers are then identified by file, size and time. Only a build
asks nvcc for its version and its toolkit, because a script called nvcc may be anywhere, and a library of another CUDA
major version than PyTorch's would load a second CUDA runtime.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_Capability = tuple[int, int]
DEFAULT_TOOLKIT = Path("/usr/local/cuda")
_QUESTION_SECONDS = 30.0
INSTALL_NVCC = "python -m pip install -e '.[cuda-build]' brings one"


class Unavailable(Exception):
    """Why there is no compiled kernel, what to do about it, and the log of a build that failed."""

    def __init__(self, what: str, todo: str, log: Path | None = None) -> None:
        super().__init__(f"{what}; {todo}")
        self.log = log


@dataclass(frozen=True)
class Toolkit:
    """An nvcc, the folder of its toolkit and its CUDA version."""

    nvcc: Path
    home: Path
    version: tuple[int, int]


@dataclass(frozen=True)
class Tools:
    """The programs that compile a library."""

    cxx: str
    ninja: Path
    toolkit: Toolkit | None


def find(device: str) -> Tools:
    """The tools for a device's library. Raises Unavailable for the first one that is missing."""
    if sys.platform != "linux":
        raise Unavailable(f"kernels are compiled on Linux, not on {sys.platform}", "no kernels can be had here")
    if not sys.executable or getattr(sys, "frozen", False):
        raise Unavailable(
            "no Python interpreter to compile with", "copy a library that was built elsewhere into the cache"
        )
    return Tools(cxx(), ninja(), toolkit() if device == "cuda" else None)


def environment(tools: Tools, arch: str) -> dict[str, str]:
    """The environment variables that torch.utils.cpp_extension needs to use these tools."""
    unwanted = ("PYTORCH_NVCC", "PYTHONWARNINGS")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    variables |= {
        "CXX": tools.cxx,
        "PATH": f"{tools.ninja.parent}{os.pathsep}{search_path()}",
        "CUDA_VISIBLE_DEVICES": "",  # the compiling process uses no memory of a GPU
        "TORCH_NO_COMPILER_WRAPPER": "1",  # no compiler server, which would outlive the build
    }
    if tools.toolkit is not None:
        variables |= {"CUDA_HOME": str(tools.toolkit.home), "TORCH_CUDA_ARCH_LIST": arch}
    return variables


def search_path() -> str:
    """The interpreter's folder, which is not on PATH where a venv is not activated, and then PATH."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


def cxx() -> str:
    """The C++ compiler: $CXX, or the first one on PATH. Raises Unavailable."""
    given = os.environ.get("CXX")
    names = [shlex.split(given)[0]] if given and shlex.split(given) else ["c++", "g++", "clang++"]
    for name in names:
        if (path := shutil.which(name, path=search_path())) is not None:
            return path if not given or len(shlex.split(given)) == 1 else given
    raise Unavailable(f"no C++ compiler ({', '.join(names)})", "apt install g++, or the like, brings one")


def ninja() -> Path:
    """The ninja program. Raises Unavailable."""
    if (path := shutil.which("ninja", path=search_path())) is None:
        raise Unavailable("no ninja", "python -m pip install ninja brings it")
    return Path(path)


def toolkit() -> Toolkit:
    """The first CUDA toolkit of PyTorch's CUDA major version. Raises Unavailable."""
    if torch.version.cuda is None:
        raise Unavailable("this PyTorch has no CUDA", "install one that has")
    wanted = int(torch.version.cuda.split(".")[0])
    others = []
    for nvcc in nvccs():
        version = version_of(nvcc)
        if version is not None and version[0] == wanted:
            return Toolkit(nvcc, home_of(nvcc), version)
        others.append(f"{nvcc} is CUDA {version[0]}.{version[1]}" if version else f"{nvcc} does not run")
    if others:
        raise Unavailable(f"no nvcc of CUDA {wanted}, which PyTorch has: {', '.join(others)}", INSTALL_NVCC)
    raise Unavailable("no nvcc", INSTALL_NVCC)


def nvccs() -> list[Path]:
    """Every nvcc of this machine: in $CUDA_HOME, $CUDA_PATH, PATH, the usual folder, and packages from PyPI."""
    homes = [Path(value) for name in ("CUDA_HOME", "CUDA_PATH") if (value := os.environ.get(name))]
    candidates = [home / "bin" / "nvcc" for home in homes]
    if (on_path := shutil.which("nvcc", path=search_path())) is not None:
        candidates.append(Path(on_path))
    candidates.append(DEFAULT_TOOLKIT / "bin" / "nvcc")
    candidates += [home / "bin" / "nvcc" for home in package_homes()]
    return list(dict.fromkeys(path for path in candidates if os.access(path, os.X_OK)))


def package_homes() -> Iterator[Path]:
    """Folders nvidia/cu<major> among the installed packages, newest first."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder).glob("cu[0-9]*"), reverse=True)


def version_of(nvcc: Path) -> tuple[int, int] | None:
    """The CUDA version that an nvcc states; None where it does not run."""
    match = re.search(r"release (\d+)\.(\d+)", answer([str(nvcc), "--version"]))
    return (int(match[1]), int(match[2])) if match else None


def home_of(nvcc: Path) -> Path:
    """The toolkit's folder, as nvcc itself states it, since nvcc may be a script in another folder."""
    match = re.search(r"^#\$ TOP=(.+)$", answer([str(nvcc), "--dryrun", "-x", "cu", "-c", os.devnull]), re.MULTILINE)
    return Path(match[1].strip()).resolve() if match else nvcc.resolve().parent.parent


def answer(command: list[str]) -> str:
    """A program's output; "" where it cannot be run or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_QUESTION_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def link_cuda_runtime(toolkit: Toolkit, folder: Path) -> None:
    """Links libcudart.so into a folder for the linker: packages from PyPI have it only with the version in its name."""
    for home in (toolkit.home, *package_homes()):
        for library in sorted([*home.glob("lib64/libcudart.so*"), *home.glob("lib/libcudart.so*")]):
            (folder / "libcudart.so").symlink_to(library)
            return


def identity(device: str) -> str | None:
    """Identifies this machine's compilers by their files, without running any; None where one is missing."""
    try:
        words = shlex.split(cxx())
    except Unavailable:
        return None
    programs = [Path(shutil.which(words[0]) or words[0]), *(nvccs() if device == "cuda" else [])]
    if device == "cuda" and len(programs) == 1:
        return None
    facts = [(path.resolve(), path.stat().st_size, path.stat().st_mtime_ns) for path in programs]
    return " ".join([*words[1:], *(f"{path}:{size}:{time}" for path, size, time in facts)])


def gpus() -> list[_Capability]:
    """The compute capabilities of the GPUs that PyTorch sees."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]


def architectures(present: list[_Capability]) -> str:
    """The architectures to compile for: $TORCH_CUDA_ARCH_LIST, and those of GPUs here that it does not cover."""
    listed = [name for name in re.split(r"[;, ]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "")) if name]
    listed = [] if listed == ["native"] else listed
    for capability in sorted(set(present)):
        if not covers(";".join(listed), capability):
            known = re.findall(r"sm_(\d+)(\d)", " ".join(torch.cuda.get_arch_list()))
            newest = max(((int(major), int(minor)) for major, minor in known), default=capability)
            major, minor = min(capability, newest)
            listed.append(f"{major}.{minor}" if capability <= newest else f"{major}.{minor}+PTX")
    return ";".join(dict.fromkeys(listed))


def covers(arch: str, capability: _Capability) -> bool:
    """Whether code for these architectures runs on a GPU: same major version, or PTX of an older one."""
    for match in re.finditer(r"(?:^|;)(\d+)\.(\d+)([a-z]?)(\+PTX)?(?=;|$)", arch):
        built = (int(match[1]), int(match[2]))
        same_major = built[0] == capability[0] and built[1] <= capability[1]
        if built == capability or (not match[3] and built <= capability and (same_major or bool(match[4]))):
            return True
    return False
