"""Accept TLS connections of the HTTP servers; they are counted and timed before the handshake.

The event loops report a TLS connection to a server's protocol only after the handshake, and offer no way to end it
earlier. Therefore connections are accepted here, and the loop starts with the handshake.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.http_session import Session

if TYPE_CHECKING:
    import socket
    import ssl

    import structlog

    from otelwp_agent.transport.connections import Trust

ACCEPTED_PER_TURN = 100
"""Maximum number of connections accepted before the loop handles other events."""
PAUSE = 1.0
"""Seconds without accepting after `accept` failed, for example because too many files are open."""


Begin = Callable[["socket.socket", str], None]
"""Begins the handshake of a connection; it gets the address of the peer."""


class HandshakeOwner(Protocol):
    """The server, as its acceptors see it."""

    name: str
    """The component's name, for messages."""
    log: structlog.typing.FilteringBoundLogger


class TlsAcceptor:
    """Accepts connections of one listening socket until it is closed."""

    def __init__(self, server: HandshakeOwner, listening: socket.socket, begin: Begin) -> None:
        """Accept for `server` and pass each connection to `begin`; own the socket."""
        self._server = server
        self._socket = listening
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._accept_more()

    def close(self) -> None:
        """Stop accepting and close the socket."""
        self._loop.remove_reader(self._socket)
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()

    def _accept_more(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                server = self._server
                server.log.warning("connections cannot be accepted", server=server.name, error=str(error))
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(PAUSE, self._accept_more)
                return
            connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
            self._begin(connection, address[0] if isinstance(address, tuple) else "")


class Handshake:
    """A connection until its TLS handshake is complete; then a `Session` replaces it."""

    __slots__ = ("_session", "_socket", "_started", "_task", "_trusts", "deadline", "old_at", "peer", "server")

    def __init__(
        self,
        server: Any,  # noqa: ANN401 - the owner of one kind of session
        connection: socket.socket,
        peer: str,
        session: Callable[[Handshake], Any],
    ) -> None:
        """Own `connection`, which was accepted for `server` from the address `peer`; `session` makes its session."""
        self.server = server
        self._session = session
        self.peer = peer
        self.deadline = server.now + server.timeouts.header
        self.old_at = math.inf
        self._socket = connection
        self._started = False
        self._task: asyncio.Task[None] | None = None
        self._trusts: Trust | None = None

    def begin(self, context: ssl.SSLContext) -> None:
        """Count the connection and start the handshake, or close the connection.

        A refused connection gets no response, because that would need the handshake.
        """
        server = self.server
        reason = server.sessions.add(self)
        if reason:
            server.on_refused(reason)
            self._socket.close()
            server.session_ended(self)
        else:
            self._task = spawn(self._shake_hands(context), name=f"TLS handshake of {server.name}")

    def time_is_up(self) -> None:
        """Close a connection whose handshake takes too long."""
        self.server.on_refused("tls_timeout")
        self.abort()

    def grow_old(self) -> None:
        """Do nothing: the age of a connection begins after its handshake."""

    def verify_again(self, trusts: Trust) -> None:
        """Ask `trusts` about the client's certificate at the end of the handshake, which may have begun before."""
        self._trusts = trusts

    def drain(self) -> None:
        """Close the connection: no request has arrived."""
        self.abort()

    def moved(self) -> None:
        """Do nothing: the session begins with the settings of its server."""

    def abort(self) -> None:
        """Close the connection at once."""
        self.deadline = math.inf
        if not self._started:  # then the task does not close anything
            self._socket.close()
            self.server.session_ended(self)
        if self._task is not None:
            self._task.cancel()

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        self._started = True
        loop = asyncio.get_running_loop()
        try:
            _, session = await loop.connect_accepted_socket(lambda: self._session(self), self._socket, ssl=context)
            if self._trusts is not None:
                session.verify_again(self._trusts)
        except OSError:  # TLS errors are OSErrors, also the error of a client that disconnects
            self.server.on_refused("tls_handshake")
        finally:
            self.server.session_ended(self)


class SecuredSession(Session):
    """A session whose connection is already counted as a handshake."""

    __slots__ = ("_handshake",)

    def __init__(self, handshake: Handshake) -> None:
        """Replace `handshake` as soon as there is a transport."""
        super().__init__(handshake.server)
        self._handshake: Handshake | None = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Continue with the connection of the completed handshake."""
        handshake, self._handshake = self._handshake, None
        assert handshake is not None  # noqa: S101 - called once
        self.server = handshake.server
        self.begin(transport, handshake.peer)
        self.server.sessions.replace(handshake, self)
