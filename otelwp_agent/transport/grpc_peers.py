"""Count the calls in progress by address, over all connections of a gRPC server."""

from __future__ import annotations

from otelwp_agent.errors import Overloaded
from otelwp_agent.limiting.addresses import peer_key

RETRY_AFTER = 1.0
"""Seconds after which a refused sender should try again."""


class CallsPerPeer:
    """The number of calls in progress of each address (IPv6: of each /64 network)."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        """Start without calls."""
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of addresses with calls in progress."""
        return len(self._counts)

    def begin(self, address: str, most: int) -> str:
        """Count a call and return the key for `end`; raise `Overloaded` if there would be more than `most`."""
        peer = peer_key(address)
        count = self._counts.get(peer, 0)
        if count >= most:
            raise Overloaded(
                f"{count} calls from {peer} are in progress; max_concurrent_streams_per_peer allows no more",
                retry_after=RETRY_AFTER,
                reason="streams_per_peer",
            )
        self._counts[peer] = count + 1
        return peer

    def end(self, peer: str) -> None:
        """Stop counting a call."""
        count = self._counts.get(peer, 0) - 1
        if count > 0:
            self._counts[peer] = count
        else:
            self._counts.pop(peer, None)
