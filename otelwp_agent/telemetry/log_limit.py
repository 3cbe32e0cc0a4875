"""Keep one event from filling the log: let it through now and then, with the sum of what was held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 10.0
"""Seconds between two lines of one event: often enough to notice, rare enough to read."""


class LogLimit:
    """Lets one event through per `interval` seconds of `clock`."""

    __slots__ = ("_clock", "_held", "_interval", "_next")

    def __init__(self, clock: Callable[[], float], interval: float = INTERVAL) -> None:
        """Let the first event through."""
        self._clock = clock
        self._interval = interval
        self._next = float("-inf")
        self._held = 0

    def take(self, amount: int = 1) -> int:
        """Count `amount`; return the sum since the last line if it is time for one, else 0."""
        self._held += amount
        now = self._clock()
        if now < self._next:
            return 0
        self._next = now + self._interval
        held, self._held = self._held, 0
        return held
