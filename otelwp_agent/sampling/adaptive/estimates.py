"""Estimate the number, error ratio and durations of all traces from the kept ones, with confidence intervals.

Each kept trace represents w = 1/p traces: its adjusted count. Always-kept traces (w = 1: errors, slow traces, rare
keys) form a stratum of their own, which is counted exactly. The others were sampled independently of each other
(Poisson sampling), so the variance of a sum of w is the sum of w (w - 1) over the kept traces (Horvitz and Thompson).

* Totals: the interval of a Poisson mean, in units of the variance of one trace. It is valid for few traces, also for
  zero.
* Error ratios: Wilson's interval for the sampled stratum, with the effective sample size under even sampling; combined
  with the exact stratum and the interval of the total (MOVER, Zou 2008).
* Percentiles: Woodruff's interval: the interval of the share below the estimate, converted back to durations.

Durations are counted in buckets whose ends are 10 % apart; intervals of percentiles end at bucket boundaries.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from otelwp_agent.sampling.adaptive.histogram import LogHistogram, bucket_of, lower_edge

Z95 = 1.959964
"""Standard errors on each side of a 95 % confidence interval."""

_NUMBERS = (
    "certain",
    "certain_errors",
    "chances",
    "count",
    "errors",
    "excess",
    "error_excess",
    "offered",
    "offered_excess",
)
_HISTOGRAMS = ("durations", "uncertain")


class Estimate(NamedTuple):
    """An estimated value with its confidence interval."""

    value: float
    low: float
    high: float


class Tally:
    """Sums over the kept traces of one key."""

    __slots__ = (*_NUMBERS, "errors_missed", *_HISTOGRAMS)

    def __init__(self) -> None:
        """Start with zero."""
        self.certain = 0
        """Number of traces kept with certainty (w = 1)."""
        self.certain_errors = 0
        self.chances = 0
        """Number of traces kept by probability."""
        self.count = 0.0
        """Sum of w over the traces kept by probability."""
        self.errors = 0.0
        """Sum of w over those with errors."""
        self.excess = 0.0
        """Sum of w (w - 1)."""
        self.error_excess = 0.0
        """Sum of w (w - 1) over those with errors."""
        self.offered = 0.0
        """Number of traces decided by probability, kept or not, and the sum of their w - 1, which is the exact
        variance. Both are known only where decisions are made, and are 0 elsewhere."""
        self.offered_excess = 0.0
        self.errors_missed = False
        """Whether errors may have been dropped: some were decided by probability, or by samplers before this one."""
        self.durations: LogHistogram | None = None
        """Durations of traces kept with certainty; each counts 1."""
        self.uncertain: LogHistogram | None = None
        """Durations of traces kept by probability; each counts w."""

    def add(self, count: float, duration: float, *, error: bool) -> None:
        """Add a kept trace with adjusted count `count`."""
        if count > 1:
            self.chances += 1
            self.count += count
            self.excess += count * (count - 1)
            if error:
                self.errors += count
                self.error_excess += count * (count - 1)
            if self.uncertain is None:
                self.uncertain = LogHistogram()
            self.uncertain.add(bucket_of(duration), count)
        else:
            self.certain += 1
            self.certain_errors += error
            if self.durations is None:
                self.durations = LogHistogram()
            self.durations.add(bucket_of(duration))

    def merge(self, other: Tally) -> None:
        """Add the sums of `other`."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors_missed |= other.errors_missed
        for name in _HISTOGRAMS:
            theirs = getattr(other, name)
            if theirs is not None:
                if getattr(self, name) is None:
                    setattr(self, name, LogHistogram())
                getattr(self, name).merge(theirs)

    def total(self, unseen: float = 1.0, z: float = Z95) -> Estimate:
        """Estimate the number of traces.

        `unseen` is the adjusted count that the next trace kept by probability would have. It bounds the number of
        traces if none was kept.
        """
        drawn = self._drawn(unseen, z)
        return Estimate(*(self.certain + number for number in drawn))

    def error_ratio(self, unseen: float = 1.0, z: float = Z95, *, all_errors_certain: bool = False) -> Estimate:
        """Estimate the part of the traces that are errors, from 0 to 1; (0, 0, 1) if nothing is known.

        `all_errors_certain`: whether every error was kept with certainty.
        """
        drawn = self._drawn(unseen, z)
        if not self.certain and not drawn.value:
            return Estimate(0.0, 0.0, 1.0)
        ratio = self.errors / self.count if self.count else 0.0
        low, high = (0.0, 0.0) if all_errors_certain and not self.errors else self._ratio_interval(ratio, z)
        value = self._mixed(ratio, drawn.value)
        # If probability sampling kept nothing, only an upper bound of its part is known.
        number = drawn.value or drawn.high
        # A larger total means a lower error ratio if the sampled stratum has fewer errors than the exact one, and a
        # higher one otherwise. The worse of both ends is used.
        by_total = [self._mixed(ratio, drawn.low), self._mixed(ratio, drawn.high)]
        down = math.hypot(max(value - self._mixed(low, number), 0.0), value - min(value, *by_total))
        up = math.hypot(max(self._mixed(high, number) - value, 0.0), max(value, *by_total) - value)
        return Estimate(value, max(value - down, 0.0), min(value + up, 1.0))

    def percentile(self, q: float, z: float = Z95) -> Estimate:
        """Estimate the duration in seconds that a part `q` of the traces does not exceed.

        (0, 0, inf) if nothing is known; `high` is inf if too little is known about longer durations.
        """
        both = LogHistogram()
        for part in (self.durations, self.uncertain):
            if part is not None:
                both.merge(part)
        if not both.total:
            return Estimate(0.0, 0.0, math.inf)
        bucket = _bucket_at(both, q)
        assert bucket is not None  # noqa: S101 - q is below 1
        error = z * self._error_below(q, bucket) / both.total
        low, high = _bucket_at(both, q - error), _bucket_at(both, q + error)
        return Estimate(
            math.sqrt(lower_edge(bucket) * lower_edge(bucket + 1)),
            0.0 if low is None else lower_edge(low),
            math.inf if high is None else lower_edge(high + 1),
        )

    @property
    def _variance(self) -> float:
        """Variance of `count`: the exact one where it is known, else the one estimated from the kept traces."""
        return max(self.offered_excess, self.excess)

    def _drawn(self, unseen: float, z: float) -> Estimate:
        """Estimate the number of traces besides those kept with certainty."""
        if self.offered:
            each = self.offered_excess / self.offered
        else:
            each = self.excess / self.count if self.count else max(unseen - 1, 0.0)
        if not each:
            return Estimate(self.count, self.count, self.count)
        low, high = _poisson_interval(self.count / each, z)
        return Estimate(self.count, max(low * each, float(self.chances)), high * each)

    def _ratio_interval(self, ratio: float, z: float) -> tuple[float, float]:
        """Return Wilson's interval of the error ratio among the traces decided by probability."""
        if not self.count:
            return 0.0, 1.0
        variance = self._variance / self.count**2
        if 0 < ratio < 1:
            # Errors can have other probabilities than the rest: during an incident both change at once.
            others = self.excess - self.error_excess
            own = ((1 - ratio) ** 2 * self.error_excess + ratio**2 * others) / self.count**2
            variance = max(variance, own / (ratio * (1 - ratio)))
        squared = z * z * variance
        middle = (ratio + squared / 2) / (1 + squared)
        wide = math.sqrt(ratio * (1 - ratio) * squared + squared**2 / 4) / (1 + squared)
        return max(middle - wide, 0.0), min(middle + wide, 1.0)

    def _mixed(self, ratio: float, drawn: float) -> float:
        """Return the error ratio of all traces, given the ratio and the number of those decided by probability."""
        everything = self.certain + drawn
        return (self.certain_errors + ratio * drawn) / everything if everything else ratio

    def _error_below(self, q: float, bucket: int) -> float:
        """Return the standard error of the share at or below the bucket that should hold the quantile `q`."""
        if not self.count:
            return 0.0
        above = sum(number for at, number in self.durations if at > bucket) if self.durations else 0.0
        # Traces that are certainly above reduce the uncertainty: p99 is precise where slow traces are kept.
        beyond = min(max(((1 - q) * (self.certain + self.count) - above) / self.count, 0.0), 1.0)
        return math.sqrt(self._variance * ((1 - beyond) * (1 - q) ** 2 + beyond * q**2))

    def dump(self) -> list[Any]:
        """Return all sums as plain data."""
        numbers = [getattr(self, name) for name in _NUMBERS]
        histograms = [None if part is None else part.dump() for part in (self.durations, self.uncertain)]
        return [*numbers, self.errors_missed, *histograms]

    @classmethod
    def load(cls, data: list[Any]) -> Tally:
        """Create a tally from the result of `dump`."""
        tally = cls()
        *numbers, missed, durations, uncertain = data
        for name, number in zip(_NUMBERS, numbers, strict=True):
            setattr(tally, name, type(getattr(tally, name))(number))
        tally.errors_missed = bool(missed)
        tally.durations, tally.uncertain = (
            None if part is None else LogHistogram.load(part) for part in (durations, uncertain)
        )
        return tally


def _poisson_interval(number: float, z: float) -> tuple[float, float]:
    """Return the confidence interval of a Poisson mean, of which `number` were counted.

    Uses Wilson and Hilferty's approximation.
    """
    low = number * max(1 - 1 / (9 * number) - z / (3 * math.sqrt(number)), 0.0) ** 3 if number > 0 else 0.0
    above = number + 1
    return low, above * (1 - 1 / (9 * above) + z / (3 * math.sqrt(above))) ** 3


def _bucket_at(histogram: LogHistogram, q: float) -> int | None:
    """Return the bucket in which the part `q` of the total is reached; `None` if `q` is not between 0 and 1."""
    if not 0 < q < 1:
        return None
    wanted = q * histogram.total
    reached, last = 0.0, 0
    for bucket, count in histogram:
        reached += count
        last = bucket
        if reached >= wanted:
            break
    return last
