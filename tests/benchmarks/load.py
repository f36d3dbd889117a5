"""A load generator for HTTP servers: keep-alive connections that send ready-made requests, and what came back.

One process of asyncio with a protocol of its own, because a client library would take more time than the server.
Closed: each connection sends its next request when it has its answer. Open: requests go out at moments drawn
beforehand (a Poisson process), whatever the server does, so that a slow answer does not hold back the next request
(Tene, "How NOT to Measure Latency").
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np


@dataclass
class Outcome:
    """What came back. latencies: seconds, in the order of the answers. wrong: numbers of requests with another answer
    than the expected one. lost: requests whose connection was closed without an answer."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[int] = field(default_factory=list)
    lost: int = 0

    def percentile(self, share: float) -> float:
        """A quantile of the latencies, in seconds."""
        return float(np.quantile(np.asarray(self.latencies), share))


@dataclass(frozen=True)
class Exchange:
    """A request as bytes, and the answer that it has to get. check: whether a body is right; None for any."""

    request: bytes
    status: int = 200
    check: Callable[[bytes], bool] | None = None


def post(path: str, body: bytes, media_type: str) -> bytes:
    """A request to predict."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {media_type}", f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._buffer, self._answer = bytearray(), asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport, self.is_open = cast(asyncio.Transport, transport), True  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) >= end + 4 + length and not self._answer.done():
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            self._buffer.clear()
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, _: Exception | None) -> None:
        """Called by asyncio."""
        self.is_open = False
        if not self._answer.done():
            self._answer.set_result(None)

    async def ask(self, request: bytes) -> tuple[int, bytes] | None:
        """Status and body of the answer; None where the connection was closed without one."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        if not self.is_open:
            return None
        self._transport.write(request)
        answer: tuple[int, bytes] | None = await self._answer
        return answer

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int) -> Connection:
    """A new connection."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


async def closed_load(host: str, port: int, exchanges: Sequence[Exchange], connections: int) -> Outcome:
    """Sends every request once, `connections` of them at a time."""
    outcome, waiting = Outcome(), deque(enumerate(exchanges))

    async def work() -> None:
        connection = await connect(host, port)
        while waiting:
            number, exchange = waiting.popleft()
            if not connection.is_open:
                connection = await connect(host, port)
            began = time.perf_counter()
            answer = await connection.ask(exchange.request)
            _note(outcome, number, exchange, answer, time.perf_counter() - began)
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def open_load(host: str, port: int, exchanges: Sequence[Exchange], rate: float, seed: int) -> Outcome:
    """Sends every request once, `rate` of them a second on average, over as many connections as it takes."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, len(exchanges))
    outcome, free = Outcome(), deque([await connect(host, port) for _ in range(8)])

    async def one(number: int, exchange: Exchange) -> None:
        connection = free.popleft() if free else await connect(host, port)
        began = time.perf_counter()
        answer = await connection.ask(exchange.request)
        _note(outcome, number, exchange, answer, time.perf_counter() - began)
        if connection.is_open:
            free.append(connection)

    began = time.perf_counter()
    tasks = []
    for number, (exchange, due) in enumerate(zip(exchanges, began + np.cumsum(gaps), strict=True)):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, exchange)))
    await asyncio.gather(*tasks)
    outcome.seconds = time.perf_counter() - began
    for connection in free:
        connection.close()
    return outcome


def _note(outcome: Outcome, number: int, exchange: Exchange, answer: tuple[int, bytes] | None, seconds: float) -> None:
    """Adds one answer."""
    if answer is None:
        outcome.lost += 1
        return
    status, body = answer
    outcome.latencies.append(seconds)
    outcome.statuses[status] += 1
    if status != exchange.status or (exchange.check is not None and not exchange.check(body)):
        outcome.wrong.append(number)
