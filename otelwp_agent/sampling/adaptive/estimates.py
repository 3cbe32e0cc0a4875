"""Error bars: what the traces that were kept say of all that there were.

Each kept trace stands for w = 1/p of them: its adjusted count. Traces that were kept for certain (w = 1: errors, slow
ones, rare keys) are a stratum of their own, which is counted exactly; the others were drawn by chance, each on its own
(Poisson sampling), so the variance of a sum of w is the sum of w (w - 1) over what was kept (Horvitz and Thompson).

* Totals: the interval of a Poisson mean, in units of the variance each trace brings: it holds for few traces, too, and
  for none.
* Error ratios: Wilson's interval for the part drawn by chance, with the number of traces that would tell as much if
  they had been drawn evenly; put together with the exact stratum and the total's own interval (MOVER, Zou 2008).
* Percentiles: Woodruff's interval: the one of the share below the estimate, read back from the distribution.

Durations are kept in buckets of 10 %; intervals end at the buckets' ends.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from otelwp_agent.sampling.adaptive.histogram import LogHistogram, bucket_of, lower_edge

Z95 = 1.959964
"""Standard errors of an interval that holds the truth 95 times of 100."""

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
    """A value, and the interval around it."""

    value: float
    low: float
    high: float


class Tally:
    """Adds up the kept traces of one key."""

    __slots__ = (*_NUMBERS, "errors_missed", *_HISTOGRAMS)

    def __init__(self) -> None:
        """Begin with nothing."""
        self.certain = 0
        """Traces kept for certain."""
        self.certain_errors = 0
        self.chances = 0
        """Traces kept by chance."""
        self.count = 0.0
        """Sum of w over what was kept by chance."""
        self.errors = 0.0
        """The same, of errors."""
        self.excess = 0.0
        """Sum of w (w - 1)."""
        self.error_excess = 0.0
        """The same, of errors."""
        self.offered = 0.0
        """Traces that were left to chance, kept or not, and the sum of their w - 1: the variance itself, which is known
        only where the decisions are made. Both are 0 elsewhere."""
        self.offered_excess = 0.0
        self.errors_missed = False
        """Whether there may be errors that were not kept: some were left to chance, or to samplers before this one."""
        self.durations: LogHistogram | None = None
        """Of what was kept for certain; each counts 1."""
        self.uncertain: LogHistogram | None = None
        """Of what was kept by chance, by w."""

    def add(self, count: float, duration: float, *, error: bool) -> None:
        """Add a kept trace that stands for `count`, itself among them."""
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
        """Add what another has added up."""
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
        """Estimate how many traces there were.

        `unseen` is the adjusted count that the next one kept by chance would have: it tells how many there may have
        been if none was kept.
        """
        drawn = self._drawn(unseen, z)
        return Estimate(*(self.certain + number for number in drawn))

    def error_ratio(self, unseen: float = 1.0, z: float = Z95, *, all_errors_certain: bool = False) -> Estimate:
        """Estimate which part of the traces were errors, from 0 to 1; (0, 0, 1) if nothing is known.

        `all_errors_certain`: every error was kept, none was left to chance.
        """
        drawn = self._drawn(unseen, z)
        if not self.certain and not drawn.value:
            return Estimate(0.0, 0.0, 1.0)
        ratio = self.errors / self.count if self.count else 0.0
        low, high = (0.0, 0.0) if all_errors_certain and not self.errors else self._ratio_interval(ratio, z)
        value = self._mixed(ratio, drawn.value)
        # If chance kept nothing, its part of all is not known from what it kept, only how large it may be at most.
        number = drawn.value or drawn.high
        # A larger total means fewer errors, if those drawn by chance have fewer than the others, and the other way
        # round: the worse of both ends counts.
        by_total = [self._mixed(ratio, drawn.low), self._mixed(ratio, drawn.high)]
        down = math.hypot(max(value - self._mixed(low, number), 0.0), value - min(value, *by_total))
        up = math.hypot(max(self._mixed(high, number) - value, 0.0), max(value, *by_total) - value)
        return Estimate(value, max(value - down, 0.0), min(value + up, 1.0))

    def percentile(self, q: float, z: float = Z95) -> Estimate:
        """Estimate the duration in seconds that a part `q` of the traces do not exceed.

        (0, 0, inf) if nothing is known, and `high` is inf if too little is known of what is above.
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
        """The variance of `count`: as it is if that is known, else as what was kept says."""
        return max(self.offered_excess, self.excess)

    def _drawn(self, unseen: float, z: float) -> Estimate:
        """Estimate how many there were besides those kept for certain."""
        if self.offered:
            each = self.offered_excess / self.offered
        else:
            each = self.excess / self.count if self.count else max(unseen - 1, 0.0)
        if not each:
            return Estimate(self.count, self.count, self.count)
        low, high = _poisson_interval(self.count / each, z)
        return Estimate(self.count, max(low * each, float(self.chances)), high * each)

    def _ratio_interval(self, ratio: float, z: float) -> tuple[float, float]:
        """Return Wilson's interval of the errors' part among what was drawn by chance."""
        if not self.count:
            return 0.0, 1.0
        variance = self._variance / self.count**2
        if 0 < ratio < 1:
            # Errors can have other probabilities than the rest: in an incident both change at once.
            others = self.excess - self.error_excess
            own = ((1 - ratio) ** 2 * self.error_excess + ratio**2 * others) / self.count**2
            variance = max(variance, own / (ratio * (1 - ratio)))
        squared = z * z * variance
        middle = (ratio + squared / 2) / (1 + squared)
        wide = math.sqrt(ratio * (1 - ratio) * squared + squared**2 / 4) / (1 + squared)
        return max(middle - wide, 0.0), min(middle + wide, 1.0)

    def _mixed(self, ratio: float, drawn: float) -> float:
        """Return the errors' part of all, given it and the number of those drawn by chance."""
        everything = self.certain + drawn
        return (self.certain_errors + ratio * drawn) / everything if everything else ratio

    def _error_below(self, q: float, bucket: int) -> float:
        """Return the standard error of how many are at or below a bucket that should hold the quantile `q`."""
        if not self.count:
            return 0.0
        above = sum(number for at, number in self.durations if at > bucket) if self.durations else 0.0
        # What is certainly above leaves less to chance: with slow traces kept, p99 is well known.
        beyond = min(max(((1 - q) * (self.certain + self.count) - above) / self.count, 0.0), 1.0)
        return math.sqrt(self._variance * ((1 - beyond) * (1 - q) ** 2 + beyond * q**2))

    def dump(self) -> list[Any]:
        """Return all of it as plain data."""
        numbers = [getattr(self, name) for name in _NUMBERS]
        histograms = [None if part is None else part.dump() for part in (self.durations, self.uncertain)]
        return [*numbers, self.errors_missed, *histograms]

    @classmethod
    def load(cls, data: list[Any]) -> Tally:
        """Read what `dump` returned."""
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
    """Return the interval of a Poisson mean of which `number` were counted (Wilson and Hilferty's approximation)."""
    low = number * max(1 - 1 / (9 * number) - z / (3 * math.sqrt(number)), 0.0) ** 3 if number > 0 else 0.0
    above = number + 1
    return low, above * (1 - 1 / (9 * above) + z / (3 * math.sqrt(above))) ** 3


def _bucket_at(histogram: LogHistogram, q: float) -> int | None:
    """Return the bucket in which a part `q` of all is reached; `None` if `q` is outside of 0 to 1."""
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
