"""What all tests share: one thread, a runner for the programs, and the real data where it is there."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch is loaded; a busy second core makes OpenMP hundreds of times slower

import pytest

from tests.forkserver import ForkServer

ROOT = Path(__file__).parent.parent
# In tests/projects.
USE_SMOKE_RUNS = (
    "test_pipeline.py",
    "test_infer.py",
    "test_evaluate.py",
    "test_model_card.py",
    "test_web.py",
    "test_serve.py",
)
Program = Callable[..., "subprocess.CompletedProcess[str]"]
Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fails at once where the environment promises a GPU and there is none."""
    if os.environ.get("ATELIER_REQUIRE_GPU") and not hasattr(session.config, "workerinput"):
        import torch

        if not torch.cuda.is_available():
            pytest.exit("this environment needs a GPU, and torch finds none", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that look at smoke runs first: making these takes longest."""
    items.sort(key=lambda item: "smoke" not in getattr(item, "fixturenames", ()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Has pytest-xdist run in one process what shares preparations: a file's tests, in the tests of all projects those
    of a project, and all that look at a project's smoke run."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Scheduler(config, log)


def group_of(nodeid: str) -> str:
    """The name of the group of tests to which one of them belongs."""
    path, _, test = nodeid.partition("::")
    folder, _, name = path.rpartition("/")
    project = re.search(r"\[([a-z0-9_]+)", test) if folder == "tests/projects" else re.search("projects/(.+)", folder)
    if project is None:
        return path
    return f"smoke run of {project.group(1)}" if name in USE_SMOKE_RUNS else f"{path} {project.group(1)}"


@pytest.fixture(scope="session")
def forkserver() -> Iterator[ForkServer]:
    """The process that programs with torch are forked from."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def program(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, forkserver: ForkServer) -> Program:
    """Runs `python -m MODULE ARGUMENTS` in an empty folder, as a user would; returns code, stdout and stderr.

    torch=False: in a process that cannot import torch. env: variables beyond those of the tests. cwd: another folder.
    """

    def run(
        module: str, *arguments: object, torch: bool = True, env: Mapping[str, str] | None = None, cwd: Path = tmp_path
    ) -> "subprocess.CompletedProcess[str]":
        words = [str(argument) for argument in arguments]
        if torch and env is None:
            return forkserver.run(module, words, cwd, timeout=240)
        path = [str(ROOT)]
        if not torch:
            path.insert(0, str(tmp_path_factory.mktemp("blocked")))
            Path(path[0], "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )

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
    """Skips a test where there is no GPU; an environment that promises one has failed before."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
