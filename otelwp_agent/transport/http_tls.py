"""Accept TLS connections of the HTTP servers: counted and timed from `accept`, before the handshake.

The event loops call a protocol of a TLS server only after the handshake. So servers listen without TLS, and each
connection is upgraded here.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.http_session import Session, peer_of

if TYPE_CHECKING:
    import ssl

    from otelwp_agent.transport.http_server import HttpServer


class Handshake(asyncio.Protocol):
    """One connection until its TLS handshake is complete; then a `Session` takes its place."""

    def __init__(self, server: HttpServer, context: ssl.SSLContext) -> None:
        """Serve the connection for `server`, with the certificate of `context`."""
        self.server = server
        self.deadline = math.inf
        self.peer = ""
        self._context = context
        self._early = b""  # asyncio delivers data before `start_tls` returns
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and begin the handshake, or close it: an answer would need the handshake."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's transport
        server = self.server
        self._transport = transport
        self.peer = peer_of(transport)
        self.deadline = server.now + server.timeouts.header
        reason = server.sessions.add(self)
        if reason:
            server.on_refused(reason)
            transport.abort()
        else:
            spawn(self._shake_hands(transport), name=f"TLS handshake of {server.name}")

    def data_received(self, data: bytes) -> None:
        """Keep what arrives with the end of the handshake."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Forget the connection."""
        self.server.session_ended(self)

    def time_is_up(self) -> None:
        """Close a connection whose handshake takes too long."""
        self.server.on_refused("tls_timeout")
        self.abort()

    def drain(self) -> None:
        """Close: no request has arrived."""
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        self.deadline = math.inf
        if self._transport is not None:
            self._transport.abort()

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(transport, self, self._context, server_side=True)
        except OSError:  # TLS errors are OSErrors; a client that leaves is one as well
            if self.deadline < math.inf:
                self.server.on_refused("tls_handshake")
            secured = None
        if secured is None or transport.is_closing():
            self.abort()
            self.server.session_ended(self)
            return
        session = Session(self.server)
        secured.set_protocol(session)
        session.begin(secured, self.peer)
        self.server.sessions.replace(self, session)
        if self._early:
            session.data_received(self._early)
