"""Limit how often one event is logged, and add up the occurrences between two log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 10.0
"""Shortest time between two log lines of one event, in seconds."""


class LogLimit:
    """Allows one log line per `interval` seconds of `clock`."""

    __slots__ = ("_clock", "_held", "_interval", "_next")

    def __init__(self, clock: Callable[[], float], interval: float = INTERVAL) -> None:
        """Create a limit; the first event is always logged."""
        self._clock = clock
        self._interval = interval
        self._next = float("-inf")
        self._held = 0

    def take(self, amount: int = 1) -> int:
        """Add `amount`; return the sum since the last log line if another one is due, else 0."""
        self._held += amount
        now = self._clock()
        if now < self._next:
            return 0
        self._next = now + self._interval
        held, self._held = self._held, 0
        return held
