"""Rules for the pings of a client (gRPC proposal A8, "Guarding against misuse of keepalive").

A ping that follows data of ours is always allowed: clients measure the bandwidth with them. A client that sends more
than `MAX_STRIKES` others, sooner after one another than allowed, is disconnected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http2.frames import ConnectionViolationError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN = b"draining"
"""Payload of the ping whose answer shows that the client has read a GOAWAY frame."""
KEEPALIVE = b"keepaliv"
"""Payload of the pings that check whether a client is still there."""
MIN_TIME = 300.0
"""Minimum number of seconds between two pings, as in every gRPC server."""
IDLE_MIN_TIME = 7200.0
"""The same for connections without calls."""
MAX_STRIKES = 2


class PingRules:
    """Counts the pings of one connection. `clock` returns seconds."""

    __slots__ = ("_clock", "_idle_min_time", "_last", "_min_time", "_strikes")

    def __init__(
        self, clock: Callable[[], float], min_time: float | None = None, *, permit_without_stream: bool = False
    ) -> None:
        """Allow a ping each `min_time` seconds; without calls only if `permit_without_stream` is set."""
        self._clock = clock
        self._min_time = MIN_TIME if min_time is None else min_time
        self._idle_min_time = self._min_time if permit_without_stream else max(IDLE_MIN_TIME, self._min_time)
        self._last = float("-inf")
        self._strikes = 0

    def arrived(self, *, busy: bool, sent: bool) -> None:
        """Count a ping; raise `ConnectionViolationError` for too many.

        `busy`: calls are in progress. `sent`: we have sent headers or data since the previous ping.
        """
        now = self._clock()
        wait = self._min_time if busy else self._idle_min_time
        if sent:
            self._strikes = 0
        elif now - self._last < wait:
            self._strikes += 1
            if self._strikes > MAX_STRIKES:
                raise ConnectionViolationError(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._last = now
