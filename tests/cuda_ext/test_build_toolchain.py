"""Whatever a machine has of compilers, GPUs and toolkits, the right ones are found, and what is missing has a name."""

import os
import sys
from pathlib import Path

import pytest
import torch

from cuda_ext import build, kernel_library, toolchain
from cuda_ext.kernel_library import Recipe
from cuda_ext.toolchain import Unavailable
from tests.cuda_ext.building import plain_sources

MAJOR = 13


@pytest.fixture
def bare(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no compiler at all and a PyTorch of CUDA 13.2; returns the folder that is its PATH."""
    programs, environment = tmp_path / "bin", tmp_path / "venv" / "bin"
    programs.mkdir()
    environment.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    monkeypatch.setattr(toolchain, "DEFAULT_TOOLKIT", tmp_path / "no-toolkit")
    monkeypatch.setattr(toolchain, "package_homes", list)
    monkeypatch.setattr(torch.version, "cuda", f"{MAJOR}.2")
    return programs


def program(path: Path, text: str = "exit 0") -> Path:
    """A shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return path


def nvcc(path: Path, version: str, home: Path | None = None) -> Path:
    """An nvcc that states a version, and the folder of its toolkit."""
    top = f'echo "#\\$ TOP={home or path.parent.parent}/bin/.." >&2'
    return program(path, f'case "$1" in --version) echo "release {version}, V{version}.88";; *) {top};; esac')


@pytest.mark.parametrize(("missing", "device"), [("c++", "cpu"), ("ninja", "cpu"), ("nvcc", "cuda")])
def test_what_is_missing_is_named_and_costs_the_kernels_alone(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, device: str
) -> None:
    for name in {"c++", "ninja"} - {missing}:
        program(bare / name)
    reason = "no C++ compiler" if missing == "c++" else f"no {missing}; python -m pip install"
    with pytest.raises(Unavailable) as caught:
        toolchain.find(device)
    assert str(caught.value).startswith(reason)
    monkeypatch.setattr(toolchain, "gpus", lambda: [(9, 0)])
    sources = plain_sources(tmp_path / "csrc")
    (sources / "answer_cuda.cu").write_text("", "utf-8")
    status = build.obtain(Recipe("cuda", sources))
    assert not status.active
    assert str(status.reason).startswith(reason)


def test_ninja_is_found_beside_the_interpreter_of_a_venv_that_is_not_activated(bare: Path) -> None:
    cxx = program(bare / "c++")
    ninja = program(Path(sys.executable).parent / "ninja")
    tools = toolchain.find("cpu")
    assert (tools.cxx, tools.ninja) == (str(cxx), ninja)
    assert toolchain.environment(tools, "")["PATH"].split(os.pathsep)[0] == str(ninja.parent)


def test_the_users_choice_of_compiler_holds(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare / "c++")
    other = program(bare / "g++-14")
    monkeypatch.setenv("CXX", "g++-14")
    assert toolchain.cxx() == str(other)
    monkeypatch.setenv("CXX", "g++-14 -m64")
    assert toolchain.cxx() == "g++-14 -m64"
    monkeypatch.setenv("CXX", "g++-15")
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler \(g\+\+-15\)"):
        toolchain.cxx()


def test_an_nvcc_of_another_major_version_is_refused_by_name(bare: Path, tmp_path: Path) -> None:
    wrong = nvcc(bare / "nvcc", "12.4", tmp_path / "cuda-12.4")
    with pytest.raises(Unavailable, match=rf"no nvcc of CUDA 13, which PyTorch has: {wrong} is CUDA 12\.4; "):
        toolchain.toolkit()


def test_an_nvcc_of_another_minor_version_will_do(bare: Path, tmp_path: Path) -> None:
    path = nvcc(bare / "nvcc", "13.0", tmp_path / "cuda-13.0")
    assert toolchain.toolkit() == toolchain.Toolkit(path, tmp_path / "cuda-13.0", (13, 0))


def test_an_nvcc_that_fits_is_found_behind_one_that_does_not(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc(tmp_path / "old" / "bin" / "nvcc", "12.8")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "old"))
    program(bare / "nvcc", "exit 1")
    monkeypatch.setattr(toolchain, "DEFAULT_TOOLKIT", tmp_path / "cuda")
    nvcc(tmp_path / "cuda" / "bin" / "nvcc", "13.1")
    assert toolchain.toolkit().home == tmp_path / "cuda"


def test_an_nvcc_that_does_not_run_is_told(bare: Path) -> None:
    path = program(bare / "nvcc", "exit 1")
    with pytest.raises(Unavailable, match=f"{path} does not run"):
        toolchain.toolkit()


def test_a_script_called_nvcc_leads_to_its_toolkit(bare: Path, tmp_path: Path) -> None:
    real = nvcc(tmp_path / "opt" / "cuda-13.0" / "bin" / "nvcc", "13.0")
    program(bare / "nvcc", f'exec {real} "$@"')
    assert toolchain.toolkit().home == tmp_path / "opt" / "cuda-13.0"


def test_the_nvcc_of_the_packages_from_pypi_is_found_and_its_runtime_linked(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    site = tmp_path / "site"
    path = nvcc(site / "nvidia" / "cu13" / "bin" / "nvcc", "13.2")
    (site / "nvidia" / "cu13" / "lib").mkdir()
    (site / "nvidia" / "cu13" / "lib" / "libcudart.so.13").touch()
    monkeypatch.syspath_prepend(site)
    assert path in toolchain.nvccs()
    found = toolchain.Toolkit(path, toolchain.home_of(path), (13, 2))
    toolchain.link_cuda_runtime(found, tmp_path)
    assert (tmp_path / "libcudart.so").resolve() == site / "nvidia" / "cu13" / "lib" / "libcudart.so.13"


def test_a_pytorch_without_cuda_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert toolchain.gpus() == []
    with pytest.raises(Unavailable, match="this PyTorch has no CUDA; install one that has"):
        kernel_library.architectures(Recipe("cuda"))


def test_no_gpu_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unavailable, match="no GPU; python -m cuda_ext build --arch"):
        kernel_library.architectures(Recipe("cuda"))


def test_compilers_are_told_apart_without_running_them(bare: Path, tmp_path: Path) -> None:
    assert toolchain.identity("cpu") is None
    ran = tmp_path / "ran"
    program(bare / "c++", f": > {ran}")
    first = toolchain.identity("cpu")
    assert first is not None
    assert toolchain.identity("cuda") is None
    program(bare / "nvcc", f": > {ran}")
    assert toolchain.identity("cuda") not in (None, first)
    program(bare / "c++", f": > {ran}; exit 1")
    assert toolchain.identity("cpu") not in (None, first)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("listed", "gpus", "expected"),
    [
        ("", [(9, 0)], "9.0"),
        ("", [(9, 0), (8, 0), (9, 0)], "8.0;9.0"),
        ("native", [(8, 9)], "8.9"),
        ("8.0", [(8, 6)], "8.0"),
        ("8.0 9.0+PTX", [(12, 0)], "8.0;9.0+PTX"),
        ("7.5;8.6", [(8, 0)], "7.5;8.6;8.0"),
        ("9.0a", [(10, 0)], "9.0a;10.0"),
        ("Hopper", [(9, 0)], "Hopper;9.0"),
        ("", [(13, 0)], "12.0+PTX"),
    ],
)
def test_code_is_compiled_for_what_is_listed_and_for_every_gpu_here(
    home: Path, monkeypatch: pytest.MonkeyPatch, listed: str, gpus: list[tuple[int, int]], expected: str
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90", "sm_100", "sm_120", "compute_120"])
    assert toolchain.architectures(gpus) == expected


@pytest.mark.parametrize(
    ("arch", "gpu", "runs"),
    [
        ("9.0", (9, 0), True),
        ("8.0", (8, 9), True),
        ("8.9", (8, 0), False),
        ("8.0", (9, 0), False),
        ("8.0+PTX", (9, 0), True),
        ("9.0+PTX", (8, 0), False),
        ("9.0a", (9, 0), True),
        ("9.0a+PTX", (10, 0), False),
        ("10.0", (10, 3), True),
        ("8.0;9.0+PTX", (12, 0), True),
        ("", (9, 0), False),
        ("native", (9, 0), False),
    ],
)
def test_a_library_is_used_on_the_gpus_that_it_was_made_for(arch: str, gpu: tuple[int, int], runs: bool) -> None:
    assert toolchain.covers(arch, gpu) is runs
