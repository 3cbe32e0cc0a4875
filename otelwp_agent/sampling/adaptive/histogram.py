"""Durations in logarithmic buckets: quantiles within 5 %, in a few hundred bytes (after DDSketch)."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GROWTH = 1.1
"""Each bucket ends at this much of where it begins."""
_SCALE = 1 / math.log(GROWTH)
_SHORTEST, _LONGEST = 1e-6, 1e6
"""Seconds. What is outside counts as the nearest."""
_OFFSET = 1000
"""`int` rounds up what is negative."""
_log = math.log


def bucket_of(value: float) -> int:
    """Return the number of the bucket that holds a duration in seconds."""
    if value <= _SHORTEST:
        value = _SHORTEST
    elif not value < _LONGEST:
        value = _LONGEST
    return int(_log(value) * _SCALE + _OFFSET) - _OFFSET


def lower_edge(bucket: int) -> float:
    """Return where a bucket begins, in seconds; the next one begins where it ends."""
    return GROWTH**bucket


class LogHistogram:
    """Counts, real numbers, in the buckets from the shortest to the longest that were seen."""

    __slots__ = ("counts", "first", "total")

    def __init__(self, first: int = 0, counts: array[float] | None = None) -> None:
        """Begin empty, or with what `first` and `counts` of another said."""
        self.first = first
        """Bucket of `counts[0]`."""
        self.counts = array("f") if counts is None else counts
        self.total = math.fsum(self.counts)

    def add(self, bucket: int, count: float = 1.0) -> None:
        """Count something in a bucket."""
        at = bucket - self.first
        self.total += count
        if 0 <= at < len(self.counts):
            self.counts[at] += count
            return
        if not self.counts:
            self.first, at = bucket, 0
        if at < 0:
            self.counts = array("f", bytes(-4 * at)) + self.counts
            self.first, at = bucket, 0
        elif at >= len(self.counts):
            self.counts.frombytes(bytes(4 * (at + 1 - len(self.counts))))
        self.counts[at] += count

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Go through the buckets that hold something, from the shortest duration, with their counts."""
        return ((self.first + at, count) for at, count in enumerate(self.counts) if count)

    def quantile(self, q: float) -> float:
        """Return a duration, the end of a bucket, that at most `1 - q` of what was counted exceeds; 0 if empty."""
        beyond = (1 - q) * self.total
        above = 0.0
        for at in range(len(self.counts) - 1, -1, -1):
            above += self.counts[at]
            if above > beyond:
                return lower_edge(self.first + at + 1)
        return 0.0

    def halve(self) -> None:
        """Let what was counted so far count half, so that what comes counts more."""
        self.counts = array("f", [count / 2 for count in self.counts])
        self.total /= 2

    def merge(self, other: LogHistogram) -> None:
        """Count what another one counted, too."""
        for bucket, count in other:
            self.add(bucket, count)

    def dump(self) -> list[float]:
        """Return all of it as plain data: the first bucket, then the counts."""
        return [self.first, *self.counts]

    @classmethod
    def load(cls, data: list[float]) -> LogHistogram:
        """Read what `dump` returned."""
        return cls(int(data[0]), array("f", data[1:]))
