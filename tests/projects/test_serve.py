"""All projects' servers: their answers equal those of infer, and neither they nor what they need has torch."""

import ast
import base64
import io
import json
import re
import runpy
import socket
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.serving.limits import ServeOptions
from core.serving.model_files import named_files
from core.serving.program import page_files
from tests.clean_serving import MAX_BYTES
from tests.conftest import ROOT
from tests.core.test_layout import NOT_IN_INFERENCE, PROJECTS, ROOMS, everything_behind, imports, name_of, tree_of
from tests.projects.browser import Browser, chromium
from tests.projects.contract import Contract, module
from tests.smoke import Smoke

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
import uvicorn
from fastapi.testclient import TestClient

from core.serving.app import make_app

Infer = Callable[..., list[dict[str, Any]]]
REQUIREMENTS = ROOT / ".ci" / "serve-requirements.txt"
NAMES = {"PIL": "pillow", "prometheus_client": "prometheus-client"}
COME_WITH_FASTAPI = {"pydantic", "starlette"}
IMPORTED_LATER = {"tokenizers"}


@pytest.fixture
def client(project: str, smoke: Smoke) -> Iterator[TestClient]:
    """The project's server with the file of its smoke run."""
    service = module(project, "serve").SERVICE
    files = named_files([str(smoke.run_dir / "model.onnx")], lambda path: service.load(path, 1))
    page = page_files(ROOT / "projects" / project)
    with TestClient(make_app(service, files, ServeOptions(), page)) as client:
        yield client


@pytest.fixture
def infer(
    project: str, smoke: Smoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Infer:
    """Runs the project's infer program here; the JSON objects that it prints."""

    def infer(*arguments: object) -> list[dict[str, Any]]:
        monkeypatch.chdir(tmp_path)
        words = ["infer", str(smoke.run_dir / "model.onnx"), *map(str, arguments), "--json"]
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.delitem(sys.modules, f"projects.{project}.infer", raising=False)  # runpy warns of a second one
        with pytest.raises(SystemExit) as left:
            runpy.run_module(f"projects.{project}.infer", run_name="__main__", alter_sys=True)
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        return [json.loads(line) for line in printed.out.splitlines()]

    return infer


def pixels(image: bytes | str) -> Any:
    """The pixels of an image file, or of a data URL."""
    content = base64.b64decode(image.partition(",")[2]) if isinstance(image, str) else image
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def assert_alike(one: Any, other: Any) -> None:
    """Equal, numbers up to what a batch changes."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    else:
        assert one == (pytest.approx(other, rel=1e-4, abs=2e-5) if isinstance(one, float) else other)


def test_a_server_answers_as_infer_does(
    client: TestClient, infer: Infer, project: str, contract: Contract, tmp_path: Path
) -> None:
    kind = module(project, "serve").SERVICE.kind
    (tmp_path / "in").mkdir()
    inputs = contract.write_inputs(tmp_path / "in")
    if kind == "seeds":
        records = infer("--num", 5, "--seed", 3, "--output", "made")
        (answer,) = predictions(client, "?num=5", json={"inputs": [3]})
        assert [image["label"] for image in answer["images"]] == [record["label"] for record in records]
        for image, record in zip(answer["images"], records, strict=True):
            assert np.abs(pixels(image["image"]) - pixels(Path(record["path"]).read_bytes())).max() <= 1
        (again,) = predictions(client, json={"inputs": [answer["images"][0]["noise"]]})
        assert len(again["images"]) == 1
    elif kind == "table":
        records = infer(*inputs)
        content = Path(str(inputs[0])).read_bytes()
        for request in ({"content": content, "headers": {"Content-Type": "text/csv"}}, {"files": [("input", content)]}):
            (answer,) = predictions(client, **request)
            assert_alike(answer["rows"], records)
    elif kind == "text":
        records = infer(*inputs)[:40]
        answers = predictions(client, "?top=3", json={"inputs": [record["text"] for record in records]})
        for answer, record in zip(answers, records, strict=True):
            assert_alike(answer["probabilities"], record["probabilities"])
            assert len(answer["words"]) == len(record["words"])
    else:
        extra = contract.infer.replace("--json", "").split()
        records = infer(*inputs, *extra)
        files = [("input", Path(record.pop("path")).read_bytes()) for record in records]
        query = "?top=3" if "top" in records[0] else ""
        answers = predictions(client, query, files=files)
        for answer, record in zip(answers, records, strict=True):
            if "output" in record:
                assert np.abs(pixels(answer["image"]) - pixels(Path(record["output"]).read_bytes())).max() <= 1
            else:
                assert_alike(answer, record)


def predictions(client: TestClient, query: str = "", **request: Any) -> list[dict[str, Any]]:
    """The predictions for a request, which has to be answered."""
    response = client.post(f"/predict{query}", **request)
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["predictions"]
    return answers


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all projects."""
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


def test_the_page_of_a_server_shows_its_answer(
    client: TestClient, browser: Browser, project: str, contract: Contract, tmp_path: Path
) -> None:
    kind = module(project, "serve").SERVICE.kind
    inputs = contract.write_inputs(tmp_path)
    with hosted(client.app) as address:
        browser.open(address)
        assert browser.wait_for("ready", "done", "failed") != "failed"
        if kind in ("image", "table"):
            path = Path(str(inputs[0]))
            file = path if path.is_file() else next(each for each in sorted(path.rglob("*")) if each.is_file())
            browser.choose_file("input[type=file]", file)
        elif kind == "text":
            browser.run("document.querySelector('#controls button').click()")  # the example
        assert browser.wait_for("done", "failed") == "done", browser.run("return document.body.innerText")
        shown = browser.run("return decodeURIComponent(document.querySelector('#json').href.split(',')[1])")
        assert isinstance(json.loads(shown), dict)
        assert browser.run("return document.querySelectorAll('#answer *').length") > 3
        assert not browser.complaints()


@contextmanager
def hosted(app: Any) -> Iterator[str]:
    """A server of an application whose lifespan another runs; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("name", PROJECTS)
def test_a_server_needs_no_torch_training_or_export(name: str) -> None:
    for path in everything_behind([ROOT / "projects" / name / "serve.py"]):
        assert not {each.split(".")[0] for each in imports(path)} & NOT_IN_INFERENCE, name_of(path)
        assert path.name not in ("train.py", "export.py", "model.py")


def test_the_packages_for_serving_are_those_that_servers_import_with_the_bounds_of_pyproject() -> None:
    behind = everything_behind(ROOT / "projects" / name / "serve.py" for name in PROJECTS)
    top_level = {name for path in behind for name in imported_at_once(path)} - {*ROOMS, *sys.stdlib_module_names}
    needed = {NAMES.get(name, name) for name in (top_level | IMPORTED_LATER) - COME_WITH_FASTAPI}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    serve = project["optional-dependencies"]["serve"]
    declared = {name_in(line): line for line in [*project["dependencies"], *serve]}
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    assert {name_in(line) for line in lines} == needed | {name_in(line) for line in serve}
    assert lines == sorted(declared[name_in(line)].partition("  #")[0] for line in lines)


def test_the_packages_for_serving_and_all_that_they_need_are_small_and_have_no_torch_among_them() -> None:
    waiting = [name_in(line) for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    found: dict[str, int] = {}
    while waiting:
        name = waiting.pop().lower()
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another system or Python
        paths = [Path(str(file.locate())) for file in package.files or ()]
        found[name] = sum(path.stat().st_size for path in paths if path.is_file())
        needs = [line for line in package.requires or () if "extra ==" not in line.replace("'", '"')]
        waiting += [name_in(line) for line in needs]
    assert {"fastapi", "starlette", "onnxruntime"} <= set(found)
    assert "torch" not in found
    assert sum(found.values()) < MAX_BYTES


def imported_at_once(path: Path) -> Iterator[str]:
    """The packages that a file imports when it is imported itself."""
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]


def name_in(requirement: str) -> str:
    """The package of a line such as numpy>=1.26."""
    return re.split(r"[^\w.-]", requirement)[0]
