"""The paths of a server: predict, model, health, metrics, a page for the browser, and /openapi.json, which lists them.

Every refusal is {"error": {"status", "code", "message"}}.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from core.serving.answering import Server
from core.serving.gate import Gate, refusal
from core.serving.inputs import BARE_TYPES, JSON, MULTIPART
from core.serving.limits import Refused, ServeOptions
from core.serving.metrics import CONTENT_TYPE
from core.serving.model_files import ModelFile, ModelFiles
from core.serving.query import query_model
from core.serving.service import Kind, Service

_MAX_SHOWN_CHARACTERS = 2_000  # of a text in a file's metadata
_EXAMPLES: Mapping[str, Any] = {
    "image": "iVBORw0KGgo…",
    "text": "a text",
    "table": "date,a\n2024-01-01,1\n",
    "seeds": 7,
}


class Answer(BaseModel):
    """What predict answers: one object an input, as the infer program prints it with --json."""

    model: str
    predictions: list[dict[str, Any]]


class Failure(BaseModel):
    """Why a request was refused. code: for programs; message: for people."""

    status: int
    code: str
    message: str


class Refusal(BaseModel):
    """What is answered in place of predictions."""

    error: Failure


def make_app(
    service: Service[Any, Any, Any], files: ModelFiles[Any], limits: ServeOptions, page: Mapping[str, tuple[bytes, str]]
) -> FastAPI:
    """The application. page: content and media type of the page's files by name; "" is the page itself.

    Its threads start here, and end with its lifespan.
    """
    server = Server(service, files, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        files.watch(limits.reload_seconds)
        yield
        files.stop()
        await asyncio.to_thread(server.stop)

    app = FastAPI(title="A served model", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(
        Gate, answer=server.answer, admission=server.admission, limits=limits, observe=server.metrics.request
    )
    for kind in (Refused, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)

    async def models() -> dict[str, list[str]]:
        """The names of all models."""
        return {"models": list(files.by_name)}

    async def health() -> dict[str, Any]:
        """Whether all files are served as they lie there: "ok", or "degraded" with the reason beside the file."""
        return files.health()

    async def metrics() -> Response:
        """All numbers in Prometheus' text format."""
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    app.get("/models")(models)
    app.get("/health")(health)
    app.get("/metrics", response_class=Response)(metrics)
    _add_paths(app, server)
    for name, (content, media_type) in page.items():
        response = partial(Response, content, media_type=media_type, headers={"Cache-Control": "no-cache"})
        for prefix in ("", "/models/{name}"):
            app.add_api_route(f"{prefix}/{name}", _always(response), include_in_schema=False)
    return app


def _add_paths(app: FastAPI, server: Server) -> None:
    """The paths of the first model, and those that name one."""
    service, files = server.service, server.files
    query = query_model(service.options)

    async def model() -> dict[str, Any]:
        """What the first model's file says of itself."""
        return _description(files.first, service.kind)

    async def named_model(name: str) -> dict[str, Any]:
        """What a model's file says of itself."""
        return _description(files.named(name), service.kind)

    # These two only describe what the gate answers.
    async def predict(query: Annotated[query, Query()]) -> None:  # type: ignore[valid-type]
        """Answers one or several inputs with the first model: a form's files, JSON, or a bare body."""

    async def named_predict(name: str, query: Annotated[query, Query()]) -> None:  # type: ignore[valid-type]
        """The same with a model by name."""

    responses: dict[int | str, Any] = {status: {"model": Refusal} for status in (400, 413, 415, 422, 500, 503, 504)}
    schema = {"requestBody": {"required": True, "content": _bodies(service.kind)}}
    for prefix, its_model, its_predict in (("", model, predict), ("/models/{name}", named_model, named_predict)):
        app.get(f"{prefix}/model")(its_model)
        made = app.post(f"{prefix}/predict", responses={200: {"model": Answer}, **responses}, openapi_extra=schema)
        made(its_predict)


def _description(file: ModelFile[Any], kind: Kind) -> dict[str, Any]:
    """A file's metadata, and what the server knows of it."""
    its = file.loaded
    also = {"name": file.name, "kind": kind, "sha256": its.sha256, "bytes": its.num_bytes, "since": its.since}
    return {**_shown(its.model.metadata), **also}


def _always(make: Callable[[], Response]) -> Callable[[], Coroutine[Any, Any, Response]]:
    """A path that answers the same each time."""

    async def answer() -> Response:
        return make()

    return answer


def _bodies(kind: Kind) -> dict[str, Any]:
    """The bodies that predict takes, as OpenAPI describes them."""
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"input": {"type": "array", "items": file}}}
    listed = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": {}}}}
    bare = {f"{name}*" if name.endswith("/") else name: {"schema": file} for name in BARE_TYPES[kind]}
    return {
        JSON: {"schema": listed, "example": {"inputs": [_EXAMPLES[kind]]}},
        MULTIPART: {"schema": form},
        **bare,
    }


def _shown(value: Any) -> Any:
    """Metadata for JSON: without numbers that it does not have, and without the middle of very long texts."""
    if isinstance(value, Mapping):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and len(value) > _MAX_SHOWN_CHARACTERS:
        return f"{value[:_MAX_SHOWN_CHARACTERS]}… ({len(value):,} characters)"
    return value


def _answer_error(_: Request, error: Exception) -> Response:
    """The one form of all refusals."""
    if isinstance(error, Refused):
        return refusal(error.status, error.code, error.message)
    if isinstance(error, HTTPException):
        return refusal(error.status_code, "no_such_path" if error.status_code == 404 else "refused", error.detail)
    return refusal(500, "failed", "the server failed; see its log")
