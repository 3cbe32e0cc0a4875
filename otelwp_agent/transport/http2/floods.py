"""Limit the frames of a peer that cost work and bring no request forward.

PING, SETTINGS, RST_STREAM, empty DATA, WINDOW_UPDATE and unknown frames each cost some points. A peer gets points back
with time and with each request that is answered, so that no honest client runs out of them: it sends a few such frames
for each request. A peer without points is disconnected with ENHANCE_YOUR_CALM. This bounds what is known as rapid reset
(CVE-2023-44487), and floods of settings (CVE-2019-9515), pings (CVE-2019-9512) and empty frames (CVE-2019-9518).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http2.frames import ConnectionViolationError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY = 2000
"""Points of a new connection, and the maximum that it can have."""
PER_SECOND = 200
PER_REQUEST = 16
"""Points that an answered request gives back."""
CHEAP = 1
"""Points of a frame that is read and ignored, or changes a number."""
ANSWERED = 4
"""Points of a frame that is answered or ends a stream."""
SETTINGS_COST = 20
"""Points of a SETTINGS frame, which may change each stream."""


class FloodLimit:
    """The points of one connection."""

    __slots__ = ("_clock", "_since", "left")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with all points; `clock` returns seconds."""
        self.left = CAPACITY
        self._clock = clock
        self._since = clock()

    def spend(self, points: int) -> None:
        """Subtract points; raise `ConnectionViolationError` if there are not enough."""
        self.left -= points
        if self.left < 0:
            now = self._clock()
            self.left = min(CAPACITY, self.left + int((now - self._since) * PER_SECOND))
            self._since = now
            if self.left < 0:
                raise ConnectionViolationError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames without a request")

    def earn(self) -> None:
        """Add the points of an answered request."""
        if self.left < CAPACITY:
            self.left += PER_REQUEST
