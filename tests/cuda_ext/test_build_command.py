"""`python -m cuda_ext doctor` and `build`: what they print, and how they leave."""

import os
import re
import tempfile
from pathlib import Path

import pytest
import torch

from cuda_ext import compiler, doctor, kernel_library, toolchain
from cuda_ext.__main__ import main
from cuda_ext.kernel_library import Recipe
from tests.cuda_ext.building import Forked, plain_sources

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def sources(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands build here."""
    monkeypatch.setattr(kernel_library, "CSRC", plain_sources(tmp_path / "csrc"))
    monkeypatch.setattr(compiler, "start", Forked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return kernel_library.CSRC


def rows(text: str) -> dict[str, str]:
    """The doctor's rows by name; the last of equal ones."""
    return {line[:13].strip(): line[13:] for line in text.splitlines()}


def test_build_compiles_ahead_and_says_where_and_how_long(home: Path, sources: Path, capsys: Capture) -> None:
    assert main(["build"]) == 0
    output = capsys.readouterr()
    (path,) = home.glob("cpu-*/atelier_cpu.so")
    assert re.fullmatch(rf"cpu kernels: compiled in [0-9.]+ s, {re.escape(str(path))}\n", output.out)
    assert output.err == "compiling the cpu kernels (once, about 10 s) ...\n"
    assert main(["build", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("cpu kernels: loaded in ")


def test_build_ends_with_the_compilers_words_and_1_and_tries_again(home: Path, sources: Path, capsys: Capture) -> None:
    plain_sources(sources, source='#include "answer.h"\nint answer( { return ANSWER; }\n')
    for _ in range(2):
        assert main(["build"]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.splitlines()[0] == "compiling the cpu kernels (once, about 10 s) ..."
        assert "ninja: build stopped" in output.err
        last = output.err.splitlines()[-1]
        assert re.match(r"error: no compiled cpu kernels: compiling failed: answer_cpu\.cpp:2:\d+: error: ", last)
    plain_sources(sources)
    assert main(["build"]) == 0


def test_build_without_a_compiler_says_what_to_install(sources: Path, no_compiler: None, capsys: Capture) -> None:
    assert main(["build"]) == 1
    missing = "no C++ compiler (c++, g++, clang++); apt install g++, or the like, brings one"
    assert capsys.readouterr().err == f"error: no compiled cpu kernels: {missing}\n"


def test_build_for_a_gpu_that_is_elsewhere_needs_its_architecture(
    sources: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert main(["build", "--device", "cuda"]) == 1
    assert "no GPU; python -m cuda_ext build --arch 9.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bild"],
        ["build", "--devise", "cpu"],
        ["build", "--device", "tpu"],
        ["build", "--arch", "9"],
        ["build", "--arch", ""],
        ["build", "--arch", "9.0;--help"],
        ["build", "--device", "cpu", "--arch", "9.0"],
        ["doctor", "now"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(home: Path, capsys: Capture, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    output = capsys.readouterr()
    assert (left.value.code, output.out) == (2, "")
    assert output.err.startswith("error: wrong command line: ")
    assert len(output.err.splitlines()) == 1
    assert not home.exists()


def test_the_doctor_shows_what_is_there(home: Path, sources: Path, capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    before = rows(capsys.readouterr().out)
    assert list(before) == [
        *("python", "torch", "c++", "ninja", "nvcc", "GPUs", "cache", "ATELIER_EXT", "cpu kernels", "cuda kernels"),
    ]
    assert before["torch"].startswith(torch.__version__)
    assert before["c++"].startswith(toolchain.cxx())
    assert before["cpu kernels"] == "can be built: by the first use, or by python -m cuda_ext build"
    assert before["cuda kernels"] == "not needed, no GPU"
    assert not home.exists()
    assert main(["build"]) == 0
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert re.search(rf"^cache +{home}, libraries: 1, 0\.0 MB$", output, re.MULTILINE)
    assert rows(output)["cpu kernels"].startswith(f"work, {home}{os.sep}cpu-")


def test_the_doctor_says_what_is_missing_and_what_to_do(sources: Path, no_compiler: None, capsys: Capture) -> None:
    assert main(["doctor"]) == 1
    report = rows(capsys.readouterr().out)
    missing = "no C++ compiler (c++, g++, clang++); apt install g++, or the like, brings one"
    assert report["c++"] == missing
    assert report["cpu kernels"] == f"plain PyTorch instead: {missing}"
    assert report["nvcc"] == "none; python -m pip install -e '.[cuda-build]' brings one"


def test_the_doctor_misses_nvcc_where_there_is_a_gpu(
    sources: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources / "answer_cuda.cu").write_text("", "utf-8")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(toolchain, "gpus", lambda: [(9, 0)])
    monkeypatch.setattr(doctor, "gpus", lambda: "one")
    monkeypatch.setattr(toolchain, "nvccs", list)
    assert main(["doctor"]) == 1
    report = rows(capsys.readouterr().out)
    assert report["cuda kernels"] == (
        "plain PyTorch instead: no nvcc; python -m pip install -e '.[cuda-build]' brings one"
    )


def test_the_doctor_finds_a_gpu_that_pytorch_cannot_use(
    sources: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    assert main(["doctor"]) == 1
    report = rows(capsys.readouterr().out)
    assert report["cuda kernels"] == "plain PyTorch instead: this PyTorch has no CUDA; install one that has"


def test_the_doctor_recalls_a_failed_build(home: Path, sources: Path, capsys: Capture) -> None:
    recipe = Recipe("cpu")
    name = kernel_library.name_of(recipe, "", kernel_library.read_sources(recipe))
    home.mkdir(mode=0o700, parents=True)
    (home / f"{name}.failed.txt").write_text("compiling failed", "utf-8")
    assert main(["doctor"]) == 1
    assert "compiling failed before (log: " in rows(capsys.readouterr().out)["cpu kernels"]


def test_the_doctor_refuses_an_unknown_switch(sources: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_EXT", "yes")
    assert main(["doctor"]) == 1
    assert "choose from auto, require, off" in rows(capsys.readouterr().out)["ATELIER_EXT"]


def test_the_doctor_says_that_a_cache_is_not_used(home: Path, sources: Path, capsys: Capture) -> None:
    home.mkdir(parents=True)
    home.chmod(0o777)
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert f"{home}, not used: {home} can be written by other users\n" in output
    assert f"{tempfile.gettempdir()}{os.sep}atelier-kernels-{os.geteuid()}, not there yet\n" in output
