"""Feed any bytes to two HTTP servers, one with cached heads and one without: their behaviour must be equal.

The responses, the handler calls, the end of the connection, and the responses to later requests on other connections
are compared byte for byte. No byte may stay reserved. `python benchmarks/fuzz/fuzz_heads.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import structlog  # noqa: E402
from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.config import blocks  # noqa: E402
from otelwp_agent.transport import http_heads  # noqa: E402
from otelwp_agent.transport.http_messages import Request, Response, Route  # noqa: E402
from otelwp_agent.transport.http_server import HttpServer  # noqa: E402
from otelwp_agent.transport.http_session import Session  # noqa: E402
from otelwp_agent.transport.in_flight import InFlight  # noqa: E402

LIMIT = 4096
"""Maximum size of a body in bytes."""
SOFT, HARD = 64, 1500
"""Limits of the bytes in flight, so low that reading pauses and bodies are refused."""
TURNS = 1000
"""Iterations of the event loop after which a session that is still blocked has failed."""
PIECES = (
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"POST /late HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD /page HTTP/1.1\r\n\r\n", b"GET /nowhere HTTP/1.1\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nX-Tenant: a\r\nContent-Length: 5\r\n\r\n", b"GET http://a/page HTTP/1.1\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nX-Tenant: b\r\nx-tenant: c\r\nContent-Length: 5\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nExpect: more\r\nContent-Length: 5\r\n\r\n", b"POST /v1/traces HTTP/1.0\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"\r\n",
    b"1;a=b\r\nx\r\n0\r\nX-Tenant: evil\r\n\r\n", b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0\xff",
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"X: y\r\n", b" folded\r\n",
    b"GET /page HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /page HTTP/1.1\nHost: a\n\n", b"0\r\n\r\n",
    b"GET /page HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 3000\r\n\r\n", b"x" * 1000, b"x" * 100,
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 5000\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
)  # fmt: skip
"""Parts of inputs: complete heads, bodies, and invalid or misplaced pieces."""


class Wire(asyncio.Transport):
    """A transport that records the calls of a session."""

    def __init__(self) -> None:
        """Start open, with a peer address."""
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.written = bytearray()
        self.ended = ""
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Record `data`."""
        self.written += data

    def can_write_eof(self) -> bool:
        """Return True, as TCP does."""
        return True

    def write_eof(self) -> None:
        """Record the half-close."""
        self.ended = self.ended or "eof"

    def close(self) -> None:
        """Record the close."""
        self.ended = self.ended or "close"

    def is_closing(self) -> bool:
        """Return whether the session has closed the connection."""
        return self.ended in {"close", "abort"}

    def abort(self) -> None:
        """Record the abort."""
        self.ended = self.ended or "abort"

    def pause_reading(self) -> None:
        """Record that no data may be delivered."""
        self.reading = False

    def resume_reading(self) -> None:
        """Record that data may be delivered."""
        self.reading = True

    def get_write_buffer_size(self) -> int:
        """Return 0: everything is written at once."""
        return 0


class Side:
    """A server, the requests that its handlers received, and its reserved bytes."""

    def __init__(self, *, remembers: bool) -> None:
        """Cache heads, or parse every head."""
        self.calls: list[tuple[str, str, str, tuple[tuple[str, str], ...], bytes]] = []
        self.in_flight = InFlight(SOFT, HARD)
        self.refused: list[str] = []
        settings = blocks.HttpServer.model_validate({"endpoint": "127.0.0.1:0", "max_request_body_size": LIMIT})
        routes = {
            "/v1/traces": Route(self._answer),
            "/late": Route(self._answer_late),
            "/page": Route(self._answer, ("GET", "HEAD")),
        }
        quiet = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.server = HttpServer(
            settings, routes, name="fuzz", log=quiet, on_refused=self.refused.append, in_flight=self.in_flight
        )
        if not remembers:
            self.server.heads = http_heads.HeadCache(0)
            self.server.plans = self.server.heads.plans

    async def converse(self, pieces: list[bytes], *, stalls: frozenset[int] = frozenset()) -> tuple[bytes, str]:
        """Send `pieces` on one connection; return the response bytes, and how the server ended the connection.

        The client does not read while the pieces in `stalls` arrive.
        """
        wire, session = Wire(), Session(self.server)
        session.connection_made(wire)
        for number, piece in enumerate(pieces):
            if number in stalls:
                session.pause_writing()
            if wire.reading and not wire.is_closing():
                self.server.buffer[: len(piece)] = piece
                session.buffer_updated(len(piece))
            await asyncio.sleep(0)
            if number in stalls:
                session.resume_writing()
        turns = TURNS
        while session.blocked and turns:
            await asyncio.sleep(0)
            turns -= 1
        assert turns, "the session is still blocked"
        session.connection_lost(None)
        return bytes(wire.written), wire.ended

    def _answer(self, request: Request) -> Response:
        head = request.head
        self.calls.append((head.method, head.path, request.peer, tuple(head.headers.items()), request.body))
        return Response(200, f"{len(self.calls)} {head.headers.get('x-tenant', '')}".encode() + request.body)

    def _answer_late(self, request: Request) -> asyncio.Future[Response]:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, self._answer(request))
        return future


def heads(data: bytes) -> None:
    """Compare both servers on `data`, split at positions that depend on `data`."""
    asyncio.run(_compare(data))


async def _compare(data: bytes) -> None:
    chance = random.Random(data)
    warm, cold = Side(remembers=True), Side(remembers=False)
    attackers = [_cut(data, chance), _cut(data, chance), [data] if data else []]
    victims = [[piece + b"hello"] for piece in PIECES[:8]]
    stalls = frozenset(chance.sample(range(8), 2))
    for pieces in [*victims, *attackers, *victims]:
        expected = await cold.converse(pieces, stalls=stalls)
        assert await warm.converse(pieces, stalls=stalls) == expected
    assert warm.calls == cold.calls
    assert warm.refused == cold.refused
    assert warm.in_flight.used == cold.in_flight.used == 0


def _cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Return `data` split into pieces at random positions."""
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 1, 2, 8, len(data)))))
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


def corpus() -> list[bytes]:
    """Return conversations built from `PIECES`, the same at each call."""
    chance = random.Random(1)
    whole = [PIECES[0] + b"hello", PIECES[11] + PIECES[12], PIECES[8] + b"hello" + PIECES[0] + b"hello"]
    many = PIECES[2] * 40 + PIECES[1] + b"hello" + PIECES[2] * 40
    made = [b"".join(chance.choices(PIECES, k=chance.randint(2, 8))) for _ in range(200)]
    return [*whole, many, b"\r\n\r\n" + whole[0], *made]


if __name__ == "__main__":
    sys.exit(main(heads, corpus(), __doc__))
