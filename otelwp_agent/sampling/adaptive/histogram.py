"""A histogram of durations in logarithmic buckets: quantiles within 5 %, in a few hundred bytes (after DDSketch)."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GROWTH = 1.1
"""Ratio between the end and the start of a bucket."""
_SCALE = 1 / math.log(GROWTH)
_SHORTEST, _LONGEST = 1e-6, 1e6
"""Seconds. Durations outside are counted as the nearest of these."""
_OFFSET = 1000
"""Makes the number positive before `int`, which would round a negative one up."""
_log = math.log


def bucket_of(value: float) -> int:
    """Return the number of the bucket for a duration in seconds."""
    if value <= _SHORTEST:
        value = _SHORTEST
    elif not value < _LONGEST:
        value = _LONGEST
    return int(_log(value) * _SCALE + _OFFSET) - _OFFSET


def lower_edge(bucket: int) -> float:
    """Return the start of a bucket in seconds; it is the end of the bucket before."""
    return GROWTH**bucket


class LogHistogram:
    """Fractional counts in the buckets from the shortest to the longest recorded duration."""

    __slots__ = ("counts", "first", "total")

    def __init__(self, first: int = 0, counts: array[float] | None = None) -> None:
        """Start empty, or with the `first` and `counts` of another histogram."""
        self.first = first
        """Bucket number of `counts[0]`."""
        self.counts = array("f") if counts is None else counts
        self.total = math.fsum(self.counts)

    def add(self, bucket: int, count: float = 1.0) -> None:
        """Add `count` to a bucket."""
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
        """Return an iterator over non-empty buckets, shortest duration first, as (bucket, count)."""
        return ((self.first + at, count) for at, count in enumerate(self.counts) if count)

    def quantile(self, q: float) -> float:
        """Return the end of the bucket that at most `1 - q` of the total exceeds, in seconds; 0 if empty."""
        beyond = (1 - q) * self.total
        above = 0.0
        for at in range(len(self.counts) - 1, -1, -1):
            above += self.counts[at]
            if above > beyond:
                return lower_edge(self.first + at + 1)
        return 0.0

    def halve(self) -> None:
        """Halve all counts, so that new durations have more weight."""
        self.counts = array("f", [count / 2 for count in self.counts])
        self.total /= 2

    def merge(self, other: LogHistogram) -> None:
        """Add the counts of another histogram."""
        for bucket, count in other:
            self.add(bucket, count)

    def dump(self) -> list[float]:
        """Return plain data: the first bucket, then the counts."""
        return [self.first, *self.counts]

    @classmethod
    def load(cls, data: list[float]) -> LogHistogram:
        """Create a histogram from the result of `dump`."""
        return cls(int(data[0]), array("f", data[1:]))
