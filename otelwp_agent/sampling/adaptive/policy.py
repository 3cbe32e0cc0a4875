"""What an adaptive sampler is to do: the budget, what is always kept, and the rules by site."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DAY = 86_400.0
MONTH = 365.25 / 12 * DAY
"""Seconds."""
GIB = 1 << 30


class Unit(StrEnum):
    """What a budget counts."""

    SPANS = "spans"
    TRACES = "traces"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Budget:
    """So much a second."""

    rate: float
    """Above 0."""
    unit: Unit = Unit.SPANS

    @classmethod
    def spans_per_second(cls, rate: float) -> Budget:
        """Return a budget of spans."""
        return cls(rate, Unit.SPANS)

    @classmethod
    def traces_per_second(cls, rate: float) -> Budget:
        """Return a budget of traces."""
        return cls(rate, Unit.TRACES)

    @classmethod
    def bytes_per_day(cls, count: float) -> Budget:
        """Return a budget of bytes, spent evenly over the day."""
        return cls(count / DAY, Unit.BYTES)

    @classmethod
    def cost_per_month(cls, cost: float, price_per_gib: float) -> Budget:
        """Return the budget of bytes that `cost` buys, spent evenly over a mean month; both in one currency."""
        return cls(cost / price_per_gib * GIB / MONTH, Unit.BYTES)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How much may be kept for one reason other than chance; what is above it is left to chance.

    At least one is set; if both are, the lower one holds.
    """

    share: float | None = None
    """Of the budget, above 0, at most 1. Says nothing if there is no budget."""
    traces_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Keep slow traces: above a fixed duration, or above a percentile that is learned for each key."""

    ceiling: Ceiling = field(default_factory=lambda: Ceiling(share=0.1))
    above: float | None = None
    """Seconds."""
    percentile: float | None = 99.0
    """Between 0 and 100; the duration above which a trace is slow is learned for each key."""
    min_samples: int = 100
    """Traces of a key from which its percentile is known well enough."""


@dataclass(frozen=True, slots=True)
class FirstSights:
    """Keep the first traces of each key, and of each release."""

    ceiling: Ceiling = field(default_factory=lambda: Ceiling(share=0.1))
    """Of both together."""
    traces: int = 1
    """Of a new key."""
    release_traces: int = 10
    """Of a new release."""


@dataclass(frozen=True, slots=True)
class Always:
    """What is kept whatever chance says, each up to its ceiling. `None` leaves it to chance.

    The first that a trace meets counts, in this order: one kind cannot use up another's ceiling. All shares together
    are at most 1.
    """

    debug: Ceiling | None = field(default_factory=lambda: Ceiling(share=0.05))
    errors: Ceiling | None = field(default_factory=lambda: Ceiling(share=0.3))
    slow: Slow | None = field(default_factory=Slow)
    first: FirstSights | None = field(default_factory=FirstSights)


@dataclass(frozen=True, slots=True)
class SiteRule:
    """`traffic > 10000/h → 0.001`: sites with more traffic than `above` keep at most `probability`."""

    probability: float
    """Of a trace, as samplers before this one left it untouched; from 0 to 1."""
    above: float = 0.0
    """Traces a second."""
    sites: frozenset[str] | None = None
    """Which sites; `None` for all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All that a `Controller` is to do."""

    budget: Budget | None = None
    """Of everything. `None`: there is none, and what no site rule cuts is kept whole."""
    key_budget: Budget | None = None
    """What any one key may have at most, in the unit of `budget`."""
    power: float = 0.25
    """How heavy keys share what rare ones leave: in proportion to their traffic to this power. 0: all alike; 1: all
    with the same probability."""
    always: Always = field(default_factory=Always)
    site_rules: tuple[SiteRule, ...] = ()
    """Of those that fit a site's traffic, the lowest probability holds."""
    site_minimum: float = 0.0
    """Traces a second that each site keeps at least (if it has them), whatever rules and budget leave it."""
    site_ceiling: Ceiling = field(default_factory=lambda: Ceiling(share=0.2))
    """What all sites together may keep because of their minimum."""
    max_keys: int = 10_000
    """Keys that are told apart; the rest share `OTHER`."""
    max_sites: int = 10_000
    max_releases: int = 1_000
    forget_after: float = 3_600.0
    """Seconds after which a key, site or release that nothing was seen of is forgotten."""
