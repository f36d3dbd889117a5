"""The rules of the tree, read from the syntax trees: who may import whom, what may stand where. One test a rule."""

import ast
import itertools
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "projects", "cuda_ext")
PROJECTS = sorted(path.parent.name for path in (ROOT / "projects").glob("*/config.py"))
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
CORE = [path for path in SOURCES if path.is_relative_to(ROOT / "core")]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TOP_LEVEL = {*ROOMS, "tests", "tox.ini", "pyproject.toml", "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md"}
FILES_OF_A_PROJECT = {"__init__", "config", "data", "model", "train", "export", "infer"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "parts"}
NOT_IN_INFERENCE = {"torch", "torchvision", "timm", "onnx", "safetensors"}
MAX_LINES = 250
PROJECT_WORDS = {
    *("cifar", "cifar10", "sentiment", "forecast", "gan", "gans", "dcgan", "detection", "vocab", "vocabulary"),
    *("horizon", "boxes", "nms", "coco", "voc", "vgg", "gram", "discriminator", "imdb"),
}


def hold(wrong: list[str]) -> None:
    """Fails with everything that breaks a rule."""
    assert not wrong, "\n".join(["", *wrong])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Full names of everything a file imports, in functions too."""
    names: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


@cache
def file_of(module: str) -> Path | None:
    """The file of a module of this house; of a name within a module, the module's."""
    for name in (module, module.rpartition(".")[0]):
        base = ROOT / Path(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if name and path.exists():
                return path
    return None


def everything_behind(start: Iterable[Path]) -> set[Path]:
    """Files, and all files of this house that they import, directly or not."""
    seen: set[Path] = set()
    waiting = list(start)
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += [found for name in imports(current) if (found := file_of(name)) is not None]
    return seen


def room_of(name: str) -> str:
    """The room of an imported name: core, cuda_ext, tests, or a single project such as projects.gan."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "projects" else parts[0]


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the nodes that are docstrings."""
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, with_docstring) and ast.get_docstring(node)]
    return {id(node.value) for node in first if isinstance(node, ast.Expr)}


# Who may import whom


def test_core_and_cuda_ext_import_only_themselves_and_a_project_only_itself_core_and_cuda_ext() -> None:
    wrong = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        own = parts[0] if parts[0] != "projects" else ".".join(parts[:2])
        allowed = {own, "core", "cuda_ext"} if parts[0] == "projects" else {own}
        rooms = {room_of(name) for name in imports(path) if name.split(".")[0] in (*ROOMS, "tests")}
        wrong += [f"{name_of(path)} imports {room}" for room in sorted(rooms - allowed)]
    hold(wrong)


def test_no_project_is_named_by_another_in_a_string_or_loaded_by_a_computed_name() -> None:
    wrong = []
    for path in SOURCES:
        parts, texts = path.relative_to(ROOT).parts, docstrings(tree_of(path))
        own = parts[1] if parts[0] == "projects" and len(parts) > 2 else None
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                named = set(re.findall(r"\bprojects[./](\w+)", node.value)) & set(PROJECTS)
                wrong += [f"{name_of(path)}:{node.lineno} names {other}" for other in named - {own}]
            if own and isinstance(node, ast.Call) and not (node.args and isinstance(node.args[0], ast.Constant)):
                loads = ast.unparse(node.func).endswith(("import_module", "__import__"))
                wrong += [f"{name_of(path)}:{node.lineno} loads a module by a computed name"] if loads else []
    hold(wrong)


def test_no_file_imports_itself_through_others() -> None:
    behind = {path: everything_behind(file for n in imports(path) if (file := file_of(n))) for path in SOURCES}
    hold([name_of(path) for path in SOURCES if path in behind[path]])


@pytest.mark.parametrize("program", ["infer", "evaluate", "serve", "web"])
@pytest.mark.parametrize("project", PROJECTS)
def test_what_uses_an_exported_file_needs_no_torch_training_or_export(project: str, program: str) -> None:
    main = ROOT / "projects" / project / f"{program}.py"
    for path in everything_behind([main] if main.exists() else []):
        assert not {name.split(".")[0] for name in imports(path)} & NOT_IN_INFERENCE, name_of(path)
        assert path.name not in ("train.py", "export.py", "model.py")


@pytest.mark.parametrize("project", PROJECTS)
def test_training_and_export_do_not_know_each_other(project: str) -> None:
    folder = ROOT / "projects" / project
    behind_training = everything_behind([folder / "train.py"])
    assert not behind_training & {folder / "export.py", ROOT / "core" / "export.py"}
    assert folder / "train.py" not in everything_behind([folder / "export.py"])


def test_settings_and_command_lines_need_no_torch() -> None:
    first = [ROOT / "core" / f"{name}.py" for name in ("config", "program", "errors")]
    for path in everything_behind([*first, *(ROOT / "projects" / name / "config.py" for name in PROJECTS)]):
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "numpy", "onnx"}, name_of(path)


# What a file is


def test_every_project_has_the_same_files() -> None:
    for project in PROJECTS:
        assert {path.stem for path in (ROOT / "projects" / project).glob("*.py")} >= FILES_OF_A_PROJECT, project


def test_a_file_opens_with_what_it_is_and_importing_it_does_no_work() -> None:
    wrong = []
    plain = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for path in SOURCES:
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            wrong.append(f"{name_of(path)} does not say what it is")
        for node in tree.body[1:]:
            is_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            if not isinstance(node, plain) and not is_main:
                wrong.append(f"{name_of(path)}:{node.lineno} {ast.unparse(node)[:60]}")
    hold(wrong)


def test_no_file_is_too_long_to_read_at_once() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    hold([f"{name_of(path)} has {length} lines" for path, length in lengths.items() if length > MAX_LINES])


def test_core_knows_no_project() -> None:
    wrong = []
    for path in CORE:
        tree, texts = tree_of(path), docstrings(tree_of(path))
        for node in (node for node in ast.walk(tree) if id(node) not in texts):
            for value in (getattr(node, field, None) for field in ("id", "attr", "arg", "name", "value", "module")):
                if isinstance(value, str):
                    words = re.findall(r"[a-z][a-z0-9]*", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).lower())
                    wrong += [f"{name_of(path)} says {word}" for word in words if word in PROJECT_WORDS]
    hold(wrong)


# Names


def identifiers(path: Path) -> Iterator[str]:
    """All names that a file uses or imports."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def annotated(tree: ast.Module) -> set[str]:
    """All names in a file's annotations: they belong to its signatures."""
    fields = [getattr(node, field, None) for node in ast.walk(tree) for field in ("annotation", "returns")]
    return {node.id for field in fields if field for node in ast.walk(field) if isinstance(node, ast.Name)}


def test_a_name_that_only_its_own_file_of_core_uses_begins_with_an_underscore() -> None:
    used = {path: set(identifiers(path)) for path in (*SOURCES, *TESTS)}
    num_files = Counter(itertools.chain.from_iterable(used.values()))
    wrong = []
    for path in CORE:
        here = annotated(tree_of(path))
        for node in tree_of(path).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if "TypeVar(" in ast.unparse(node):
                continue
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            names += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            public = [name for name in names if not name.startswith("_") and name != "main" and len(name) > 1]
            own = [name for name in public if name not in here and num_files[name] == (name in used[path])]
            wrong += [f"{name_of(path)}: {name}" for name in own]
    hold(wrong)


def test_no_file_takes_an_underscored_name_from_another() -> None:
    wrong = []
    for path in (*SOURCES, *TESTS):
        for name in imports(path):
            if name.split(".")[0] in (*ROOMS, "tests") and name.rpartition(".")[2].startswith("_"):
                wrong.append(f"{name_of(path)} imports {name}")
    hold(wrong)


def tracked() -> list[Path]:
    """The files that git knows."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in done.stdout.split("\0") if name]


def test_no_file_is_named_after_nothing() -> None:
    hold([str(path) for path in tracked() if path.stem in EMPTY_NAMES])


def test_the_top_level_holds_only_the_rooms_of_the_house() -> None:
    names = {path.parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
