"""The rules of the tree, read from the syntax trees: who may import whom, what may stand where."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(p.name for p in (ROOT / "projects").iterdir() if (p / "__init__.py").exists())
SOURCES = sorted(p for room in ("core", "projects", "cuda_ext") for p in (ROOT / room).rglob("*.py"))
TOP_LEVEL = {"core", "projects", "cuda_ext", "tests", "tox.ini", "pyproject.toml", "README.md"}
PROJECT_WORDS = {
    *("cifar", "cifar10", "sentiment", "forecast", "gan", "gans", "dcgan", "detection", "vocab", "vocabulary"),
    *("horizon", "boxes", "nms", "coco", "voc", "vgg", "gram", "discriminator", "imdb"),
}


def name_of(path: Path) -> str:
    """A file as the test's id."""
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, in functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed_rooms(path: Path) -> set[str]:
    """The rooms of this house that a file may import from."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "projects":
        return {"core", "cuda_ext", ".".join(parts[:2]) if len(parts) > 2 else "projects"}
    return {parts[0]}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_imports_only_from_rooms_it_may(path: Path) -> None:
    for name in imports(path):
        room = ".".join(name.split(".")[:2]) if name.startswith("projects") else name.split(".")[0]
        if room.split(".")[0] in ("core", "cuda_ext", "projects", "tests"):
            assert room in allowed_rooms(path), f"{name_of(path)} imports {name}"


def file_of(module: str) -> Path | None:
    """The file of a module of this house; of a name within a module, the module's."""
    for name in (module, module.rpartition(".")[0]):
        base = ROOT / Path(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if name and path.exists():
                return path
    return None


def everything_behind(path: Path) -> set[Path]:
    """A file and all files of this house that it imports, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += [found for name in imports(current) if (found := file_of(name)) is not None]
    return seen


@pytest.mark.parametrize("project", PROJECTS)
def test_inference_needs_no_torch_training_or_export(project: str) -> None:
    for path in everything_behind(ROOT / "projects" / project / "infer.py"):
        for name in imports(path):
            assert name.split(".")[0] not in ("torch", "torchvision", "timm", "onnx", "safetensors"), name_of(path)
        assert path.name not in ("train.py", "export.py", "model.py")


@pytest.mark.parametrize("project", PROJECTS)
def test_training_and_export_do_not_know_each_other(project: str) -> None:
    folder = ROOT / "projects" / project
    assert folder / "export.py" not in everything_behind(folder / "train.py")
    assert folder / "train.py" not in everything_behind(folder / "export.py")
    assert ROOT / "core" / "export.py" not in everything_behind(folder / "train.py")


@pytest.mark.parametrize("project", PROJECTS)
def test_every_project_has_the_same_files(project: str) -> None:
    present = {path.stem for path in (ROOT / "projects" / project).glob("*.py")}
    assert {"__init__", "config", "data", "model", "train", "export", "infer"} <= present


@pytest.mark.parametrize("module", ["core.config", "core.errors", *(f"projects.{name}.config" for name in PROJECTS)])
def test_settings_need_no_torch(module: str) -> None:
    path = file_of(module)
    assert path is not None
    for behind in everything_behind(path):
        assert not any(name.split(".")[0] in ("torch", "numpy", "onnx") for name in imports(behind))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_importing_does_no_work(path: Path) -> None:
    body = tree_of(path).body
    assert ast.get_docstring(tree_of(path)), "a file opens with what it is"
    plain = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in body[1:]:
        is_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        assert isinstance(node, plain) or is_main, f"line {node.lineno}: {ast.unparse(node)[:60]}"


def words_in_code(path: Path) -> Iterator[tuple[int, str]]:
    """Words of names and texts, without docstrings and comments."""
    tree = tree_of(path)
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, with_docstring) and ast.get_docstring(node)]
    docstrings = {id(node.value) for node in first if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in docstrings:
            for value in (getattr(node, field, None) for field in ("id", "attr", "arg", "name", "value", "module")):
                if isinstance(value, str):
                    words = re.findall(r"[a-z][a-z0-9]*", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).lower())
                    yield from ((getattr(node, "lineno", 0), word) for word in words)


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=name_of)
def test_core_knows_no_project(path: Path) -> None:
    found = [(line, word) for line, word in words_in_code(path) if word in PROJECT_WORDS]
    assert found == []


def tracked() -> list[Path]:
    """The files that git knows."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in done.stdout.split("\0") if name]


def test_no_file_is_named_after_nothing() -> None:
    assert not [path for path in tracked() if path.stem in ("utils", "util", "helpers", "helper", "common", "misc")]


def test_the_top_level_holds_only_the_rooms_of_the_house() -> None:
    names = {path.parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
