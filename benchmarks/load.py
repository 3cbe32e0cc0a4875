"""Load generator: `python load.py` reads orders from stdin (one JSON line each), executes them, and prints the results.

An order has `protocol` (http or grpc), `port`, `spans`, and a limit: `requests` or `seconds`, whichever is reached
first. Closed loop: each connection sends its next request when the last one has been answered. Bodies and request heads
are built before the clock starts, so that this process costs less than the measured one; if an order has `traces`,
trace ids are set when a request is sent.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import re
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import fresh
import grpc
import grpc.aio
import uvloop
import workload

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 64
"""Number of HTTP connections, or of concurrent gRPC calls."""

BACK_OFF = 0.05
"""Seconds before a retry after a refusal for lack of capacity: without a wait, the load would consist of refusals. Real
senders wait longer."""

CHANNELS = 8
"""Number of gRPC connections for the calls."""

NICE = 5
"""Nice value of the load, so that it does not slow the sink on a shared core, which would slow the collector."""

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_HEAD = (
    b"POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Order:
    """Description of a load and its limit."""

    protocol: str
    port: int
    spans: int
    requests: int
    seconds: float
    patience: float = 10.0
    """Seconds to wait for answers after the limit."""
    rest: float = 0.0
    """Seconds that an HTTP connection waits after each answer."""
    traces: str = ""
    """Name of a load in `fresh`, over HTTP, to send instead of spans that are always the same."""
    token: str = ""
    """Bearer token to send with each request, if any."""


@dataclass
class Result:
    """Result of an order: the number of requests by status, within `seconds`."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("f"))
    """Seconds to each HTTP answer."""
    errors: int = 0
    """Number of sent spans with an error, for a load in `fresh`."""

    def quantile(self, share: float) -> float:
        """Return a quantile of the latencies, in ms; 0 if there are none."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3 if ordered else 0.0


class Budget:
    """Allows requests until the limit of an order is reached."""

    def __init__(self, order: Order) -> None:
        """Start the clock."""
        self.left = order.requests
        self.end = time.monotonic() + order.seconds

    def take(self) -> bool:
        """Count a request; return whether it may be sent."""
        if self.left <= 0 or time.monotonic() >= self.end:
            return False
        self.left -= 1
        return True


class HttpConnection(asyncio.Protocol):
    """One keep-alive connection that sends prepared requests, one after the other."""

    def __init__(self, requests: Iterator[bytes], budget: Budget, result: Result, rest: float) -> None:
        """Send `requests` until `budget` is used up; wait `rest` seconds after each answer."""
        self.requests = requests
        self.budget = budget
        self.result = result
        self.rest = rest
        self.sent = 0.0
        self.buffer = b""
        self.whole: set[bytes] = set()
        self.waiting = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Send the next request, or finish."""
        self.waiting = self.budget.take()
        if self.waiting:
            self.sent = time.perf_counter()
            self.transport.write(next(self.requests))
        else:
            self.finish()

    def finish(self) -> None:
        """Close."""
        self.transport.close()
        if not self.done.done():
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse a response; identical responses are parsed once."""
        if self.buffer:
            data = self.buffer + data
        if data not in self.whole:
            head, separator, body = data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if not separator or len(body) < (int(length[1]) if length else 0):
                self.buffer = data
                return
            self.whole = {data}
        self.buffer = b""
        status = data[9:12].decode()
        self.result.statuses[status] += 1
        self.result.latencies.append(time.perf_counter() - self.sent)
        pause = BACK_OFF if status in ("429", "503") else self.rest
        if pause:
            self.waiting = False
            asyncio.get_running_loop().call_later(pause, self.send)
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a request without an answer."""
        del exc
        if self.waiting:
            self.result.statuses["connection lost"] += 1
        self.finish()


@functools.lru_cache(maxsize=8)
def http_requests(spans: int, token: str = "") -> list[bytes]:
    """Return complete HTTP requests, head and body, with a bearer token if there is one."""
    head = _HEAD
    if token:
        head = head.removesuffix(b"\r\n") + b"authorization: Bearer " + token.encode() + b"\r\n\r\n"
    return [head % len(body) + body for body in workload.bodies(spans)]


def fresh_requests(bodies: Iterator[tuple[bytes, int]], result: Result) -> Iterator[bytes]:
    """Yield complete HTTP requests, and count the errors in them."""
    for body, errors in bodies:
        result.errors += errors
        yield _HEAD % len(body) + body


async def load_http(order: Order) -> Result:
    """Execute an order over HTTP."""
    loop = asyncio.get_running_loop()
    result = Result()
    if order.traces:
        requests = fresh_requests(fresh.stream(order.traces), result)
    else:
        requests = itertools.cycle(http_requests(order.spans, order.token))
    budget = Budget(order)

    def connection() -> HttpConnection:
        return HttpConnection(requests, budget, result, order.rest)

    protocols = [(await loop.create_connection(connection, "127.0.0.1", order.port))[1] for _ in range(CONNECTIONS)]
    started = time.monotonic()
    for place, protocol in enumerate(protocols):
        if order.rest:  # start connections evenly spread over `rest`
            loop.call_later(order.rest * place / CONNECTIONS, protocol.send)
        else:
            protocol.send()
    done, pending = await asyncio.wait(
        [protocol.done for protocol in protocols], timeout=order.seconds + order.patience
    )
    del done
    result.statuses["no answer"] += len(pending)
    for protocol in protocols:
        protocol.waiting = False
        protocol.finish()
    result.seconds = time.monotonic() - started
    return result


@functools.lru_cache(maxsize=8)
def grpc_messages(spans: int) -> list[bytes]:
    """Return serialized messages."""
    return workload.bodies(spans)


async def load_grpc(order: Order) -> Result:
    """Execute an order over gRPC."""
    messages = itertools.cycle(grpc_messages(order.spans))
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{order.port}", options=options) for _ in range(CHANNELS)]
    await asyncio.gather(*[channel.channel_ready() for channel in channels])
    result = Result()
    budget = Budget(order)
    metadata = [("authorization", f"Bearer {order.token}")] if order.token else None

    async def caller(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        while budget.take():
            try:
                await call(next(messages), timeout=order.patience, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                result.statuses[error.code().name] += 1
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    await asyncio.sleep(BACK_OFF)
            else:
                result.statuses["OK"] += 1

    started = time.monotonic()
    await asyncio.gather(*[caller(channels[index % CHANNELS]) for index in range(CONNECTIONS)])
    result.seconds = time.monotonic() - started
    for channel in channels:
        await channel.close(None)
    return result


async def main() -> None:
    """Execute orders until stdin ends."""
    os.nice(NICE)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = Order(**json.loads(line))
        result = await (load_http(order) if order.protocol == "http" else load_grpc(order))
        answer = {"statuses": result.statuses, "seconds": result.seconds, "errors": result.errors}
        answer |= {"p50_ms": result.quantile(0.5), "p99_ms": result.quantile(0.99)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
