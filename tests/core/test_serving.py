"""A server answers what it can, refuses the rest in one form, and goes on; it stops with every request answered."""

import base64
import io
import json
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import UserError
from core.serving.limits import ServeOptions
from core.serving.model_files import named_files
from core.serving.program import page_files, parse_serving, serve
from core.serving.service import Kind
from tests.conftest import ROOT
from tests.core.doubling import SLOW_SECONDS, Config, load, service
from tests.core.test_inference import METADATA, model

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
from fastapi.testclient import TestClient

from core.serving.app import Refusal, make_app

Start = Callable[..., TestClient]
LIMITS = ServeOptions(
    workers=2, max_body_mb=0.1, max_inputs=4, max_pixels=10_000, max_characters=50, reload_seconds=0.02, time_limit=5
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with the files a.onnx and b.onnx in this test's folder."""
    with ExitStack() as stack:

        def started(kind: Kind = "text", limits: ServeOptions = LIMITS) -> TestClient:
            for name in ("a", "b"):
                (tmp_path / f"{name}.onnx").write_bytes(model(METADATA))
            files = named_files([f"{tmp_path}/{name}.onnx" for name in ("a", "b")], lambda path: load(path, 1))
            page = page_files(Path(__file__).parent)
            return stack.enter_context(TestClient(make_app(service(kind), files, limits, page)))

        yield started


def assert_refused(response: Any, status: int, code: str, words: str = "") -> None:
    """The one form of all refusals."""
    assert response.status_code == status, response.text
    error = Refusal.model_validate(response.json(), strict=True).error
    assert (error.status, error.code) == (status, code)
    assert words in error.message
    assert "secret" not in response.text


def png(side: int = 8, color: int = 10) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (color,) * 3).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 30,000×30,000 pixels in a few hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9000))) + chunk(b"IEND", b"")
    )


def test_images_come_as_files_of_a_form_base64_or_a_bare_body(start: Start) -> None:
    client, content = start("image"), png()
    text = base64.b64encode(content).decode()
    urls = [text, f"data:image/png;base64,{text}"]
    answers = [
        client.post("/predict", files=[("input", content), ("input", content)]),
        client.post("/predict", json={"inputs": urls}),
    ]
    for answer in answers:
        assert answer.json() == {"model": "a", "predictions": [{"y": 20.0}, {"y": 20.0}]}
    bare = client.post("/models/b/predict?times=2", content=content, headers={"Content-Type": "image/png"})
    assert bare.json() == {"model": "b", "predictions": [{"y": 40.0}]}


class Ran:
    """What pickle would make of this leaves a file behind."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "bomb": bomb(),
    "too many pixels": png(101),
    "truncated": png()[:45],
    "pickle": pickle.dumps(Ran()),
    "text": b"GIF89a" + b"no image",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_costs_a_refusal_and_nothing_else(
    name: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client, content = start("image"), HOSTILE[name]
    code = "no_input" if name == "empty" else "unusable_input"
    bare = client.post("/predict", content=content, headers={"Content-Type": "image/png"})
    assert_refused(bare, 422, code, "" if name == "empty" else "input 1")
    both = client.post("/predict", files=[("input", png()), ("input", ("x.png", content, "image/png"))])
    assert_refused(both, 422, "unusable_input", "input 2")
    coded = client.post("/predict", json={"inputs": [base64.b64encode(content).decode()]})
    assert_refused(coded, 422, "unusable_input", "input 1")
    assert client.post("/predict", files=[("input", png())]).json()["predictions"] == [{"y": 20.0}]
    assert not Path("ran").exists()


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
FORM_CUT_OFF = b'--b\r\nContent-Disposition: form-data; name="input"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-da'
WRONG: dict[str, tuple[int, str, dict[str, Any]]] = {
    "no JSON": (400, "not_json", {"content": b"{", "headers": JSON}),
    "deep JSON": (400, "not_json", {"content": b"[" * 60_000, "headers": JSON}),
    "a key twice": (400, "not_json", {"content": b'{"inputs": ["1"], "inputs": ["2"]}', "headers": JSON}),
    "not UTF-8": (400, "not_json", {"content": b'{"inputs": ["\xff"]}', "headers": JSON}),
    "NaN": (400, "not_json", {"content": b'{"inputs": [NaN]}', "headers": JSON}),
    "a long number": (400, "not_json", {"content": b'{"inputs": [' + b"9" * 9_000 + b"]}", "headers": JSON}),
    "no inputs": (422, "no_input", {"json": {"inputs": []}}),
    "another key": (422, "wrong_body", {"json": {"inputs": ["1"], "times": 2}}),
    "no list": (422, "wrong_body", {"json": {"inputs": "1"}}),
    "a number": (422, "unusable_input", {"json": {"inputs": ["1", 2]}}),
    "a surrogate": (422, "unusable_input", {"content": b'{"inputs": ["\\ud800"]}', "headers": JSON}),
    "an empty text": (422, "unusable_input", {"json": {"inputs": [" \n"]}}),
    "refused by the project": (422, "unusable_input", {"json": {"inputs": ["odd"]}}),
    "too long a text": (413, "text_too_long", {"json": {"inputs": ["1" * 51]}}),
    "too many inputs": (413, "too_many_inputs", {"json": {"inputs": ["1"] * 5}}),
    "too many parts": (400, "wrong_form", {"files": [("input", b"1")] * 5}),
    "a form cut off": (400, "wrong_form", {"content": FORM_CUT_OFF, "headers": FORM}),
    "a broken form": (400, "wrong_form", {"content": b"--b\r\nno header\r\n--b--", "headers": FORM}),
    "no boundary": (400, "wrong_form", {"content": b"1", "headers": {"Content-Type": "multipart/form-data"}}),
    "unknown type": (415, "unknown_type", {"content": b"1", "headers": {"Content-Type": "application/xml"}}),
    "no type": (415, "unknown_type", {"content": b"1"}),
    "too large": (413, "body_too_large", {"content": b"1" * 200_000, "headers": {"Content-Type": "text/plain"}}),
    "too large, in pieces": (413, "body_too_large", {"content": iter([b"1" * 60_000] * 4), "headers": JSON}),
    "unknown option": (422, "wrong_option", {"json": {"inputs": ["1"]}, "params": {"time": 2}}),
    "out of range": (422, "wrong_option", {"json": {"inputs": ["1"]}, "params": {"times": 11}}),
    "not finite": (422, "wrong_option", {"json": {"inputs": ["1"]}, "params": {"times": "nan"}}),
    "the model fails": (500, "failed", {"json": {"inputs": ["bad"]}}),
}


def test_every_refusal_has_one_form_and_the_server_goes_on(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    client = start()
    for name, (status, code, request) in WRONG.items():
        response = client.post("/predict", **request)
        try:
            assert_refused(response, status, code)
        except AssertionError as error:
            raise AssertionError(name) from error
    assert_refused(client.post("/models/c/predict", json={"inputs": ["1"]}), 404, "no_such_model", "a, b")
    assert_refused(client.get("/models/c/model"), 404, "no_such_model")
    assert_refused(client.get("/nowhere"), 404, "no_such_path")
    assert_refused(client.get("/predict"), 405, "refused")
    assert client.post("/predict", json={"inputs": ["1", "22"]}).json()["predictions"] == [{"y": 2.0}, {"y": 44.0}]
    assert capsys.readouterr().err.splitlines() == ["failed: RuntimeError: secret"]
    text = client.get("/metrics").text
    assert 'requests_total{status="413"} 4.0' in text
    assert "requests_in_flight 0.0" in text
    assert "inputs_waiting 0.0" in text


def test_numbers_that_floating_point_does_not_have_are_refused(start: Start) -> None:
    client = start("seeds")
    for number in (b"9" * 400, b"-1e999"):
        answer = client.post("/predict", content=b'{"inputs": [[1, ' + number + b"]]}", headers=JSON)
        assert_refused(answer, 422, "unusable_input", "input 1")


def test_what_a_server_says_of_itself(start: Start) -> None:
    client = start()
    described = client.get("/models/b/model").json()
    assert (described["name"], described["kind"], described["task"]) == ("b", "text", "doubling")
    assert described["facts"] == {"classes": ["ä", "b"], "threshold": 0.5}
    assert client.get("/models").json() == {"models": ["a", "b"]}
    assert client.get("/health").json()["status"] == "ok"
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/model", "/models/{name}/predict", "/health", "/metrics"} <= set(paths)
    post = paths["/predict"]["post"]
    assert {"application/json", "multipart/form-data", "text/plain"} == set(post["requestBody"]["content"])
    times = next(each for each in post["parameters"] if each["name"] == "times")
    assert (times["schema"]["minimum"], times["schema"]["maximum"], times["schema"]["default"]) == (0, 10, 1)
    page = client.get("/")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert client.get("/models/b/answer.js").status_code == 200


def test_too_many_and_too_slow_requests_are_refused_while_health_answers(start: Start) -> None:
    limits = ServeOptions(workers=1, max_requests=2, time_limit=SLOW_SECONDS * 0.75, reload_seconds=0)
    client = start(limits=limits)
    ask = partial(client.post, "/predict", json={"inputs": ["slow"]})
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(), range(4)))
        busy = pool.submit(ask)
        time.sleep(0.05)
        assert client.get("/health").status_code == 200
    codes = [answer.json()["error"]["code"] for answer in answers]
    assert sorted(codes) == ["busy", "busy", "too_late", "too_late"]
    assert_refused(busy.result(), 504, "too_late")
    time.sleep(SLOW_SECONDS)
    assert client.post("/predict", json={"inputs": ["1"]}).status_code == 200


def test_memory_of_all_requests_together_is_bounded(start: Start) -> None:
    client = start("image", ServeOptions(workers=1, max_memory_mb=1, reload_seconds=0))
    for _ in range(3):  # what is refused is given back
        assert_refused(client.post("/predict", files=[("input", png(500))] * 2), 503, "busy", "memory")
    assert client.post("/predict", files=[("input", png(500))]).status_code == 200


def test_no_request_is_lost_or_wrong_while_files_are_replaced(start: Start, tmp_path: Path) -> None:
    client = start()
    content, results, ended = model(METADATA), [], threading.Event()

    def ask(number: int) -> None:
        while not ended.is_set():
            answer = client.post("/predict", json={"inputs": [str(number)]})
            results.append(answer.status_code == 200 and answer.json()["predictions"] == [{"y": 2.0 * number}])

    def since() -> dict[str, Any]:
        health: dict[str, Any] = client.get("/health").json()
        return {"status": health["status"], **health["models"]["a"]}

    def put(data: bytes) -> None:
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").replace(tmp_path / "a.onnx")

    def wait_for(state: str) -> None:
        until = time.monotonic() + 10
        while since()["status"] != state:
            assert time.monotonic() < until
            time.sleep(0.01)

    with ThreadPoolExecutor(3) as pool:
        for number in range(3):
            pool.submit(ask, number)
        for round_number in range(3):
            put(content[: len(content) // 2])
            wait_for("degraded")
            assert "a.onnx" in since()["error"]
            put(model({**METADATA, "round": str(round_number)}))
            wait_for("ok")
        ended.set()
    assert len(results) > 10
    assert all(results)
    assert client.get("/model").json()["round"] == 2
    assert 'reloads_total{model="a",outcome="served"} 3.0' in client.get("/metrics").text


def test_a_request_that_is_cut_off_costs_nothing_and_a_signal_ends_the_program_after_all_are_answered(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.onnx").write_bytes(model(METADATA))
    command = [sys.executable, "-m", "tests.core.doubling", str(tmp_path / "a.onnx"), "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        address = re.findall(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nslow")
        while b'requests_total{status="400"} 1.0' not in urllib.request.urlopen(f"{address}/metrics").read():
            time.sleep(0.01)
        request = urllib.request.Request(f"{address}/predict", b"slow", {"Content-Type": "text/plain"})
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(lambda: urllib.request.urlopen(request).read()) for _ in range(3)]
            while b"requests_in_flight 3.0" not in urllib.request.urlopen(f"{address}/metrics").read():
                time.sleep(0.01)
            server.terminate()
            expected = {"model": "a", "predictions": [{"y": 0.0}]}
            assert [json.loads(answer.result()) for answer in answers] == [expected] * 3
        assert server.wait(20) == 128 + signal.SIGTERM
        assert server.stderr.read() == "stopped; every request was answered\n"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(request)


def test_a_wrong_command_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(model(METADATA))
    path = str(tmp_path / "a.onnx")
    for argv in ([path, "--port", "70000"], [path, "--time-limit", "0"], [path, "--largest-batch", "0"]):
        with pytest.raises(UserError, match=argv[1]):
            parse_serving(Config, argv)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for argv in ([path, "--port", port], [path, "--host", "no.such.host.invalid", "--port", port]):
            with pytest.raises(UserError, match=port):
                serve(Config, service("text"), argv)
    with pytest.raises(UserError, match="nothing"):
        serve(Config, service("text"), [str(tmp_path / "nothing.onnx")])
