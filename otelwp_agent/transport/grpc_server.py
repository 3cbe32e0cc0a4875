"""A gRPC server whose methods receive and return bytes, on the event loop's thread (docs/adr/0004: why `grpc.aio`).

Added to grpcio:

* Our errors become statuses with `google.rpc.Status` details, so that senders know what to retry, and when.
* A port or socket that another process serves is refused. grpcio alone would share it (SO_REUSEPORT) without a warning.
* A server that replaces one of the same name in the same process refuses no client. If the settings are equal, it takes
  over the listening socket and every connection. If they differ, both listen until the old one stops; a call that
  reaches the old one at that moment can end as CANCELLED, and OTLP senders retry it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from itertools import chain, count
from typing import TYPE_CHECKING

from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import ConsumeError, StartError
from otelwp_agent.telemetry.process import resident_memory
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.gate import require_gate
from otelwp_agent.transport.grpc_calls import Calls
from otelwp_agent.transport.grpc_options import channel_arguments, credentials
from otelwp_agent.transport.grpc_runtime import aio
from otelwp_agent.transport.grpc_serving import Methods, abort
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.listen import listen
from otelwp_agent.transport.tls import ServerTls, beyond_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.grpc_calls import Call
    from otelwp_agent.transport.grpc_serving import GrpcHandler

UNIX_MODE = "0660"
"""File mode of a unix socket, the same as in `config.blocks.HttpServer`."""


class GrpcServer:
    """Serves `methods` (`/package.Service/Method` → handler). Handlers raise `ConsumeError` to refuse a message."""

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
        self.name = name
        self.log = log
        self.in_flight = InFlight() if in_flight is None else in_flight
        self.on_refused = on_refused
        self.gate = gate
        self.port = 0
        self.waiting: set[asyncio.Future[bytes]] = set()
        self._listener: _Listener | None = None

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        require_gate(self.settings, self.gate, self.name)
        listener = _listener_to_join(self)
        if listener is None:
            listener = _Listener(self)
            await listener.start()
        listener.owners.append(self)
        self._listener = listener
        self.port = listener.port

    async def shutdown(self, grace: float = 5.0) -> None:
        """Stop accepting calls and wait for calls in progress, for at most `grace` seconds.

        If another server has replaced this one or shares its listener, connections stay open and go to that server.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if len(listener.owners) > 1:
            listener.owners.remove(self)
            if self.waiting:
                await asyncio.wait(self.waiting, timeout=grace)
        else:
            await listener.stop(grace)
            listener.owners.clear()

    @property
    def address(self) -> str:
        """The listening address: `host:port` with the bound port, or `unix:///path`."""
        endpoint = self.settings.endpoint
        return f"unix://{endpoint.unix}" if endpoint.unix else f"{endpoint.host or '*'}:{self.port}"

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections get the new certificate."""
        if self._listener is not None and self._listener.tls is not None:
            self._listener.tls.reload()


class _Listener:
    """One listening grpcio server. The last of its `owners` serves the calls; it stops when the last owner leaves."""

    def __init__(self, first: GrpcServer) -> None:
        self.name, self.log = first.name, first.log
        self.settings = first.settings
        self.methods = frozenset(first.methods)
        self.owners: list[GrpcServer] = []
        self.calls = Calls(
            first.settings, first.in_flight, self.end_early, resident=_resident, clock=asyncio.get_running_loop().time
        )
        self.port = 0
        self.tls = _tls(first.settings, first.name)
        self._key = _key(first.settings.endpoint, first.settings.endpoint.port or 0)
        self._server: aio.Server | None = None
        self._own_path = ""
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        endpoint = self.settings.endpoint
        server = aio.server(
            handlers=(Methods(self.methods, self.owners, self.calls),), options=channel_arguments(self.settings)
        )
        try:
            if endpoint.unix:
                self._bind_unix(server, endpoint)
            else:
                self._bind_tcp(server, endpoint)
            await server.start()
            if endpoint.unix:
                self._publish()
        except BaseException:
            await server.stop(0)
            raise
        self._server = server
        _listening.setdefault(self._key, []).append(self)
        self._watch()

    async def stop(self, grace: float) -> None:
        """Stop listening, wait for calls for at most `grace` seconds, and close the connections."""
        server, self._server = self._server, None
        if self._timer is not None:
            self._timer.cancel()
        if server is None:
            return
        others = _listening[self._key]
        others.remove(self)
        if not others:
            del _listening[self._key]
        if self.settings.endpoint.unix:
            self._hand_back(others)
        await server.stop(grace)
        self.calls.stop()

    def end_early(self, call: Call, error: ConsumeError) -> None:
        """Answer a call whose message is still arriving with the status of `error`; grpcio then frees the message."""
        self.owners[-1].on_refused(error.reason)
        spawn(abort(call.context, error), name=f"{self.name}: refuse a late message")

    def _bind_tcp(self, server: aio.Server, endpoint: Endpoint) -> None:
        port = endpoint.port or 0
        replaces = any(other.name == self.name and other.port == port for other in chain(*_listening.values()))
        for host in self._addresses(endpoint):
            # SO_REUSEPORT is set so that a replacement can listen at the same time. Therefore check first, without it,
            # whether another process uses the port.
            if replaces or self._is_free(Endpoint(f"{host}:{port}"), required=not self.port):
                self.port = port = self._bind(server, f"{host}:{port}")
        self._key = _key(endpoint, port)

    def _is_free(self, address: Endpoint, *, required: bool) -> bool:
        """Return whether the agent can listen on `address`.

        An address that this machine does not have (often ::1) may be skipped unless `required`.
        """
        try:
            listen(address, name=self.name, backlog=1, unix_mode=UNIX_MODE, unix_group=None).close()
        except StartError as error:
            lacking = getattr(error.__cause__, "errno", None) in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
            if required or not lacking:
                raise
            return False
        return True

    def _bind_unix(self, server: aio.Server, endpoint: Endpoint) -> None:
        """Listen on a separate path and link the endpoint's path to it.

        So the endpoint always has a server that answers. grpcio removes its own path when it stops, and must not remove
        the path of a successor.
        """
        siblings = _listening.get(self._key, [])
        if not siblings:
            listen(endpoint, name=self.name, backlog=1, unix_mode=UNIX_MODE, unix_group=None).close()
            os.unlink(endpoint.unix)  # noqa: PTH108 - it was bound only to check the path
        taken = {sibling._own_path for sibling in siblings}  # noqa: SLF001 - the same class
        self._own_path = next(path for path in map(f"{endpoint.unix}.{{}}".format, count(1)) if path not in taken)
        self._bind(server, f"unix:{self._own_path}")
        os.chmod(self._own_path, int(UNIX_MODE, 8))  # noqa: PTH101 - same style as link and rename of this path

    def _publish(self) -> None:
        """Make the endpoint's path refer to this listener, whichever listener it referred to before."""
        path = self.settings.endpoint.unix
        fresh = f"{path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)  # noqa: PTH108
        os.link(self._own_path, fresh)
        os.rename(fresh, path)  # noqa: PTH104
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)  # noqa: PTH108 - rename does nothing if both are links to one file

    def _hand_back(self, others: list[_Listener]) -> None:
        """Make the endpoint's path refer to another listener, or remove it."""
        if others:
            others[-1]._publish()  # noqa: SLF001 - the same class
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.settings.endpoint.unix)  # noqa: PTH108

    def _bind(self, server: aio.Server, address: str) -> int:
        try:
            if self.tls is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, credentials(self.tls))
        except RuntimeError as error:
            raise StartError(f"{self.name}: cannot listen on {self.settings.endpoint}: {error}") from error

    def _addresses(self, endpoint: Endpoint) -> list[str]:
        """Return the endpoint's addresses in the form used in `host:port`; of a host name all addresses, IPv4 first."""
        if not endpoint.host:
            return ["[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"]  # noqa: S104 - what `:4317` asks for
        try:
            found = socket.getaddrinfo(endpoint.host, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            message = f"{self.name}: cannot listen on {endpoint}: the host name does not resolve ({error.strerror})"
            raise StartError(message) from error
        families = sorted({(family != socket.AF_INET, str(address[0])) for family, _, _, _, address in found})
        return [f"[{host}]" if is_v6 else host for is_v6, host in families]

    def _watch(self) -> None:
        """Check the certificate files for changes every `reload_interval`."""
        if self.tls is not None and self.tls.settings.reload_interval:
            self._timer = asyncio.get_running_loop().call_later(self.tls.settings.reload_interval, self._look)

    def _look(self) -> None:
        try:
            if self.tls is not None and self.tls.changed():
                self.tls.reload()
                self.log.info("certificate reloaded", server=self.name)
        except StartError as error:
            self.log.error(  # noqa: TRY400 - the message is complete, a traceback would hide it
                "certificate not reloaded; the old one stays", server=self.name, error=str(error)
            )
        self._watch()


def _resident() -> int:
    """Return the resident memory of the process in bytes; 0 if the system does not report it (not on Linux)."""
    try:
        return resident_memory()
    except OSError:
        return 0


_listening: dict[str, list[_Listener]] = {}
"""The listeners of this process by address.

If several share an address, the last one is the newest and replaces the others.
"""


def _key(endpoint: Endpoint, port: int) -> str:
    return f"unix:{endpoint.unix}" if endpoint.unix else f"{endpoint.host}:{port}"


def _listener_to_join(server: GrpcServer) -> _Listener | None:
    """Return an existing listener with the same settings and methods as `server`, or None.

    Raises `StartError` if the listener belongs to another component.
    """
    endpoint = server.settings.endpoint
    listeners = _listening.get(_key(endpoint, endpoint.port or 0))
    if not listeners:
        return None
    listener = listeners[-1]
    if listener.name != server.name:
        message = f"{server.name}: cannot listen on {endpoint}: {listener.name} already does; change one endpoint"
        raise StartError(message)
    if listener.settings != server.settings or listener.methods != frozenset(server.methods):
        return None
    if listener.tls is not None:
        listener.tls.reload()
    return listener


def _tls(settings: blocks.GrpcServer, name: str) -> ServerTls | None:
    if settings.tls is None:
        return None
    problem = beyond_grpc(settings.tls)
    if problem is not None:
        raise StartError(f"{name}: tls: {problem}")
    return ServerTls(settings.tls, name=name)
