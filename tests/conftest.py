"""What all tests share: one thread, a runner for the programs, and the real data where it is there."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch is loaded; a busy second core makes OpenMP hundreds of times slower

import pytest

ROOT = Path(__file__).parent.parent
Program = Callable[..., "subprocess.CompletedProcess[str]"]
Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs `python -m MODULE ARGUMENTS` in an empty folder, as a user would; returns code, stdout and stderr."""

    def run(module: str, *arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}  # type: ignore[dict-item]
        command = [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
        settings = {"capture_output": True, "text": True, "timeout": 240, "cwd": tmp_path, **options}
        return subprocess.run(command, env=environment, **settings)  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Has a folder of a name filled at its first use, for all tests and for all of pytest-xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def filled(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = base / f"once-{name}", base / f"once-{name}.done"
        with (base / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return filled


@pytest.fixture(scope="session")
def real_data(once: Once) -> Path:
    """The unpacked real data; skips where its archive is not beside the project."""
    source = Path(os.environ.get("ATELIER_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (source / "unpack").exists():
        pytest.skip(f"real data not found in {source}; set ATELIER_REAL_DATA")
    return once("real-data", lambda folder: subprocess.run([str(source / "unpack"), str(folder)], check=True))


@pytest.fixture
def gpu() -> None:
    """Skips a test without a GPU; fails it where the environment promises one."""
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("ATELIER_REQUIRE_GPU"):
            pytest.fail("this environment needs a GPU, and torch finds none")
        pytest.skip("no GPU on this machine")
