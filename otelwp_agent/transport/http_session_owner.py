"""The interface between an HTTP server and its sessions and TLS handshakes.

`http_server.HttpServer` owns the sessions. They refer to it by this interface, so that no module imports the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from otelwp_agent.transport.connections import Connection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.limiting.gcra import Gcra, Rate
    from otelwp_agent.transport.connections import Connections, Trust
    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.http_arrivals import Arrivals
    from otelwp_agent.transport.http_heads import HeadCache, ParsedHead, RequestPlan
    from otelwp_agent.transport.http_messages import Response
    from otelwp_agent.transport.http_timeouts import ConnectionTimeouts
    from otelwp_agent.transport.overload import Drops


class OwnedConnection(Connection, Protocol):
    """A connection that a server owns."""

    server: HttpSessionOwner
    """The server that it belongs to; a reload replaces it."""

    def verify_again(self, trusts: Trust) -> None:
        """End the connection after the work in progress if the client's certificate is not trusted any more."""


class HttpSessionOwner(Protocol):
    """The server, as its sessions see it."""

    settings: blocks.HttpServer
    name: str
    """The component's name, for messages."""
    log: structlog.typing.FilteringBoundLogger
    on_refused: Callable[[str], None]
    """Counts a refused request or connection, by reason."""
    sessions: Connections[OwnedConnection]
    arrivals: Arrivals
    heads: HeadCache
    plans: dict[bytes, RequestPlan]
    """The remembered plans of `heads`, by the bytes of the head."""
    memory: bytearray
    """The buffer that all sessions read into."""
    buffer: memoryview
    """The same, writable in parts."""
    drops: Drops | None
    peer_rate: Rate | None
    """The rate that one peer may send requests at, if it is limited."""
    peer_rates: Gcra
    gate: Gate | None
    """Authenticates and limits requests."""
    limit: int
    """Bytes of the largest body that is accepted."""
    timeouts: ConnectionTimeouts
    now: float
    """`time.monotonic()` at the last sweep."""
    prefix: bytes
    """The headers that every response starts with, in wire format."""
    draining: bool
    """Whether connections are closed after their next response."""

    def session_ended(self, session: OwnedConnection) -> None:
        """Remove a connection that was closed."""

    def plan(self, parsed: ParsedHead) -> RequestPlan:
        """Decide what to do with a request from its head."""

    def respond(self, plan: RequestPlan, body: bytes, peer: str) -> Response | asyncio.Future[Response]:
        """Return the response to a complete request, or its future."""

    def refused(self, error: ConsumeError, status: int) -> Response:
        """Count a request that is refused before its route is known; return the response."""

    def refusal(self, plan: RequestPlan, error: ConsumeError, status: int = 0) -> Response:
        """Return the route's response to a request that is refused with `error`."""
