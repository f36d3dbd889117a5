"""The CUDA sources compile, for the GPUs of two generations and for those to come."""

import os
from pathlib import Path

import pytest

from cuda_ext import kernel_library, toolchain
from cuda_ext.kernel_library import Recipe

ARCHITECTURES = "8.0;9.0+PTX"


def test_the_cuda_sources_compile_for_sm_80_sm_90_and_ptx(home: Path) -> None:
    try:
        tools = toolchain.find("cuda")
    except toolchain.Unavailable as reason:
        pytest.skip(str(reason))
    path, built = kernel_library.locate(Recipe("cuda", arch=ARCHITECTURES))
    assert built
    content = path.read_bytes()
    assert b"sm_80" in content
    assert b"sm_90" in content
    assert b"compute_90" in content
    assert tools.toolkit is not None
    assert "cuda" in os.fspath(path)
