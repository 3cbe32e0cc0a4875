"""A backend that accepts everything: `python sink.py` prints its port, answers each POST with 200 and counts spans.

`GET /counts` returns the counts. A POST below `/stalled` is read and never answered. Spans are counted after the answer
has been written, so that a collector does not wait for the count.

`python sink.py PORT` listens on that port and looks for spans named `probe <ns since 1970>`, whose delays in seconds
are returned as `probes`. `python sink.py 0 TEXT` returns the number of occurrences of the text as `found`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

import httptools
import uvloop
from isal import igzip

from otelwp_agent.model.projections import count
from otelwp_agent.model.signal import Signal

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"

_PROBE = re.compile(rb"probe (\d{19})")


class Counts:
    """Counts of received data."""

    def __init__(self, *, probing: bool = False, text: str = "") -> None:
        """Start at 0; look for probes if `probing`, and for `text` if it is not empty."""
        self._text = text.encode()
        self.probes: list[float] | None = [] if probing else None
        self.found = 0
        self.requests = 0
        self.compressed = 0
        self.bytes = 0
        self.spans = 0
        self.stalled = 0

    def take(self, body: bytes, *, compressed: bool) -> None:
        """Count one request, with `body` as received (`compressed` if it is gzip)."""
        self.requests += 1
        self.compressed += compressed
        self.bytes += len(body)
        if self.probes is not None:
            self.probes += [(time.time_ns() - int(probe)) / 1e9 for probe in _PROBE.findall(body)]
        message = igzip.decompress(body) if compressed else body
        self.spans += count(Signal.TRACES, message)
        if self._text:
            self.found += message.count(self._text)

    def to_json(self) -> dict[str, object]:
        """Return the counts as data for JSON."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class SinkProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: Counts) -> None:
        """Count into `counts`."""
        self.counts = counts
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []
        self.compressed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.body = []
        self.compressed = False

    def on_url(self, url: bytes) -> None:
        """Read the path."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header."""
        if name.lower() == b"content-encoding":
            self.compressed = value.lower() == b"gzip"

    def on_body(self, data: bytes) -> None:
        """Read a part of the body."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """Answer, then count."""
        if self.url == b"/counts":
            text = json.dumps(self.counts.to_json()).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
        elif self.url.startswith(b"/stalled"):
            self.counts.stalled += 1
        else:
            self.transport.write(OK)
            self.counts.take(b"".join(self.body), compressed=self.compressed)
        self.body = []


async def serve() -> None:
    """Serve until the process is ended."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    counts = Counts(probing=bool(port), text=sys.argv[2] if len(sys.argv) > 2 else "")
    server = await asyncio.get_running_loop().create_server(lambda: SinkProtocol(counts), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
