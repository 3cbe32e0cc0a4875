"""Live figures of one destination: percentiles of its latency, and the share of attempts that succeed.

Older observations count less: half as much after each `HALF_LIFE`. Latencies are counted in classes, each 10 % wider
than the one before, so that a percentile is exact to 10 % and the memory does not depend on the number of observations.
"""

from __future__ import annotations

import math

HALF_LIFE = 15.0
"""Seconds after which an observation counts half."""
STALE = 30.0
"""Seconds without an observation after which nothing is known."""
SHORTEST = 1e-4
"""Latency, in seconds, of the first class."""
WIDTH = 1.1
"""Factor from one class to the next."""
CLASSES = 140
"""Number of classes; the last one is for all latencies above a minute."""
_LARGEST = 2.0**60


class LiveFigures:
    """Figures of one destination. Times are seconds on the caller's clock."""

    __slots__ = ("_begin", "_classes", "_failed", "_last", "_total")

    def __init__(self) -> None:
        """Start without observations."""
        self._begin = 0.0
        self._classes = [0.0] * CLASSES
        self._total = 0.0
        self._failed = 0.0
        self._last = float("-inf")

    def known(self, now: float) -> bool:
        """Return whether there is a recent observation."""
        return now - self._last <= STALE

    def delivered(self, now: float, seconds: float) -> None:
        """Record an attempt that succeeded after `seconds`."""
        weight = self._weight(now)
        place = int(math.log(seconds / SHORTEST, WIDTH)) + 1 if seconds > SHORTEST else 0
        self._classes[min(place, CLASSES - 1)] += weight
        self._total += weight

    def failed(self, now: float) -> None:
        """Record an attempt that failed."""
        weight = self._weight(now)  # first, because it may rescale the sum
        self._failed += weight

    def percentile(self, share: float) -> float:
        """Return the latency, in seconds, that `share` of the successful attempts did not exceed; 0 without any."""
        left = self._total * share
        for place, weight in enumerate(self._classes):
            left -= weight
            if weight and left <= self._total * 1e-9:
                return float(SHORTEST * WIDTH**place)
        return 0.0

    def success_ratio(self) -> float:
        """Return the share of attempts that succeeded; 1 without any."""
        attempts = self._total + self._failed
        return self._total / attempts if attempts else 1.0

    def _weight(self, now: float) -> float:
        """Return the weight of an observation now: later ones weigh more, which is the same as earlier ones less."""
        self._last = now
        weight: float = 2.0 ** min((now - self._begin) / HALF_LIFE, 1000.0)
        if weight > _LARGEST:
            self._classes = [each / weight for each in self._classes]
            self._total /= weight
            self._failed /= weight
            self._begin, weight = now, 1.0
        return weight
