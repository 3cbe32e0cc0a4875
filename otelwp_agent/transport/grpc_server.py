"""A gRPC server whose methods receive and return bytes, on the event loop's thread (docs/adr/0013).

`GrpcServer` listens, holds the methods and runs the timer; each of its clients is a `grpc_session.GrpcSession`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import StartError
from otelwp_agent.transport import grpc_health
from otelwp_agent.transport.connections import Connections
from otelwp_agent.transport.decoding import Decoding
from otelwp_agent.transport.gate import require_gate
from otelwp_agent.transport.grpc_peers import CallsPerPeer
from otelwp_agent.transport.grpc_session import GrpcSession, SecuredGrpcSession
from otelwp_agent.transport.grpc_timeouts import GrpcTimeouts
from otelwp_agent.transport.http2.header_memory import HeaderMemory
from otelwp_agent.transport.http_arrivals import Arrivals
from otelwp_agent.transport.http_listeners import Listeners
from otelwp_agent.transport.in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.grpc_owner import GrpcConnection, GrpcHandler
    from otelwp_agent.transport.http_listeners import Acceptor
    from otelwp_agent.transport.tls import ServerTls

READ_BUFFER = 256 * 1024
"""Maximum number of bytes of one read."""
SWEEP = 0.5
"""Seconds between checks for expired connections and calls; also the precision of every timeout."""
BACKLOG = 1024
"""Connections that wait in the kernel to be accepted."""
UNIX_MODE = "0660"
"""File mode of a unix socket, the same as in `config.blocks.HttpServer`."""


class GrpcServer:
    """Serves `methods` (`/package.Service/Method` → handler). Handlers raise `ConsumeError` to refuse a message.

    If a server of the same name already serves the address in this process, the new server shares the socket and gets
    all new connections, and takes over the others when the old one shuts down. So a reload refuses no call.
    """

    def __init__(  # noqa: PLR0913 - the address, the methods, and where refusals are reported
        self,
        settings: blocks.GrpcServer,
        methods: Mapping[str, GrpcHandler],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        in_flight: InFlight | None = None,
        on_refused: Callable[[str], None] = lambda _: None,
        gate: Gate | None = None,
    ) -> None:
        """Serve for the component `name` (`receivers/otlp`); `start` opens the socket.

        `gate` is what `Context.gate` returns for `settings`.
        `in_flight` is the budget of the process (by default a separate one). `on_refused` is called with the reason of
        each request that the server itself refuses.
        """
        self.settings = settings
        self.methods = methods
        self.services = grpc_health.services_of(methods)
        self.name = name
        self.log = log
        self.in_flight = InFlight() if in_flight is None else in_flight
        self.arrivals = Arrivals.of(self.in_flight)
        self.on_refused = on_refused
        self.gate = gate
        self.port = 0
        self.limit = settings.max_recv_msg_size_mib * 2**20
        self.waiting: set[asyncio.Future[bytes]] = set()
        self.inflating: Decoding[bytes] = Decoding(self.in_flight, log)
        self.memory = HeaderMemory()
        self.buffer = memoryview(bytearray(READ_BUFFER))
        self.sessions: Connections[GrpcConnection] = Connections(settings.max_connections, 0)
        self.per_peer = CallsPerPeer()
        self.timeouts = GrpcTimeouts(settings)
        self.now = time.monotonic()
        self.draining = False
        self._listeners: Listeners[_Listening] = Listeners(_Listening(self))
        self._tls: ServerTls | None = None
        self._tls_checked = self.now
        self._sweeper: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        require_gate(self.settings, self.gate, self.name)
        if self.settings.tls is not None:
            from otelwp_agent.transport.tls import ALPN_GRPC, ServerTls  # noqa: PLC0415 - only servers with TLS need it

            self._tls = ServerTls(self.settings.tls, name=self.name, alpn=ALPN_GRPC)
        await self._listeners.open(self._accept)
        self.port = self._listeners.port
        self._sweep()

    async def shutdown(self, grace: float = 5.0) -> None:
        """Stop accepting calls and wait for calls in progress, for at most `grace` seconds.

        If another server has replaced this one, connections stay open and go to that server.
        """
        if not self._listeners:
            return
        successor = self._successor()
        self._listeners.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if successor is not None:
            self._hand_over(successor)
            if self.waiting:
                await asyncio.wait(self.waiting, timeout=grace)
        else:
            await self._close_sessions(grace)
        await self.inflating.drain()

    @property
    def address(self) -> str:
        """The listening address: `host:port` with the bound port, or `unix:///path`."""
        addresses = self._listeners.addresses
        return addresses[0] if addresses else str(self.settings.endpoint)

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections get the new certificate.

        Connections of clients whose certificate is from a removed authority end after the calls in progress.
        """
        if self._tls is None:
            return
        if self._tls.reload():
            for connection in list(self.sessions):
                connection.verify_again(self._tls.trusts)

    def session_ended(self, session: GrpcConnection) -> None:
        """Stop counting a connection, and wake up `shutdown` if it waits."""
        self.sessions.discard(session)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # -- accepting

    async def _accept(self, listening: socket.socket) -> Acceptor:
        """Start to accept connections on `listening`, which the acceptor then owns."""
        if self.settings.tls is not None:
            from otelwp_agent.transport.http_tls import TlsAcceptor  # noqa: PLC0415 - only servers with TLS need it

            return TlsAcceptor(self, listening, self._begin_handshake)
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: GrpcSession(self._newest()), sock=listening, backlog=BACKLOG)

    def _begin_handshake(self, connection: socket.socket, peer: str) -> None:
        from otelwp_agent.transport.http_tls import Handshake  # noqa: PLC0415 - only servers with TLS need it

        newest = self._newest()
        tls = newest._tls or self._tls  # noqa: SLF001 - the same class
        assert tls is not None  # noqa: S101 - this server has TLS
        Handshake(newest, connection, peer, SecuredGrpcSession).begin(tls.context)

    def _newest(self) -> GrpcServer:
        """Return the server that gets new connections: the successor, if there is one with the same TLS settings."""
        successor = self._successor()
        if successor is None or (successor.settings.tls is None) != (self.settings.tls is None):
            return self
        return successor._newest()  # noqa: SLF001 - the same class

    def _successor(self) -> GrpcServer | None:
        """Return the server that replaces this one, as long as it serves."""
        successor = self._listeners.successor
        return successor.server if successor is not None and successor.server._listeners else None  # noqa: SLF001

    # -- the end

    def _hand_over(self, successor: GrpcServer) -> None:
        """Give all connections to `successor`. If its TLS settings differ, their clients have to connect again."""
        same = successor.settings.tls == self.settings.tls
        for connection in list(self.sessions):
            self.sessions.discard(connection)
            connection.server = successor
            successor.sessions.add(connection)
            connection.moved()
            if not same:
                connection.drain()
        successor._listeners.forget(self._listeners)

    async def _close_sessions(self, grace: float) -> None:
        self.draining = True
        for session in list(self.sessions):
            session.drain()
        deadline = asyncio.get_running_loop().time() + grace
        self._sweep()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self.sessions:
                    self._ended = asyncio.get_running_loop().create_future()
                    await self._ended
        if self._sweeper is not None:
            self._sweeper.cancel()
        for session in list(self.sessions):
            session.abort()

    # -- time

    def _sweep(self) -> None:
        """Update the time, look at the connections whose time is up, and check the certificate files."""
        self.now = now = time.monotonic()
        for session in [each for each in self.sessions if each.deadline < now]:
            session.time_is_up()
        for session in [each for each in self.sessions if each.old_at < now]:
            session.grow_old()
        tls = self.settings.tls
        if tls is not None and tls.reload_interval and now - self._tls_checked >= tls.reload_interval:
            self._tls_checked = now
            self._reload_tls_if_changed()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _reload_tls_if_changed(self) -> None:
        try:
            if self._tls is not None and self._tls.changed():
                self.reload_tls()
                self.log.info("certificate reloaded", server=self.name)
        except StartError as error:
            self.log.warning("certificate not reloaded; the old one stays", server=self.name, error=str(error))


class _Listening:
    """The addresses of a server, in the form that `Listeners` expects, for itself and as its settings."""

    backlog = BACKLOG
    unix_mode = UNIX_MODE
    unix_group = None

    def __init__(self, server: GrpcServer) -> None:
        self.server = server
        self.settings = self
        self.name = server.name
        self.log = server.log

    @property
    def endpoint(self) -> Endpoint:
        """The first address to listen on. If a host name has several addresses, IPv4 comes before IPv6."""
        endpoint = self.server.settings.endpoint
        hosts = self._hosts()
        return Endpoint(f"{hosts[0]}:{endpoint.port or 0}") if len(hosts) > 1 else endpoint

    @property
    def additional_endpoints(self) -> Sequence[Endpoint]:
        """The other addresses of a host name, with the port that was chosen for the first one."""
        port = self.server._listeners.port  # noqa: SLF001 - a part of the server
        return [Endpoint(f"{host}:{port}") for host in self._hosts()[1:]]

    def _hosts(self) -> list[str]:
        """Return the addresses of the endpoint's host, IPv4 first; none if it has no host."""
        endpoint = self.server.settings.endpoint
        if endpoint.unix or not endpoint.host:
            return []
        try:
            found = socket.getaddrinfo(endpoint.host, None, type=socket.SOCK_STREAM)
        except socket.gaierror:
            return []  # `listen` reports it
        families = sorted({(family != socket.AF_INET, str(address[0])) for family, _, _, _, address in found})
        return [f"[{host}]" if is_v6 else host for is_v6, host in families]
