"""A request from its body to its answer: inputs are read by one set of threads and computed in batches by another.

Threads are enough, processes are not needed: onnxruntime and Pillow compute without holding Python's lock.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from core.errors import RunError, UserError, printable
from core.serving.batching import Batcher
from core.serving.inputs import BARE_TYPES, JSON, MULTIPART, Raw, raws_of_json, read_inputs
from core.serving.limits import Admission, Held, Refused, ServeOptions
from core.serving.metrics import Metrics
from core.serving.model_files import Loaded, ModelFiles
from core.serving.query import query_reader
from core.serving.service import Asked, Service

_PREDICT = re.compile("/(?:models/([^/]+)/)?predict")
_SMALL_BODY_BYTES = 1 << 16


class Server:
    """A service with its files, its limits, its threads and its numbers."""

    def __init__(self, service: Service[Any, Any, Any], files: ModelFiles[Any], limits: ServeOptions) -> None:
        self.service, self.files, self.limits = service, files, limits
        self.admission = Admission(limits)
        self.metrics = Metrics(lambda: self._batcher.num_waiting, lambda: self.admission.num_requests)
        files.observe = self.metrics.reload
        self._options = query_reader(service.options)
        # Small bodies are read by one thread, of which more would only wait for each other and keep the model waiting.
        self._small_reader = ThreadPoolExecutor(1, thread_name_prefix="read-small")
        self._large_readers = ThreadPoolExecutor(limits.workers, thread_name_prefix="read")
        self._batcher = Batcher(
            lambda loaded, asked: service.predict(loaded.model, asked),
            workers=limits.workers,
            window_seconds=limits.window_ms / 1000,
            largest=limits.largest_batch,
            num_coming=lambda: self.admission.num_requests - self._batcher.num_requests,
            observe=self.metrics.batch,
        )

    def stop(self) -> None:
        """Ends the threads after what is waiting has been computed."""
        for readers in (self._small_reader, self._large_readers):
            readers.shutdown(wait=False, cancel_futures=True)
        self._batcher.stop(self.limits.time_limit)

    async def answer(self, request: Request) -> Response | None:
        """Answers a request to predict with the file as it is now, even if it is replaced meanwhile; None for another
        path. Raises Refused."""
        path = _PREDICT.fullmatch(request.scope["path"])
        if path is None:
            return None
        file = self.files.first if path[1] is None else self.files.named(path[1])
        loaded, options, held = file.loaded, self._options(request.query_params), request.scope["held"]
        read = await self._reader(request)
        future: Future[list[Any]] = Future()
        readers = self._small_reader if held.num_bytes <= _SMALL_BODY_BYTES else self._large_readers
        readers.submit(self._begin, loaded, read, options, held, future)
        try:
            records = await asyncio.wrap_future(future)
        except Refused:
            raise
        except (UserError, RunError) as error:
            raise Refused(422, "unusable_input", str(error)) from error
        except Exception as error:
            print(printable(f"failed: {type(error).__name__}: {error}"), file=sys.stderr, flush=True)
            raise Refused(500, "failed", "the model failed on this input") from error
        answer = {"model": file.name, "predictions": records}
        return Response(json.dumps(answer, allow_nan=False), media_type=JSON)

    def _begin(
        self, loaded: Loaded[Any], read: Callable[[], list[Raw]], options: Any, held: Held, future: "Future[list[Any]]"
    ) -> None:
        """Reads a request's inputs and submits them; the future gets the records, or why there are none."""
        try:
            inputs = read_inputs(self.service, loaded.model, read(), self.limits, held)
            asked = [Asked(each, options) for each in inputs]
            self._batcher.submit(loaded, [(self.service.batch_key(each), each) for each in asked], future)
        except Exception as error:
            with suppress(InvalidStateError):  # the request may have been given up
                future.set_exception(error)

    async def _reader(self, request: Request) -> Callable[[], list[Raw]]:
        """Takes the body; returns what gives its inputs. Raises Refused."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == MULTIPART:
            parts = await self._parts(request)
            return lambda: parts
        body = await request.body()
        if media_type == JSON:
            return lambda: raws_of_json(body)
        bare = BARE_TYPES[self.service.kind]
        if media_type.startswith(bare):
            return lambda: [body] if body else []
        known = ", ".join([MULTIPART, JSON, *bare])
        raise Refused(415, "unknown_type", f"a body of the type {media_type or '(none)'}; known are {known}")

    async def _parts(self, request: Request) -> list[Raw]:
        """The files and fields of a form. Raises Refused."""
        if not (await request.body()).rstrip().endswith(b"--"):  # the parser would drop a part that is cut off
            raise Refused(400, "wrong_form", "the form does not end with its boundary")
        most = self.limits.max_inputs
        try:
            async with request.form(max_files=most, max_fields=most) as form:
                return [each if isinstance(each, str) else await each.read() for _, each in form.multi_items()]
        except HTTPException as error:  # Starlette's, for a form that is broken or has too many parts
            raise Refused(400, "wrong_form", str(error.detail)) from error
