"""What READMEs say is so: tables are those of the stored results, and files, programs, flags and environments exist."""

import configparser
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from core.config import RunConfig
from core.files import read_json
from core.program import parse_training
from core.results import table
from tests.benchmarks import ledger
from tests.conftest import ROOT
from tests.projects.contract import PROJECTS, module
from tests.readme import projects_table

PROJECT_READMES = sorted((ROOT / "projects").glob("*/README.md"))
BENCHMARKS = ROOT / "tests" / "benchmarks" / "README.md"
OTHERS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "projects" / "TOPICS.md",
    ROOT / "projects" / "cifar10" / "STUDIES.md",
    ROOT / "tests" / "faults" / "README.md",
    BENCHMARKS,
]
READMES = [*OTHERS, ROOT / "cuda_ext" / "README.md", *PROJECT_READMES]
PROGRAMS = "train|export|infer|evaluate|serve|web"
STAND_INS = {"DIR": "synthetic", "N": "1", "SEED": "1", "RUN_DIR": "run"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def block(readme: Path, name: str) -> str:
    """What stands between a README's marks."""
    pattern = rf"<!-- {name}[^\n]*-->\n(.*?)\n?<!-- end of {name} -->"
    found = re.search(pattern, readme.read_text("utf-8"), flags=re.DOTALL)
    assert found is not None, f"{name_of(readme)} has no block {name}"
    return found.group(1)


# Tables


@pytest.mark.parametrize("readme", PROJECT_READMES, ids=name_of)
def test_results_are_the_stored_ones(readme: Path) -> None:
    files = sorted((readme.parent / "results").glob("*.json"))
    stored = [read_json(path, "unreadable result", "collect it again") for path in files]
    assert stored
    assert block(readme, "results") == table(stored)
    for result in stored:
        assert result["commits"] != ["unknown"]


def test_the_tables_of_projects_and_benchmarks_are_the_stored_ones() -> None:
    assert block(ROOT / "README.md", "projects") == projects_table()
    assert block(BENCHMARKS, "benchmarks") == ledger.markdown()


# Files, programs, flags, environments


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_every_file_and_program_that_is_named_is_there(readme: Path) -> None:
    text = readme.read_text("utf-8")
    for program in set(re.findall(r"-m ((?:core|projects|cuda_ext|tests)[.\w]*)", text)) - {"projects.mine.train"}:
        path = ROOT / program.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), program
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (readme.parent / link).exists(), link
    if readme in PROJECT_READMES:
        for name in re.findall(r"`(\w+\.py)`", text):
            assert list(readme.parent.rglob(name)), name


def test_the_names_of_topics_stand_in_their_files() -> None:
    topics = ROOT / "projects" / "TOPICS.md"
    for links in re.findall(r"\| (\[[^|]+) \|", topics.read_text("utf-8")):
        for link, names in re.findall(r"\]\(([^)]+)\)((?: ?,? ?`\w+`)*)", links):
            for name in re.findall(r"\w+", names):
                assert re.search(rf"\b{name}\b", (topics.parent / link).read_text("utf-8")), f"{name} in {link}"


def commands_in(readme: Path) -> list[tuple[str, str, list[str]]]:
    """All commands of projects in a README: project, program, arguments without what is optional or left open."""
    found = []
    for line in readme.read_text("utf-8").splitlines():
        for project, program, rest in re.findall(rf"-m projects\.(\w+)\.({PROGRAMS})\b([^`|#]*)", line):
            if project in PROJECTS:
                words = shlex.split(re.sub(r"\[([^\]]*)\]", r"\1", rest.partition("  ")[0]))
                found.append((project, program, [word for word in words if word != "..."]))
    return found


@cache
def flags_of(project: str, program: str) -> frozenset[str]:
    """All flags of a program, from its help."""
    command = [sys.executable, "-m", f"projects.{project}.{program}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return frozenset(re.findall(r"--[a-z][-a-z0-9]*", done.stdout))


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_every_command_is_one_that_its_program_takes(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunConfig, "check_present", lambda self, resuming: None)
    for project, program, words in commands_in(readme):
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= flags_of(project, program), f"{project}.{program} {' '.join(words)}"
        if program == "train" and "--resume" not in words and not re.search("[A-Z]{2}", " ".join(words)):
            config_class = module(project, "config").Config
            monkeypatch.setattr(config_class, "check_present", lambda self, resuming: None)
            parse_training(config_class, words)


@pytest.mark.parametrize("readme", PROJECT_READMES, ids=name_of)
def test_every_flag_in_a_projects_readme_is_one_of_its_programs(readme: Path) -> None:
    named = set(re.findall(r"`(--[a-z][-a-z0-9]*)", re.sub(r"(?s)<!-- results.*", "", readme.read_text("utf-8"))))
    own = set().union(*(flags_of(readme.parent.name, program) for program in ("train", "export", "infer")))
    assert named <= own | {f"--no-{flag[2:]}" for flag in own}


def environments() -> set[str]:
    """All names of environments and labels in tox.ini."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    names = {line.partition("=")[0].strip() for line in parser["tox"]["labels"].splitlines()}
    for section in (name.removeprefix("testenv:") for name in parser.sections()):
        parts = [part.split(",") for part in re.split(r"[{}]", section)]
        names |= {"".join(choice) for choice in itertools.product(*parts)}
    return names


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_every_environment_of_tox_that_is_named_is_there(readme: Path) -> None:
    for names in re.findall(r"tox (?:-e|-m) ([\w,-]+)", readme.read_text("utf-8")):
        assert set(names.split(",")) <= environments(), names


def test_the_tree_is_complete() -> None:
    tree = re.search(r"## The tree\n(.*?)\n## ", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)
    assert tree is not None
    rooms = dict(re.findall(r"(?m)^    (\w+)/((?:.*\n|      .*\n)+?)(?=    \w+/|\Z)", tree.group(1) + "\n"))
    assert set(rooms) == {"core", "projects", "cuda_ext", "tests"}
    core = {path.name for path in (ROOT / "core").glob("*.py")} - {"__init__.py"}
    folders = {path.name for path in (ROOT / "core").iterdir() if path.is_dir()} - {"__pycache__"}
    assert set(re.findall(r"\w+\.py", rooms["core"])) == core
    assert set(re.findall(r"(\w+)/ ", rooms["core"])) == folders
    documented = {path.parent.name for path in PROJECT_READMES}
    assert set(re.findall(r"(\w+)/", rooms["projects"])) == documented


# Start your own project


def test_a_project_that_is_started_as_the_readme_says_trains_into_its_own_folder_and_passes_the_tests(
    tmp_path: Path,
) -> None:
    """The commands of the README, run in a copy of the tree."""
    house = tmp_path / "house"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "runs", "*.egg-info")
    shutil.copytree(ROOT, house, ignore=ignored)
    text = re.search(r"## Start your own project\n\n((?:    .*\n)+)", (ROOT / "README.md").read_text("utf-8"))
    assert text is not None
    *commands, train = [line.strip() for line in text.group(1).splitlines()]
    for command in commands:
        subprocess.run(command, shell=True, cwd=house, check=True)
    tiny = "--data synthetic --num-synthetic 200 --image-size 16 --batch-size 40 --lr 0.1 --epochs 1 --device cpu"
    assert train == "python -m projects.mine.train --smoke"
    run([sys.executable, "-m", "projects.mine.train", *tiny.split()], house)
    assert [path.parent.parent.name for path in house.glob("runs/*/*/run.json")] == ["mine"]
    tests = ["tests/core/test_layout.py", "tests/test_readme.py", "tests/projects/test_contract.py"]
    chosen = "(mine or not project) and not started_as and not killed"
    run([sys.executable, "-m", "pytest", "-q", "-x", *tests, "-k", chosen], house)


def run(command: list[str], folder: Path) -> None:
    """Runs a command that has to end well."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
