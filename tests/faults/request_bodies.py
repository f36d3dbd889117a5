"""Bodies of requests to a server: an application that is called in this process, without a socket, for each kind."""

import asyncio
import base64
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from core.errors import UserError
from core.serving.limits import ServeOptions
from core.serving.model_files import named_files
from core.serving.service import Kind, Service
from tests.core.doubling import Options, load
from tests.core.test_inference import METADATA, model

_BOUNDARY, _JSON = "boundary", "application/json"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"


def post(app: Any, media_type: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a request to predict. The application is begun before and ended after it."""
    status, parts, messages = 0, [], [{"type": "http.request", "body": body, "more_body": False}]
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/predict",
        "raw_path": b"/predict",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    async def call() -> None:
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(call())
    return status, b"".join(parts)


def check_answer(status: int, body: bytes) -> None:
    """Raises UserError for a refusal in its one form, and ValueError for what is neither that nor an answer."""
    answer = json.loads(body)
    if 400 <= status < 500 and set(answer) == {"error"} and set(answer["error"]) == {"status", "code", "message"}:
        raise UserError(answer["error"]["code"], "the body", answer["error"]["message"])
    if status != 200 or not isinstance(answer["predictions"], list):
        raise ValueError(f"status {status}: {body[:200]!r}")


def _read(kind: Kind, media_type: str) -> Callable[[Path], object]:
    """What answers the body in a folder."""

    def read(folder: Path) -> None:
        from core.serving.app import make_app

        service: Service[Any, Any, Options] = Service(
            kind=kind,
            options=Options,
            load=load,
            predict=lambda _, asked: [{"y": 0.0} for _ in asked],
            batch_key=lambda _: None,
        )
        path = folder / "a.onnx"
        path.write_bytes(model(METADATA))
        limits = ServeOptions(workers=1, reload_seconds=0, max_pixels=1_000_000)
        app = make_app(service, named_files([str(path)], lambda path: load(path, 1)), limits, {})
        check_answer(*post(app, media_type, (folder / "body").read_bytes()))

    return read


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 10, 30)).save(file, "PNG")
    return file.getvalue()


def _form() -> bytes:
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="input"; filename="a.png"\r\n\r\n'.encode()
    return b"".join([part + _png() + b"\r\n"] * 2) + f"--{_BOUNDARY}--\r\n".encode()


def _inputs(*inputs: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({"inputs": inputs}).encode()


def _base64() -> bytes:
    text = base64.b64encode(_png()).decode()
    return _inputs(text, f"data:image/png;base64,{text}")()


_COLUMNS, _ROWS = {"date": ["2024-01-01", "2024-01-02"], "a": [1, 2.5]}, [{"date": "2024-01-01", "a": 1.5}]
# What each body is of: the kind of its inputs, its media type, and a whole one.
_BODIES: dict[str, tuple[Kind, str, Callable[[], bytes]]] = {
    "form of images": ("image", _FORM, _form),
    "bare image": ("image", "image/png", _png),
    "images in base64": ("image", _JSON, _base64),
    "texts": ("text", _JSON, _inputs("a fine film", "caf\u00e9 \u2603")),
    "tables": ("table", _JSON, _inputs(_COLUMNS, _ROWS, "date,a\n2024-01-01,1\n")),
    "seeds": ("seeds", _JSON, _inputs(7, 2**40, [0.5, -1, 2e-3])),
}


def _write(make: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / "body").write_bytes(make())


# As the formats of projects: what makes a whole file, its name, and what reads it. None without the extra `serve`.
BODIES = {
    f"request: {name}": (_write(make), "body", _read(kind, media_type))
    for name, (kind, media_type, make) in _BODIES.items()
    if importlib.util.find_spec("fastapi") is not None
}
