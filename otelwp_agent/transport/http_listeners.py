"""The listening sockets of one HTTP server, and their transfer to its successor at a reload."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from otelwp_agent.errors import StartError
from otelwp_agent.transport.listen import address_of, listen

if TYPE_CHECKING:
    import structlog

    from otelwp_agent.config.types import Endpoint

Accept = Callable[[socket.socket], Awaitable["Acceptor"]]
"""Starts to accept the connections of a listening socket."""

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Acceptor(Protocol):
    """Accepts connections until it is closed."""

    def close(self) -> None:
        """Stop accepting and close the socket."""


class ListeningSettings(Protocol):
    """The settings of listening sockets, as in `blocks.HttpServer`."""

    @property
    def endpoint(self) -> Endpoint:
        """The first address."""

    @property
    def additional_endpoints(self) -> Sequence[Endpoint]:
        """More addresses."""

    @property
    def backlog(self) -> int:
        """Connections that wait in the kernel."""

    @property
    def unix_mode(self) -> str:
        """File mode of unix sockets, octal."""

    @property
    def unix_group(self) -> str | None:
        """Group of unix sockets."""


class ListeningServer(Protocol):
    """A server whose sockets `Listeners` opens."""

    @property
    def settings(self) -> ListeningSettings:
        """Its addresses."""

    @property
    def name(self) -> str:
        """The component's name, for messages."""

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """Its log."""


S = TypeVar("S", bound=ListeningServer)


@dataclass(frozen=True, slots=True)
class _ListeningSocket:
    """One listening address."""

    key: str
    endpoint: Endpoint
    socket: socket.socket
    acceptor: Acceptor

    @property
    def port(self) -> int:
        """The bound port; 0 on a unix socket."""
        return 0 if self.endpoint.unix else self.socket.getsockname()[1]

    @property
    def address(self) -> str:
        """The address in readable form."""
        return address_of(self.endpoint, self.port)


class Listeners(Generic[S]):
    """The addresses that `server` listens on.

    If a server of the same name already serves an address in this process, the new server shares the socket, and
    becomes the `successor` of the old one.
    """

    _serving: dict[str, Listeners[Any]] = {}  # noqa: RUF012 - by address, for the whole process, on purpose

    def __init__(self, server: S) -> None:
        """Keep `server`; `open` starts to listen."""
        self.server = server
        self.successor: S | None = None
        self._listeners: list[_ListeningSocket] = []
        self._predecessors: dict[str, Listeners[S]] = {}  # by address, as long as they listen

    def __bool__(self) -> bool:
        """Return whether there is a listening socket."""
        return bool(self._listeners)

    @property
    def addresses(self) -> list[str]:
        """The addresses in readable form, in the order of the configuration."""
        return [each.address for each in self._listeners]

    @property
    def port(self) -> int:
        """The port of the first address; 0 on a unix socket."""
        return self._listeners[0].port

    async def open(self, accept: Accept) -> None:
        """Listen and accept connections with `accept`; raise `StartError` and leave nothing open."""
        settings = self.server.settings
        try:
            await self._listen(settings.endpoint, accept)
            for endpoint in settings.additional_endpoints:
                await self._listen_too(endpoint, accept)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every listening socket; remove the path of a unix socket that no successor serves."""
        listeners, self._listeners = self._listeners, []
        for each in listeners:
            each.acceptor.close()
            each.socket.close()
            if self._serving.get(each.key) is not self:
                continue
            before = self._predecessors.pop(each.key, None)
            if before is not None:  # a reload failed: the previous server stays in use
                self._serving[each.key] = before
                continue
            del self._serving[each.key]
            if each.endpoint.unix:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each.endpoint.unix)  # noqa: PTH108 - same style as bind

    def forget(self, predecessor: Listeners[S]) -> None:
        """Stop sharing addresses with `predecessor`: it has shut down."""
        for key in [key for key, each in self._predecessors.items() if each is predecessor]:
            del self._predecessors[key]

    async def _listen_too(self, endpoint: Endpoint, accept: Accept) -> None:
        try:
            await self._listen(endpoint, accept)
        except StartError as error:
            if getattr(error.__cause__, "errno", None) not in _NOT_HERE:
                raise
            server = self.server
            server.log.warning("address skipped", server=server.name, endpoint=str(endpoint), error=str(error))

    async def _listen(self, endpoint: Endpoint, accept: Accept) -> None:
        settings, name, key = self.server.settings, self.server.name, str(endpoint)
        if endpoint.port == 0:  # the system chooses the port: two components never share one
            key = f"{key}#{name}#{type(self.server).__name__}#{len(self._listeners)}"
        sock = self._share(key)
        if sock is None:
            sock = listen(
                endpoint,
                name=name,
                backlog=settings.backlog,
                unix_mode=settings.unix_mode,
                unix_group=settings.unix_group,
                reuse_port=self._overlaps(endpoint),
            )
        self._listeners.append(_ListeningSocket(key, endpoint, sock, await accept(sock.dup())))
        self._serving[key] = self

    def _share(self, key: str) -> socket.socket | None:
        """Return a duplicate of the socket on which a predecessor listens, or `None` without a predecessor."""
        before = self._serving.get(key)
        if before is None:
            return None
        name, other = self.server.name, before.server.name
        if other != name or type(self.server) is not type(before.server):
            raise StartError(f"{name}: cannot listen on {key}: {other} already does; change one endpoint")
        before.successor = self.server
        self._predecessors[key] = before
        return next(each.socket for each in before._listeners if each.key == key).dup()  # noqa: SLF001 - the same class

    def _overlaps(self, endpoint: Endpoint) -> bool:
        """Return whether a predecessor listens on the same port of another address, and let both listen on it.

        One address may include the other, for example after a change from 127.0.0.1 to 0.0.0.0.
        """
        found = False
        for before in set(self._serving.values()):
            if before is self or before.server.name != self.server.name or type(before.server) is not type(self.server):
                continue
            for each in before._listeners:  # noqa: SLF001 - the same class
                if endpoint.port and each.port == endpoint.port:
                    each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    before.successor = self.server
                    found = True
        return found
