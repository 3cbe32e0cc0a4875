"""A sender of OTLP over HTTP that never sends a span twice, and remembers what became of each.

Run by `tests.chaos.child`. Span ids count from 1. Requests hold 1 to 100 spans; a trace has several, in one request or
spread over up to three. On each connection up to three requests are under way at once. It outlives the agent: a
connection that breaks is opened again until somebody listens. What each span came to:

* `ACKED`: its request was answered 200, without a partial success. The agent answers for it from now on.
* `REFUSED`: it was answered with something else. The agent knows nothing of it.
* `UNKNOWN`: it was sent, and the connection broke before the answer. The agent may have it, or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from tests.chaos.child import obey, settings

UNSENT, UNKNOWN, REFUSED, ACKED = range(4)

CONNECTIONS = 8
DEPTH = 3
"""Requests under way on one connection, at most."""
RECONNECT_SECONDS = 0.02
REFUSED_SECONDS = 0.05
"""How long a connection rests after a refusal. The agent says 1 s or more; here it shall be tried harder."""
PATIENCE = 15.0
"""Seconds after which a request that was taken and not answered is given up."""
SIZES = ((1, 1), (1, 10), (10, 100))
"""Spans a request, from and to; one of these ranges each time."""
OPEN_TRACES = 16
HEAD = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n"


class Service:
    """Makes requests. Each takes its spans from one to three of the traces that are open."""

    def __init__(self, name: str, chance: random.Random, status: Status) -> None:
        self.chance = chance
        self.status = status
        self.open: list[bytes] = []
        self.resource = ResourceSpans()
        self.resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=name)))

    def request(self, ids: range, name: str) -> bytes:
        """Return a request with spans of these ids."""
        resource = ResourceSpans()
        resource.CopyFrom(self.resource)
        spans = resource.scope_spans.add().spans
        traces = [self._trace() for _ in range(self.chance.randint(1, 3))]
        now = time.time_ns()
        for span_id in ids:
            spans.append(
                Span(
                    trace_id=self.chance.choice(traces),
                    span_id=span_id.to_bytes(8),
                    parent_span_id=b"\xff" * 8 if self.chance.random() < 0.9 else b"",
                    name=name,
                    start_time_unix_nano=now,
                    end_time_unix_nano=now + 1_000_000,
                    status=self.status,
                    attributes=[KeyValue(key="db.query.summary", value=AnyValue(string_value="SELECT wp_posts"))],
                )
            )
        return ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()

    def _trace(self) -> bytes:
        """Return a trace that is open, or open one."""
        if len(self.open) < OPEN_TRACES or self.chance.random() < 0.4:
            self.open.append(self.chance.randbytes(16))
            del self.open[:-OPEN_TRACES]
        return self.chance.choice(self.open)


class Load:
    """Sends `rate` requests a second, or as many as are answered, and remembers."""

    def __init__(
        self, *, port: int, seed: int, rate: float, poison: int = 0, probes: int = 0, connections: int = CONNECTIONS
    ) -> None:
        """One of `poison` requests holds a span that the backend finds malformed, one of `probes` is a health check."""
        self.port = port
        chance = self.chance = random.Random(seed)
        self.poison = poison
        self.probes = probes
        self.shop = Service("shop", chance, Status(code=Status.STATUS_CODE_ERROR))
        self.probe = Service("probe", chance, Status())
        self.probing = bytearray()
        """For each span, whether it belongs to a health check."""
        self.next_id = 1
        self.rate = rate
        self.connections = connections
        self.state = bytearray(65536)
        self.acked_at = array("d")
        self.began = time.monotonic()
        self.statuses: Counter[str] = Counter()
        self.sent = self.acked = 0
        self.rounds = 0
        """Connections that send, or wait for answers."""
        self.going = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self.tasks = [asyncio.create_task(self._connect()) for _ in range(self.connections)]

    def next_request(self) -> tuple[range, bytes]:
        """Return span ids and the request that holds them."""
        chance = self.chance
        size = chance.randint(*chance.choice(SIZES))
        ids = range(self.next_id, self.next_id + size)
        self.next_id += size
        probing = bool(self.probes) and chance.randrange(self.probes) == 0
        self.probing.extend(bytes(ids.start - len(self.probing)) + bytes([probing]) * size)
        if probing:
            return ids, self.probe.request(ids, "GET /healthz")
        poisoned = self.poison and chance.randrange(self.poison) == 0
        return ids, self.shop.request(ids, "poison" if poisoned else "wpdb.query SELECT")

    async def _connect(self) -> None:
        while True:
            await self.going.wait()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                while self.going.is_set():
                    self.rounds += 1
                    try:
                        await self._round(reader, writer)
                    finally:
                        self.rounds -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _round(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send a few requests, then read their answers."""
        depth = self.chance.randint(1, DEPTH)
        pause = asyncio.create_task(asyncio.sleep(depth * self.connections / self.rate))
        under_way = []
        for _ in range(depth):
            ids, body = self.next_request()
            under_way.append(ids)
            self._note(ids, UNKNOWN)
            self.sent += len(ids)
            writer.write(HEAD % len(body) + body)
        try:
            for ids in under_way:
                async with asyncio.timeout(PATIENCE):
                    status, body = await _read(reader)
                taken = status == 200 and not body  # an empty response: nothing was rejected
                self.statuses[f"{status}" if taken or status != 200 else "partial"] += 1
                self._note(ids, ACKED if taken else REFUSED)
                if not taken:
                    await asyncio.sleep(REFUSED_SECONDS)
        except (OSError, asyncio.IncompleteReadError):
            self.statuses["connection lost"] += 1
            raise
        except TimeoutError:
            self.statuses["no answer"] += 1
            raise
        finally:
            await pause

    def _note(self, ids: range, state: int) -> None:
        if ids.stop > len(self.state):
            self.state.extend(bytes(ids.stop - len(self.state) + 65536))
        for span in ids:
            self.state[span] = state
        if state == ACKED:
            self.acked += len(ids)
            self.acked_at.extend((ids.start, ids.stop, time.monotonic() - self.began))

    # -- what the test asks

    async def go(self, rate: float | None = None) -> None:
        """Send, from now on, at `rate` if one is given."""
        self.rate = rate or self.rate
        self.going.set()

    async def rest(self) -> dict[str, Any]:
        """Send nothing new, wait for the answers to what was sent; return the sums."""
        self.going.clear()
        while self.rounds:
            await asyncio.sleep(0.01)
        return await self.counts()

    async def counts(self) -> dict[str, Any]:
        """Return the sums so far, in spans; `statuses` in requests."""
        return {
            "sent": self.sent,
            "acked": self.acked,
            "statuses": self.statuses,
            "seconds": time.monotonic() - self.began,
        }

    async def write(self, folder: str) -> None:
        """Write what became of each span, and when it was acknowledged, to files."""
        (Path(folder) / "state").write_bytes(self.state)
        (Path(folder) / "probing").write_bytes(self.probing)
        (Path(folder) / "acked_at").write_bytes(self.acked_at.tobytes())


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return int(head[9:12]), await reader.readexactly(length)


async def main() -> None:
    """Send when told to, until the test is done."""
    load = Load(**settings())
    load.start()
    await obey({"go": load.go, "rest": load.rest, "counts": load.counts, "write": load.write})
    for task in load.tasks:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(main())
