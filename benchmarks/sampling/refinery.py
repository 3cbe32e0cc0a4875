"""Refinery's sampler with exponential moving averages, written from its published description, for comparison.

Every 15 seconds the spans of each key are averaged (weight 0.5). The goal of the interval is divided among the keys by
the logarithm (base 10) of their averages, in alphabetical order; the unused part of a key is divided among the keys
after it. One of every `rate` traces is kept, and `rate` is a whole number. If the traffic of an interval exceeds twice
the average, rates are computed immediately and not at the end of the interval. Traces are selected at random.
"""

from __future__ import annotations

import math

INTERVAL = 15.0
WEIGHT = 0.5
BURST_MULTIPLE = 2.0
BURST_DETECTION_DELAY = 3
"""Number of intervals before bursts are detected."""
AGE_OUT = 0.5
"""Averages below this are removed."""
INITIAL_RATE = 10


class EmaThroughput:
    """Sampler with a goal of `goal` spans per second."""

    def __init__(self, goal: float, *, whole: bool = True) -> None:
        """Start. With `whole`, rates are whole numbers, as in Refinery; otherwise real numbers."""
        self._goal = goal
        self._whole = whole
        self._average: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._sum = 0.0
        self._threshold = math.inf
        self._rates: dict[str, float] | None = None
        self._updated = 0.0
        self._intervals = 0

    def rate(self, key: str, spans: int, now: float) -> float:
        """Count a trace; return the rate: one of so many traces is kept."""
        self._counts[key] = self._counts.get(key, 0.0) + spans
        self._sum += spans
        burst = self._sum > self._threshold and self._intervals >= BURST_DETECTION_DELAY
        if burst or now - self._updated >= INTERVAL:
            self._update(now)
        if self._rates is None:
            return INITIAL_RATE
        return max(self._rates.get(key, 1.0), 1.0)

    def _update(self, now: float) -> None:
        for key in self._average.keys() | self._counts.keys():
            before, count = self._average.get(key, 0.0), self._counts.get(key, 0.0)
            average = before + WEIGHT * (count - before)
            if average < AGE_OUT:
                self._average.pop(key, None)
            else:
                self._average[key] = average
        self._counts.clear()
        self._sum = 0.0
        self._updated = now
        self._intervals += 1
        # Compared with the sum of the current interval so far.
        self._threshold = sum(self._average.values()) * BURST_MULTIPLE
        self._rates = self._shared()

    def _shared(self) -> dict[str, float]:
        goal = self._goal * INTERVAL
        logarithms = sum(max(math.log10(average), 0.0) for average in self._average.values())
        ratio = goal / logarithms if logarithms else goal
        rates = {}
        extra = 0.0
        left = len(self._average)
        for key in sorted(self._average):
            count = max(1.0, self._average[key])
            mine = max(1.0, math.log10(count) * ratio) + extra / left
            extra -= extra / left
            left -= 1
            if count <= mine:
                rates[key] = 1.0
                extra += mine - count
            else:
                rates[key] = float(math.ceil(count / mine)) if self._whole else count / mine
                extra += mine - count / rates[key]
        return rates
