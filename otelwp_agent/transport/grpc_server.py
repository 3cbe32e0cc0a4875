"""A gRPC server whose methods take and give bytes, on the loop's own thread (docs/adr/0004 says why `grpc.aio`).

What it adds to grpcio:

* our errors become statuses with `google.rpc.Status` details, so that senders know what to try again, and when;
* a port or socket that another process serves is refused: grpcio alone would share it (SO_REUSEPORT) without a word;
* a server that replaces one of the same name in the same process refuses nobody. Where the settings are equal, it takes
  over the listening socket and every connection. Where they differ, both listen until the old one stops; a call that
  reaches the old one in that instant can end as CANCELLED, which OTLP senders send again.
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
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.grpc_calls import Calls
from otelwp_agent.transport.grpc_options import channel_arguments, credentials
from otelwp_agent.transport.grpc_runtime import CODES, STATUS_DETAILS, aio, grpc
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.listen import listen
from otelwp_agent.transport.tls import ServerTls, beyond_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.grpc_calls import Call

    GrpcHandler = Callable[[bytes, Mapping[str, str]], bytes | asyncio.Future[bytes]]
    """Takes a message and the client's metadata (lower-case names; binary values left out); gives the answer."""

UNIX_MODE = "0660"
"""File mode of a unix socket, the same as of `config.blocks.HttpServer`."""


class GrpcServer:
    """Serves `methods` (`/package.Service/Method` → handler). Handlers raise `ConsumeError` to refuse a message."""

    def __init__(  # noqa: PLR0913 - where it listens, what it serves, and whom it reports to
        self,
        settings: blocks.GrpcServer,
        methods: Mapping[str, GrpcHandler],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        in_flight: InFlight | None = None,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Serve under the component's `name` (`receivers/otlp`); nothing is opened before `start`.

        `in_flight` is the budget of the process (without it, one of its own); `on_refused` gets the reason of each
        refusal that the server decides itself.
        """
        self.settings = settings
        self.methods = methods
        self.name = name
        self.log = log
        self.in_flight = InFlight() if in_flight is None else in_flight
        self.on_refused = on_refused
        self.port = 0
        self.waiting: set[asyncio.Future[bytes]] = set()
        self._listener: _Listener | None = None

    async def start(self) -> None:
        """Listen; raise `StartError` with nothing left open."""
        listener = _listener_to_join(self)
        if listener is None:
            listener = _Listener(self)
            await listener.start()
        listener.owners.append(self)
        self._listener = listener
        self.port = listener.port

    async def shutdown(self, grace: float = 5.0) -> None:
        """Stop taking calls and let those under way end, for at most `grace` seconds.

        Where another server has taken this one's place (or still holds it), connections stay open and go to that.
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
        """What it listens on: `host:port` with the port it got, or `unix:///path`."""
        endpoint = self.settings.endpoint
        return f"unix://{endpoint.unix}" if endpoint.unix else f"{endpoint.host or '*'}:{self.port}"

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections get the new certificate."""
        if self._listener is not None and self._listener.tls is not None:
            self._listener.tls.reload()


class _Listener:
    """One listening grpcio server. Calls go to the last of its `owners`; it stops when the last one leaves."""

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
        """Listen; raise `StartError` with nothing left open."""
        endpoint = self.settings.endpoint
        server = aio.server(handlers=(_Methods(self),), options=channel_arguments(self.settings))
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
        """Stop listening, wait for calls for at most `grace` seconds, close connections."""
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

    def refuse(self, context: aio.ServicerContext[bytes, bytes], error: ConsumeError) -> bytes:
        """Answer a call with what `error` says."""
        status = statuses.status_message(error)
        context.set_code(CODES[status.code])
        context.set_details(status.message)
        context.set_trailing_metadata(((STATUS_DETAILS, status.SerializeToString()),))
        return b""

    def end_early(self, call: Call, error: ConsumeError) -> None:
        """Answer a call whose message is still arriving with what `error` says; grpcio then frees the message."""
        self.owners[-1].on_refused(error.reason)
        spawn(_abort(call.context, error), name=f"{self.name}: refuse a late message")

    def _bind_tcp(self, server: aio.Server, endpoint: Endpoint) -> None:
        port = endpoint.port or 0
        replaces = any(other.name == self.name and other.port == port for other in chain(*_listening.values()))
        for host in self._addresses(endpoint):
            # SO_REUSEPORT is on, so that a replacement can listen beside what it replaces; so look before, without it.
            if replaces or self._is_free(Endpoint(f"{host}:{port}"), required=not self.port):
                self.port = port = self._bind(server, f"{host}:{port}")
        self._key = _key(endpoint, port)

    def _is_free(self, address: Endpoint, *, required: bool) -> bool:
        """Whether `address` can be listened on. One that this machine lacks (::1, mostly) may be left out."""
        try:
            listen(address, name=self.name, backlog=1, unix_mode=UNIX_MODE, unix_group=None).close()
        except StartError as error:
            lacking = getattr(error.__cause__, "errno", None) in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
            if required or not lacking:
                raise
            return False
        return True

    def _bind_unix(self, server: aio.Server, endpoint: Endpoint) -> None:
        """Listen on a path of our own, to which the endpoint's becomes a link.

        The endpoint is never without somebody who answers, and grpcio, which removes the path that it was given when it
        stops, cannot remove a successor's.
        """
        siblings = _listening.get(self._key, [])
        if not siblings:
            listen(endpoint, name=self.name, backlog=1, unix_mode=UNIX_MODE, unix_group=None).close()
            os.unlink(endpoint.unix)  # noqa: PTH108 - only a probe
        taken = {sibling._own_path for sibling in siblings}  # noqa: SLF001 - the same class
        self._own_path = next(path for path in map(f"{endpoint.unix}.{{}}".format, count(1)) if path not in taken)
        self._bind(server, f"unix:{self._own_path}")
        os.chmod(self._own_path, int(UNIX_MODE, 8))  # noqa: PTH101 - beside link and rename of the same path

    def _publish(self) -> None:
        """Make the endpoint's path ours, whoever's it was."""
        path = self.settings.endpoint.unix
        fresh = f"{path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)  # noqa: PTH108
        os.link(self._own_path, fresh)
        os.rename(fresh, path)  # noqa: PTH104
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)  # noqa: PTH108 - rename does nothing where both are links to one file

    def _hand_back(self, others: list[_Listener]) -> None:
        """Leave the endpoint's path to another listener, or remove it."""
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
        """Return the endpoint's addresses as they stand in `host:port`: all of a name's, IPv4 first."""
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
        """Look at the certificate files every `reload_interval`."""
        if self.tls is not None and self.tls.settings.reload_interval:
            self._timer = asyncio.get_running_loop().call_later(self.tls.settings.reload_interval, self._look)

    def _look(self) -> None:
        try:
            if self.tls is not None and self.tls.changed():
                self.tls.reload()
                self.log.info("certificate reloaded", server=self.name)
        except StartError as error:
            self.log.error(  # noqa: TRY400 - the message says it all, a traceback would hide it
                "certificate not reloaded; the old one stays", server=self.name, error=str(error)
            )
        self._watch()


class _Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs alone
    """Tells grpcio which methods there are; others it answers with UNIMPLEMENTED."""

    def __init__(self, listener: _Listener) -> None:
        self._known = {
            method: grpc.stream_unary_rpc_method_handler(_serve(listener, method)) for method in listener.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._known.get(handler_call_details.method)


def _serve(listener: _Listener, method: str) -> Callable[[object, aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    """Return the coroutine function that answers calls of `method`.

    On the wire a unary call is a stream of one message. As a stream, grpcio begins the coroutine before it reads the
    message and reads it when asked to, so that a call can be refused, or can wait, before its message takes memory.
    """
    owners, calls, in_flight = listener.owners, listener.calls, listener.calls.in_flight

    async def serve(_messages: object, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        owner = owners[-1]
        try:
            call = calls.begin(context)
        except ConsumeError as error:
            owner.on_refused(error.reason)
            return listener.refuse(context, error)
        size = 0
        try:
            if in_flight.used > in_flight.soft:
                await calls.pause(call)
            message = await context.read()
            calls.arrived(call)
            if message is aio.EOF:  # type: ignore[attr-defined]  # missing in its stubs
                return b""  # cancelled, refused or without a message: the answer has no reader
            size = len(message)
            in_flight.used += size
            metadata = {key: value for key, value in context.invocation_metadata() or () if type(value) is str}
            answer = owners[-1].methods[method](message, metadata)
            return answer if isinstance(answer, bytes) else await _outcome(owner, answer)
        except ConsumeError as error:
            return listener.refuse(context, error)
        except aio.AbortError:
            raise
        except Exception:
            owner.log.exception("request failed", server=owner.name, method=method)
            context.set_code(grpc.StatusCode.INTERNAL)
            context.set_details("internal error; the agent's log has the details")
            return b""
        finally:
            in_flight.used -= size
            calls.end(call)

    return serve


async def _abort(context: aio.ServicerContext[bytes, bytes], error: ConsumeError) -> None:
    """End a call with what `error` says, whatever it waits for."""
    status = statuses.status_message(error)
    with contextlib.suppress(aio.AbortError, aio.UsageError, asyncio.CancelledError):
        details = ((STATUS_DETAILS, status.SerializeToString()),)
        await context.abort(CODES[status.code], status.message, details)


def _resident() -> int:
    """Return the resident memory of the process in bytes; 0 where the system does not report it (not on Linux)."""
    try:
        return resident_memory()
    except OSError:
        return 0


async def _outcome(owner: GrpcServer, answer: asyncio.Future[bytes]) -> bytes:
    """Wait for a handler's answer; whoever makes it is not cancelled when the client goes away."""
    owner.waiting.add(answer)
    answer.add_done_callback(owner.waiting.discard)
    return await asyncio.shield(answer)


_listening: dict[str, list[_Listener]] = {}
"""The listeners of this process by what they listen on. Where several share it, the newest, which stands last, replaces
the others."""


def _key(endpoint: Endpoint, port: int) -> str:
    return f"unix:{endpoint.unix}" if endpoint.unix else f"{endpoint.host}:{port}"


def _listener_to_join(server: GrpcServer) -> _Listener | None:
    """Return the listener that already does what `server` asks for; raise `StartError` if it is another component's."""
    endpoint = server.settings.endpoint
    listeners = _listening.get(_key(endpoint, endpoint.port or 0))
    if not listeners:
        return None
    listener = listeners[-1]
    if listener.name != server.name:
        message = f"{server.name}: cannot listen on {endpoint}: {listener.name} already does; give one another endpoint"
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
