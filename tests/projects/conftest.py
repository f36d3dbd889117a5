"""What the tests of several projects share: the smoke run of each, and folders of images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import RunConfig
from tests.conftest import Once, Program
from tests.projects.contract import CONTRACTS, PROJECTS, Contract, module
from tests.projects.sample_data import write_images
from tests.smoke import Smoke, smoke_run

MakeFolder = Callable[..., Path]


@pytest.fixture(scope="module", params=PROJECTS)
def project(request: pytest.FixtureRequest) -> str:
    """Each project in turn."""
    name: str = request.param
    return name


@pytest.fixture
def contract(project: str) -> Contract:
    """The project's entry."""
    if project not in CONTRACTS:
        pytest.skip(f"{project} has no entry in tests/projects/contract.py")
    return CONTRACTS[project]


@pytest.fixture
def config_class(project: str) -> type[RunConfig]:
    """The project's settings."""
    found: type[RunConfig] = module(project, "config").Config
    return found


@pytest.fixture
def smoke(request: pytest.FixtureRequest, program: Program, once: Once) -> Smoke:
    """The smoke run and its export, with the flags of the contract: of each project in turn, or of the folder's."""
    in_turn = "project" in request.fixturenames
    contract = request.getfixturevalue("contract") if in_turn else CONTRACTS[request.path.parent.name]
    project = request.getfixturevalue("project") if in_turn else request.path.parent.name
    return smoke_run(project, program, once, train=contract.smoke.split(), export=contract.export.split())


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of images: make_folder(train=8, val=2) writes SPLIT/CLASS/* with so many of each class."""
    return lambda **num_per_class: write_images(tmp_path / "images", num_per_class)
