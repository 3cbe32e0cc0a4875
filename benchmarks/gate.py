"""Measure the cost of authentication and limits for each HTTP request, without a socket: microseconds of a session.

A session gets the same request of one span again and again, or requests whose heads all differ, and answers into a
transport that drops the bytes. The gates: none; the tokens of `bearertokenauth`; the same with a rate limiter that
allows everything, and with a `rate_limiter` whose limit is exceeded; and a wrong token, which is refused. The figures
are medians of rounds that alternate between the gates, so that they are from the same minutes.

Run: `.venv/bin/python benchmarks/gate.py`, about half a minute.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from otelwp_agent.component import Kind
from otelwp_agent.config import blocks
from otelwp_agent.extensions import bearertokenauth, rate_limiter
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.gate import Gate
from otelwp_agent.transport.http_messages import Response, Route
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.http_session import Session
from otelwp_agent.transport.limiting import RequestAllowance, RequestLimiter
from otelwp_agent.transport.otlp_answers import render_error

if TYPE_CHECKING:
    from otelwp_agent.transport.authentication import Client
    from otelwp_agent.transport.http_messages import Request

REQUESTS = 20_000
ROUNDS = 9
BODY = b"x" * 200
TOKENS = 100
OK = Response(200, b"", "application/x-protobuf")


class Unlimited(RequestAllowance):
    """Allows everything."""

    def begin(self) -> None:
        """Allow the request."""


class NoLimits(RequestLimiter):
    """Allows everything."""

    def allowance(self, client: Client | None, peer: str, route: str) -> RequestAllowance:
        """Return an allowance without limits."""
        del client, peer, route
        return Unlimited()


class Sink(asyncio.Transport):
    """A transport that drops what is written."""

    def write(self, data: Any) -> None:
        """Drop the bytes."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return the peer's address; nothing else is known."""
        return ("192.0.2.1", 5000) if name == "peername" else default

    def is_closing(self) -> bool:
        """Return False."""
        return False


def session(gate: Gate | None) -> Session:
    """Return a session of a server with `gate`."""
    log = structlog.get_logger()
    server = HttpServer(
        blocks.HttpServer(), {"/v1/traces": Route(handle, render_error=render_error)}, name="bench", log=log, gate=gate
    )
    made = Session(server)
    made.connection_made(Sink())
    return made


def handle(request: Request) -> Response:
    """Make the origin of the request, as receivers do for a new head."""
    head = request.head
    if head.memo is None:
        head.memo = head.origin("otlp")
    return OK


def message(token: str, number: int | None) -> bytes:
    """Return a request; requests with different numbers have different heads."""
    own = "" if number is None else f"X-Request: {number}\r\n"
    head = f"Host: 127.0.0.1:4318\r\nUser-Agent: OTel-OTLP-Exporter-Python/1.45.2\r\nAuthorization: Bearer {token}\r\n"
    head += own
    return (
        f"POST /v1/traces HTTP/1.1\r\n{head}Content-Type: application/x-protobuf\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY


def measure(client: Session, messages: list[bytes]) -> float:
    """Return the microseconds for each message."""
    buffer, receive = client.get_buffer(-1), client.buffer_updated
    begin = time.thread_time()
    for each in messages:
        buffer[: len(each)] = each
        receive(len(each))
    return (time.thread_time() - begin) / len(messages) * 1e6


async def main() -> None:
    """Measure and print a table."""
    config = bearertokenauth.Config.model_validate({"tokens": [f"token-{number}" for number in range(TOKENS)]})
    tokens = bearertokenauth.FACTORY.build(config, make_context(Kind.EXTENSION, "bearertokenauth"))
    assert isinstance(tokens, bearertokenauth.BearerTokenAuth)
    limits = {"limits": [{"key": "credential", "requests_per_second": 5, "burst": 20}]}
    settings = rate_limiter.Config.model_validate(limits)
    limiter = rate_limiter.FACTORY.build(settings, make_context(Kind.EXTENSION, "rate_limiter"))
    assert isinstance(limiter, rate_limiter.RateLimiter)
    log = structlog.get_logger()
    gates = {
        "no gate": (None, "token-7"),
        "bearertokenauth": (Gate(tokens, log=log), "token-7"),
        "bearertokenauth and a limiter": (Gate(tokens, [NoLimits()], log=log), "token-7"),
        "bearertokenauth, above a limit (429)": (Gate(tokens, [limiter], log=log), "token-7"),
        "bearertokenauth, wrong token (401)": (Gate(tokens, log=log), "wrong"),
    }
    results: dict[tuple[str, str], list[float]] = {}
    for round_ in range(ROUNDS):
        for name, (gate, token) in gates.items():
            same = [message(token, None)] * REQUESTS
            fresh = [message(token, round_ * REQUESTS + number) for number in range(REQUESTS // 4)]
            results.setdefault((name, "same head"), []).append(measure(session(gate), same))
            results.setdefault((name, "new head"), []).append(measure(session(gate), fresh))
    for (name, kind), values in results.items():
        base = median(results["no gate", kind])
        print(f"{name:36} {kind:10} {median(values):6.2f} µs  {median(values) - base:+6.2f} µs")


if __name__ == "__main__":
    uvloop.run(main())
