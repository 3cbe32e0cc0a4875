"""Count the connections of a server, in total and per peer, and limit the requests of each peer."""

from __future__ import annotations

import ipaddress
import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

_V6_NETWORK = 64
"""Prefix length of the IPv6 network that counts as one peer: a host usually has all addresses of a /64."""

_ROUNDING = 1e-6
"""Rounding error in seconds that sums of intervals may have."""


class Connection(Protocol):
    """An accepted connection: a TLS handshake or an HTTP session."""

    deadline: float
    """Time at which `time_is_up` is called, by the clock of `time.monotonic`."""
    peer: str
    """IP address of the client; an empty string on a unix socket."""

    def time_is_up(self) -> None:
        """Close the connection, with or without an answer: its deadline has passed."""

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


class RequestRate:
    """Limits the requests per second of each peer (GCRA with a burst of one second)."""

    __slots__ = ("_due", "_interval")

    def __init__(self, per_second: int) -> None:
        """Allow `per_second` requests per second of each peer."""
        self._interval = 1 / per_second
        self._due: dict[str, float] = {}  # by peer: the time at which its burst is fully available again

    def take(self, peer: str, now: float) -> float:
        """Count a request at time `now`; return 0 if it is allowed, else the seconds to wait."""
        due = max(self._due.get(peer, -math.inf), now)
        wait = due - now - (1 - self._interval)
        if wait > _ROUNDING:
            return wait
        self._due[peer] = due + self._interval
        return 0.0

    def forget_idle(self, now: float) -> None:
        """Remove the peers whose whole burst is available again."""
        self._due = {peer: due for peer, due in self._due.items() if due > now}


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the IP address of the peer; an empty string on a unix socket."""
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else ""


def peer_key(address: str) -> str:
    """Return the key that identifies a peer: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> (128 - _V6_NETWORK) << (128 - _V6_NETWORK)))
