"""Limit rates with the generic cell rate algorithm (GCRA, ITU-T I.371), with one number for each key.

The number is the time at which the burst of the key is fully available again. A cost of `c` moves it by `c` intervals
(an interval is 1 / rate). The cost is allowed if the number is then at most one window (the time in which the rate adds
up to the burst) ahead of now. So the wait until the cost would be allowed is exact.

A cost above the burst could never be allowed. It is allowed when the burst is fully available, and is then charged in
full: what follows waits longer, and the rate holds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

ROUNDING = 1e-6
"""Seconds by which sums of intervals may differ from the exact time because of rounding."""

MAX_KEYS = 65_536
"""Default of the keys that are limited separately."""
SHARED_KEYS = 1024
"""Numbers that further keys share, so that an attacker with any number of keys cannot exhaust the memory."""
SWEEP_INTERVAL = 1.0
"""Shortest time in seconds between two removals of idle keys; each takes about 50 ns for each key."""
_SMALL = 1024
"""Number of keys below which idle keys are kept."""


class Rate:
    """A rate and a burst, in units (requests, items or bytes); immutable."""

    __slots__ = ("burst", "interval", "per_second", "window")

    def __init__(self, per_second: float, burst: float) -> None:
        """Allow `per_second` units in a second, and `burst` units at once; both are positive and finite."""
        if not (0 < per_second < math.inf and 0 < burst < math.inf):
            message = f"a rate of {per_second} with a burst of {burst}: both must be positive and finite"
            raise ValueError(message)
        self.per_second = per_second
        self.burst = burst
        self.interval = 1 / per_second
        self.window = burst / per_second

    def share(self, of: int) -> Rate:
        """Return the part of one among `of` equal users of the rate."""
        return Rate(self.per_second / of, self.burst / of)


class Gcra:
    """The rates of many keys. Times are seconds of any clock, the same for all calls."""

    __slots__ = ("_due", "_max_keys", "_shared", "_sweep_at", "_swept")

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        """Limit up to `max_keys` keys separately. More keys share some numbers, so they are limited more strictly."""
        self._due: dict[Hashable, float] = {}
        """By key: the time at which its burst is fully available again; a missing key has all of it."""
        self._shared: dict[Hashable, float] = {}
        self._max_keys = max_keys
        self._sweep_at = min(_SMALL, max_keys)
        self._swept = -math.inf

    def __len__(self) -> int:
        """Return the number of keys in memory."""
        return len(self._due) + len(self._shared)

    def take(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Charge `cost` to `key` and return 0 if it is allowed now; otherwise return the exact seconds to wait."""
        numbers = self._due
        due = numbers.get(key)
        if due is None:
            numbers, key = self._place(key, now)
            due = numbers.get(key, now)
        if due < now:  # noqa: PLR1730 - `max` costs more, in each request
            due = now
        due += cost * rate.interval
        wait = due - now - rate.window
        if wait > ROUNDING and (cost <= rate.burst or (wait := due - cost * rate.interval - now) > ROUNDING):
            return wait
        numbers[key] = due
        return 0.0

    def wait(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Return what `take` would return, without charging anything."""
        ahead = self._ahead(key, now)
        wait = ahead + max(0.0, min(cost, rate.burst)) * rate.interval - rate.window
        return wait if wait > ROUNDING else 0.0

    def charge(self, key: Hashable, rate: Rate, now: float, cost: float) -> None:
        """Charge `cost` whether it is allowed or not, at most until nothing of the burst is left."""
        numbers, key = self._place(key, now)
        due = max(numbers.get(key, now), now)
        numbers[key] = max(due, min(due + cost * rate.interval, now + rate.window))

    def refund(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> None:
        """Return a `cost` that was charged to `key` and not used."""
        numbers = self._due
        if key not in numbers:
            numbers, key = self._shared, self._shared_key(key)
        due = numbers.get(key)
        if due is not None and due > now:
            numbers[key] = due - cost * rate.interval

    def remaining(self, key: Hashable, rate: Rate, now: float) -> float:
        """Return the units that would be allowed now."""
        return max(0.0, (rate.window - self._ahead(key, now)) * rate.per_second)

    def reset_after(self, key: Hashable, now: float) -> float:
        """Return the seconds after which the burst of `key` is fully available, if nothing more is charged."""
        return self._ahead(key, now)

    def forget_idle(self, now: float) -> None:
        """Remove the keys whose burst is fully available."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        self._shared = {key: due for key, due in self._shared.items() if due > now}
        self._sweep_at = min(max(_SMALL, 2 * len(self._due)), self._max_keys)
        self._swept = now

    def _ahead(self, key: Hashable, now: float) -> float:
        due = self._due.get(key)
        if due is None:
            due = self._shared.get(self._shared_key(key), now)
        return max(0.0, due - now)

    def _place(self, key: Hashable, now: float) -> tuple[dict[Hashable, float], Hashable]:
        """Return where the number of `key` is kept: under the key, or under one that it shares with others."""
        if key in self._due:
            return self._due, key
        if len(self._due) >= self._sweep_at and not 0 <= now - self._swept < SWEEP_INTERVAL:
            self.forget_idle(now)
        if len(self._due) < self._max_keys:
            return self._due, key
        return self._shared, self._shared_key(key)

    @staticmethod
    def _shared_key(key: Hashable) -> int:
        return hash(key) % SHARED_KEYS
