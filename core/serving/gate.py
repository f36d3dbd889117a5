"""What every request to predict passes first: limits of number, size and time, checked while the body comes in.

It is a plain ASGI application around another (https://asgi.readthedocs.io), because a body that is too large has to be
refused before it has been read. It has the requests answered as well: the other application's layers would take a third
of the time that is not the model's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.serving.limits import Admission, Held, Refused, ServeOptions


def refusal(status: int, code: str, message: str) -> JSONResponse:
    """The answer to a request that is refused, in the one form that all have."""
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": {"status": status, "code": code, "message": message}}, status, headers)


class Gate:
    """Lets requests to predict in within the limits; other requests pass, so that /health answers under any load.

    answer: gives the response of a request to predict, or None for one to another path, which `app` answers; raises
    Refused. What a request holds is in its scope as "held". observe: told the status and the seconds of each answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        answer: Callable[[Request], Awaitable[Response | None]],
        admission: Admission,
        limits: ServeOptions,
        observe: Callable[[int, float], None],
    ) -> None:
        self._app, self._answer = app, answer
        self._admission, self._limits, self._observe = admission, limits, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI call."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self._admission.request() as held:
                self._check_length(scope)
                scope["held"] = held
                async with asyncio.timeout(self._limits.time_limit):
                    counting = self._counting(receive, held)
                    response = await self._answer(Request(scope, counting)) or self._app
                    await response(scope, counting, send_noting)
        except (Refused, TimeoutError, ClientDisconnect) as error:
            if status:  # the answer has begun
                raise
            reason = error if isinstance(error, Refused) else self._too_late()
            if isinstance(error, ClientDisconnect):  # nobody is there to read the answer, but it is counted
                reason = Refused(400, "cut_off", "the connection was closed before the whole body had come")
            await refusal(reason.status, reason.code, reason.message)(scope, receive, send_noting)
        finally:
            self._observe(status or 500, time.monotonic() - began)

    def _check_length(self, scope: Scope) -> None:
        """Raises Refused for a body whose stated length is too large."""
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if stated.isdigit() and int(stated) > self._limits.max_body_bytes:
            raise self._too_large()

    def _counting(self, receive: Receive, held: Held) -> Receive:
        """receive that counts the body's bytes. Raises Refused where they are too many."""
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += (size := len(message.get("body", b"")))
            if num_bytes > self._limits.max_body_bytes:
                raise self._too_large()
            held.add(size)
            return message

        return counted

    def _too_late(self) -> Refused:
        """The refusal of a request that takes too long."""
        return Refused(504, "too_late", f"no answer within {self._limits.time_limit:g} seconds")

    def _too_large(self) -> Refused:
        """The refusal of a body."""
        return Refused(413, "body_too_large", f"the body is larger than {self._limits.max_body_bytes:,} bytes")
