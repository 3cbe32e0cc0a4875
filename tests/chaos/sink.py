"""A backend for OTLP over HTTP that fails in every way a backend can, drawn from a seed, and remembers every span.

Run by `tests.chaos.child`. Spans are known by their ids, which count from 1 (`tests.chaos.load`). It keeps, for each:

* `acked`: how often it was taken with an answer that was written whole;
* `seen`: how often it came in at all, and whether that ended without an answer, or with one too late;
* `rejected`: whether it was among those that a partial success named (the last ones of a request, as the agent takes
  it to be), or in a request that was answered 400.

A request that holds a span named `poison` is malformed as far as this backend is concerned: 400, every time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import httptools
import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.chaos.child import obey, settings

FATES = {
    "ok": 80.0,
    "stall": 3.0,  # answers late: sometimes after the agent has given up waiting
    "hang": 1.0,  # never answers
    "close": 3.0,  # closes before it answers
    "half": 3.0,  # closes in the middle of the answer: it has taken the spans, and nobody knows
    "429": 3.0,
    "503": 3.0,
    "400": 2.0,  # malformed, for no reason that the request could help
    "partial": 2.0,
}
"""What becomes of a request, by weight."""

STALL_SECONDS = (0.1, 1.5)
AWAY_SECONDS = (0.05, 0.6)
"""How long nobody listens: connections are refused, and those that stand are reset."""
PRESENT_SECONDS = (0.5, 4.0)
"""How long somebody does."""

MAX_COUNT = 255


class Marks(bytearray):
    """A small number for each span id."""

    def add(self, span: int) -> None:
        """Count one more, up to 255."""
        self.reach(span)
        if self[span] < MAX_COUNT:
            self[span] += 1

    def reach(self, span: int) -> None:
        """Have room for `span`."""
        if span >= len(self):
            self.extend(bytes(span - len(self) + 65536))


class Backend:
    """The whole of it: what it remembers, whether it listens, what it does next."""

    def __init__(self, *, port: int, seed: int, faults: bool) -> None:
        self.port = port
        self.chance = random.Random(seed)
        self.faults = faults
        self.listens = True
        """Whether somebody listens when no fault says otherwise."""
        self.acked, self.unclear, self.rejected, self.refused = Marks(), Marks(), Marks(), Marks()
        self.fates: Counter[str] = Counter()
        self.spans = 0
        self.longest = 0.0
        self.connections: set[Connection] = set()
        self.server: asyncio.Server | None = None

    def fate(self) -> str:
        """Draw what becomes of the next request."""
        return self.chance.choices(list(FATES), FATES.values())[0] if self.faults else "ok"

    async def open(self) -> None:
        """Listen."""
        if self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Listen no more, and reset every connection."""
        server, self.server = self.server, None
        if server is not None:
            server.close()
            for connection in tuple(self.connections):
                connection.transport.abort()
            await asyncio.sleep(0)  # the resets go out

    async def come_and_go(self) -> None:
        """Be away now and then, while faults are wanted."""
        while True:
            await asyncio.sleep(self.chance.uniform(*PRESENT_SECONDS))
            if self.faults and self.listens:
                await self.shut()
                self.fates["away"] += 1
                await asyncio.sleep(self.chance.uniform(*AWAY_SECONDS))
                if self.listens:
                    await self.open()

    # -- what the test asks

    async def set(self, *, faults: bool | None = None, listens: bool | None = None) -> None:
        """Fail or not, listen or not, from now on."""
        if faults is not None:
            self.faults = faults
        if listens is not None:
            self.listens = listens
        if self.listens:
            await self.open()
        else:
            await self.shut()

    async def counts(self) -> dict[str, object]:
        """Return how many spans were taken, and what became of how many requests."""
        return {"spans": self.spans, "fates": self.fates}

    async def slowest(self) -> float:
        """Return the longest time, in seconds, that a span was under way since the last time this was asked."""
        slowest, self.longest = self.longest, 0.0
        return slowest

    async def write(self, folder: str) -> None:
        """Write what is remembered of each span to files."""
        for name in ("acked", "unclear", "rejected", "refused"):
            (Path(folder) / name).write_bytes(getattr(self, name))


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.backend.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.backend.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        body, self.body = b"".join(self.body), []
        request = ExportTraceServiceRequest.FromString(body)
        spans = [span for rs in request.resource_spans for ss in rs.scope_spans for span in ss.spans]
        ids = [int.from_bytes(span.span_id) for span in spans]
        fate = self.backend.fate()
        if fate in ("ok", "partial", "stall") and any(span.name == "poison" for span in spans):
            fate = "400"
        self.backend.fates[fate] += 1
        if fate in ("ok", "stall"):
            seconds = (time.time_ns() - min(span.start_time_unix_nano for span in spans)) / 1e9
            self.backend.longest = max(self.backend.longest, seconds)
        getattr(self, f"_{fate}")(ids)

    def _ok(self, ids: list[int]) -> None:
        self._take(ids)
        self._write(200)

    def _stall(self, ids: list[int]) -> None:
        seconds = self.backend.chance.uniform(*STALL_SECONDS)
        asyncio.get_running_loop().call_later(seconds, self._late, ids)

    def _late(self, ids: list[int]) -> None:
        self._mark(self.backend.unclear, ids)  # whoever asked may be giving up at this very moment
        if not self.transport.is_closing():
            self._ok(ids)

    def _hang(self, ids: list[int]) -> None:
        pass

    def _close(self, ids: list[int]) -> None:
        self.transport.abort()

    def _half(self, ids: list[int]) -> None:
        self._mark(self.backend.unclear, ids)
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncont")
        self.transport.close()

    def _429(self, ids: list[int]) -> None:
        self._write(429, b"retry-after: %d\r\n" % self.backend.chance.randrange(2))

    def _503(self, ids: list[int]) -> None:
        self._write(503)

    def _400(self, ids: list[int]) -> None:
        self._mark(self.backend.refused, ids)
        self._write(400)

    def _partial(self, ids: list[int]) -> None:
        count = self.backend.chance.randint(1, len(ids))
        self._take(ids[:-count])
        self._mark(self.backend.rejected, ids[-count:])
        partial = ExportTracePartialSuccess(rejected_spans=count, error_message="for no reason")
        self._write(200, body=ExportTraceServiceResponse(partial_success=partial).SerializeToString())

    def _take(self, ids: list[int]) -> None:
        self.backend.spans += len(ids)
        self._mark(self.backend.acked, ids)

    def _mark(self, marks: Marks, ids: list[int]) -> None:
        for span in ids:
            marks.add(span)

    def _write(self, status: int, headers: bytes = b"", body: bytes = b"") -> None:
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/x-protobuf\r\n%scontent-length: %d\r\n\r\n"
        self.transport.write(head % (status, headers, len(body)) + body)


async def main() -> None:
    """Serve until the test is done."""
    backend = Backend(**settings())
    await backend.open()
    going = asyncio.create_task(backend.come_and_go())
    await obey({"set": backend.set, "counts": backend.counts, "slowest": backend.slowest, "write": backend.write})
    going.cancel()


if __name__ == "__main__":
    uvloop.run(main())
