"""The interface between a gRPC server and its connections and calls.

`grpc_server.GrpcServer` owns the connections. They refer to it by this interface, so that no module imports the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.transport.connections import Connection
from otelwp_agent.transport.gate import Caller

if TYPE_CHECKING:
    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.authentication import PeerCertificate
    from otelwp_agent.transport.connections import Connections, Trust
    from otelwp_agent.transport.decoding import Decoding
    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.grpc_peers import CallsPerPeer
    from otelwp_agent.transport.grpc_timeouts import GrpcTimeouts
    from otelwp_agent.transport.http2.connection import Http2Connection
    from otelwp_agent.transport.http2.header_memory import HeaderMemory
    from otelwp_agent.transport.http_arrivals import Arrivals
    from otelwp_agent.transport.in_flight import InFlight

GrpcHandler = Callable[[bytes, Caller], bytes | asyncio.Future[bytes]]
"""Called with a message and its sender, whose metadata have no binary values; returns the answer."""


class GrpcConnection(Connection, Protocol):
    """A connection that a gRPC server owns: a TLS handshake or a session."""

    server: GrpcOwner
    """The server that it belongs to; a reload replaces it."""

    def verify_again(self, trusts: Trust) -> None:
        """End the connection after the work in progress if the client's certificate is not trusted any more."""

    def moved(self) -> None:
        """Note that `server` was replaced."""


class CallSession(Protocol):
    """A connection, as its calls see it."""

    server: GrpcOwner
    """The server that it belongs to; a reload replaces it."""
    peer: str
    """IP address of the client; an empty string on a unix socket."""
    deadline: float
    """Time at which the server looks at the connection and its calls."""
    connection: Http2Connection

    def certificate(self) -> PeerCertificate | None:
        """Return the verified certificate of the client, or `None`."""

    def flush_soon(self) -> None:
        """Write what the connection has to send, after all callbacks of this turn of the loop."""


class GrpcOwner(Protocol):
    """The server, as its connections and calls see it."""

    settings: blocks.GrpcServer
    name: str
    """The component's name, for messages."""
    log: structlog.typing.FilteringBoundLogger
    methods: Mapping[str, GrpcHandler]
    """The handler of each method."""
    services: frozenset[str]
    """The services of the methods, for the health service."""
    on_refused: Callable[[str], None]
    """Called with the reason of each call or connection that the server itself refuses."""
    gate: Gate | None
    """Authenticates and limits calls."""
    in_flight: InFlight
    arrivals: Arrivals
    memory: HeaderMemory
    buffer: memoryview
    """The buffer that all connections read into."""
    sessions: Connections[GrpcConnection]
    per_peer: CallsPerPeer
    """The calls in progress by address, if `max_concurrent_streams_per_peer` limits them."""
    inflating: Decoding[bytes]
    """Inflates large messages in threads."""
    waiting: set[asyncio.Future[bytes]]
    """The answers of handlers that are pending."""
    timeouts: GrpcTimeouts
    limit: int
    """Maximum size of a message in bytes."""
    now: float
    """`time.monotonic()` at the last sweep."""
    draining: bool
    """Whether the server is about to stop."""

    def session_ended(self, session: GrpcConnection) -> None:
        """Remove a connection that was closed."""
