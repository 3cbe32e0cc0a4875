"""`TrustedClock`: the time by which licences are judged. Setting the clock back does not make a licence last longer.

* Without a signed time, it is the system's clock, but never less than the latest time known before (the high-water
  mark, which the state file keeps) plus the time that has passed since.
* A signed answer of the licence server sets it. So a clock that was wrong, even far in the future, is corrected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = 900.0
"""Difference in seconds between the system's clock and this one that is reported."""


class TrustedClock:
    """A clock in seconds since 1970, which does not go back except to a signed time."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """Follow `wall`, the system's clock; `monotonic` is not affected when that is set."""
        self._wall = wall
        self._monotonic = monotonic
        self._time = wall()
        self._read_at = monotonic()
        self._signed = False

    def now(self) -> float:
        """Return the time."""
        reading = self._monotonic()
        self._time += max(0.0, reading - self._read_at)
        self._read_at = reading
        if not self._signed:
            self._time = max(self._time, self._wall())
        return self._time

    def at_least(self, time: float) -> None:
        """Do not be earlier than `time`, which is known to have passed."""
        self._time = max(self.now(), time)

    def set(self, time: float) -> None:
        """Use a signed time from now on."""
        self.now()
        self._time = time
        self._signed = True

    def error(self) -> float:
        """Return by how many seconds the system's clock is ahead of this one; negative if it is behind."""
        return self._wall() - self.now()
