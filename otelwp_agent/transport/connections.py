"""Count the connections of a server, in total and per peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from otelwp_agent.limiting.addresses import peer_key

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Iterator

Trust = Callable[["ssl.SSLObject | None"], bool]
"""Returns whether the certificate of a client is trusted."""


class Connection(Protocol):
    """An accepted connection: a TLS handshake or an HTTP session."""

    deadline: float
    """Time at which `time_is_up` is called, by the clock of `time.monotonic`."""
    old_at: float
    """Time at which `grow_old` is called, by the same clock."""
    peer: str
    """IP address of the client; an empty string on a unix socket."""

    def time_is_up(self) -> None:
        """Close the connection, with or without an answer: its deadline has passed."""

    def grow_old(self) -> None:
        """Prepare to close the connection: it has reached its maximum age. Called again after the grace."""

    def drain(self) -> None:
        """Close the connection as soon as no answer is pending."""

    def abort(self) -> None:
        """Close the connection at once."""


C = TypeVar("C", bound=Connection)


class Connections(Generic[C]):
    """The open connections of one server."""

    __slots__ = ("_limit", "_open", "_per_peer", "_per_peer_limit")

    def __init__(self, limit: int, per_peer: int) -> None:
        """Accept at most `limit` connections, and at most `per_peer` of one peer.

        With `per_peer` 0, and on unix sockets, there is no limit per peer.
        """
        self._limit = limit
        self._per_peer_limit = per_peer
        self._open: set[C] = set()
        self._per_peer: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of open connections, including refused ones that are not closed yet."""
        return len(self._open)

    def __iter__(self) -> Iterator[C]:
        """Iterate over the open connections; do not add or remove any during the iteration."""
        return iter(self._open)

    def add(self, connection: C) -> str:
        """Count a connection; return the reason to refuse it, or an empty string."""
        self._open.add(connection)
        reason = "connections" if len(self._open) > self._limit else ""
        if self._per_peer_limit and connection.peer:
            peer = peer_key(connection.peer)
            count = self._per_peer[peer] = self._per_peer.get(peer, 0) + 1
            if count > self._per_peer_limit:
                reason = reason or "connections_per_peer"
        return reason

    def discard(self, connection: C) -> None:
        """Stop counting a connection; do nothing if it is not counted."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        if self._per_peer_limit and connection.peer:
            peer = peer_key(connection.peer)
            count = self._per_peer.get(peer, 0) - 1
            if count > 0:
                self._per_peer[peer] = count
            else:
                self._per_peer.pop(peer, None)

    def replace(self, connection: C, successor: C) -> None:
        """Count `successor` instead of `connection`: a session replaces its handshake and has the same peer."""
        self._open.remove(connection)
        self._open.add(successor)

    def excess(self) -> int:
        """Return the number of connections above the limit."""
        return len(self._open) - self._limit


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the IP address of the peer; an empty string on a unix socket."""
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else ""
