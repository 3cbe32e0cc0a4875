"""Decide whether a destination gets data: its failures, the tests whether it works again, and its gradual return.

::

    UP ── `failures` in a row, or its breaker opens ──▶ DOWN ── a test batch is delivered ──▶ RETURNING ──▶ UP
                                                        ▲                                        │
                                                        └───────────── any failure ──────────────┘

Down: one batch in `retry_interval` is sent as a test. Returning: its share of the batches grows from `FIRST_SHARE` to
all of them within `return_time`.
"""

from __future__ import annotations

from enum import IntEnum

FIRST_SHARE = 0.1
"""Share of the batches that a destination gets at once when it works again."""


class Readiness(IntEnum):
    """The readiness of a destination, from good to bad."""

    UP = 0
    RETURNING = 1
    DOWN = 2

    @property
    def label(self) -> str:
        """Name in logs and health details."""
        return self.name.lower()


class Availability:
    """The readiness of one destination. Times are seconds on the caller's clock."""

    __slots__ = ("_allowed", "_credit", "_failures", "_returned_at", "_time", "_wait", "readiness", "test_at")

    def __init__(self, failures: int, retry_interval: float, return_time: float) -> None:
        """Begin in the state `UP`. After `failures` failures in a row the state becomes `DOWN`."""
        self.readiness = Readiness.UP
        self.test_at = 0.0
        """While it is down: the time of the next test."""
        self._allowed = failures
        self._wait = retry_interval
        self._time = return_time
        self._failures = 0
        self._returned_at = 0.0
        self._credit = 0.0

    def failed(self, now: float) -> bool:
        """Record a failure; return whether the state changes to `DOWN` because of it."""
        self._failures += 1
        if self.readiness is Readiness.UP and self._failures < self._allowed:
            return False
        return self.block(now)

    def block(self, now: float) -> bool:
        """Change the state to `DOWN`; return whether it was another one before."""
        changed = self.readiness is not Readiness.DOWN
        if changed:
            self.readiness = Readiness.DOWN
            self.test_at = now + self._wait
        return changed

    def delivered(self, now: float) -> bool:
        """Record a delivery; return whether it was down."""
        self._failures = 0
        if self.readiness is not Readiness.DOWN:
            return False
        self.readiness = Readiness.RETURNING
        self._returned_at = now
        self._credit = 0.0
        return True

    def share(self, now: float) -> float:
        """Return the share of the batches that it gets, from 0 to 1."""
        if self.readiness is Readiness.UP:
            return 1.0
        if self.readiness is Readiness.DOWN:
            return 0.0
        elapsed = now - self._returned_at
        return 1.0 if elapsed >= self._time else max(FIRST_SHARE, elapsed / self._time)

    def usable(self, now: float) -> bool:
        """Return whether it may get a batch now, at least as a test."""
        return self.readiness is not Readiness.DOWN or now >= self.test_at

    def takes(self, now: float) -> bool:
        """Decide whether it gets the next batch, and count that."""
        if self.readiness is Readiness.DOWN:
            if now < self.test_at:
                return False
            self.test_at = now + self._wait
            return True
        share = self.share(now)
        if share >= 1.0:
            self.readiness = Readiness.UP
            return True
        self._credit += share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
