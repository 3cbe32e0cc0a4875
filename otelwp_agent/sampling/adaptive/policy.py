"""The settings of an adaptive sampler: the budget, the rules that always keep traces, and the rules by site."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from otelwp_agent.fair_share import DEFAULT_SHARE

DAY = 86_400.0
MONTH = 365.25 / 12 * DAY
"""Seconds."""
GIB = 1 << 30


class Unit(StrEnum):
    """The unit of a budget."""

    SPANS = "spans"
    TRACES = "traces"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget per second."""

    rate: float
    """Units a second, above 0."""
    unit: Unit = Unit.SPANS

    @classmethod
    def spans_per_second(cls, rate: float) -> Budget:
        """Create a budget of spans."""
        return cls(rate, Unit.SPANS)

    @classmethod
    def traces_per_second(cls, rate: float) -> Budget:
        """Create a budget of traces."""
        return cls(rate, Unit.TRACES)

    @classmethod
    def bytes_per_day(cls, count: float) -> Budget:
        """Create a budget of bytes, spent evenly over the day."""
        return cls(count / DAY, Unit.BYTES)

    @classmethod
    def cost_per_month(cls, cost: float, price_per_gib: float) -> Budget:
        """Create the budget of bytes that `cost` buys, spent evenly over a mean month.

        Both arguments are in one currency.
        """
        return cls(cost / price_per_gib * GIB / MONTH, Unit.BYTES)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Upper limit of the traces that one rule always keeps; traces above it are decided by probability.

    At least one field is set; if both are, the lower limit applies.
    """

    share: float | None = None
    """Part of the budget, above 0, at most 1. Ignored without a budget."""
    traces_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Keep slow traces: above a fixed duration, or above a percentile that is learned for each key."""

    ceiling: Ceiling = field(default_factory=lambda: Ceiling(share=0.1))
    above: float | None = None
    """Seconds."""
    percentile: float | None = 99.0
    """Between 0 and 100. A trace above this percentile of its key is slow."""
    min_samples: int = 100
    """Number of traces of a key from which its percentile is precise enough."""


@dataclass(frozen=True, slots=True)
class FirstSights:
    """Keep the first traces of each key and of each release."""

    ceiling: Ceiling = field(default_factory=lambda: Ceiling(share=0.1))
    """Ceiling of both together."""
    traces: int = 1
    """Number for a new key."""
    release_traces: int = 10
    """Number for a new release."""


@dataclass(frozen=True, slots=True)
class Always:
    """Rules that keep traces independent of probability, each up to its ceiling. `None` disables a rule.

    The first rule that matches, in this order, is charged, so that one rule cannot use up the ceiling of another. The
    sum of all shares is at most 1.
    """

    debug: Ceiling | None = field(default_factory=lambda: Ceiling(share=0.05))
    errors: Ceiling | None = field(default_factory=lambda: Ceiling(share=0.3))
    slow: Slow | None = field(default_factory=Slow)
    first: FirstSights | None = field(default_factory=FirstSights)


@dataclass(frozen=True, slots=True)
class SiteRule:
    """Maximum probability for sites with more traffic than `above`, as in `traffic > 10000/h → 0.001`."""

    probability: float
    """Maximum probability from 0 to 1, relative to all traces, before any earlier sampler."""
    above: float = 0.0
    """Traces a second."""
    sites: frozenset[str] | None = None
    """The sites it applies to; `None` for all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All settings of a `Controller`."""

    budget: Budget | None = None
    """Budget of the whole sampler. `None`: no budget; everything that no site rule reduces is kept."""
    key_budget: Budget | None = None
    """Maximum for any one key, in the unit of `budget`."""
    power: float = 0.25
    """How heavy keys share the budget that rare keys leave: in proportion to their traffic to this power. 0: equal
    shares; 1: equal probabilities."""
    always: Always = field(default_factory=Always)
    site_rules: tuple[SiteRule, ...] = ()
    """Of the rules that match a site's traffic, the one with the lowest probability applies."""
    site_minimum: float = 0.0
    """Traces a second that each site keeps at least (if it has as many), regardless of rules and budget."""
    site_ceiling: Ceiling = field(default_factory=lambda: Ceiling(share=0.2))
    """Maximum that all sites together may keep because of their minimum."""
    max_keys: int = 10_000
    """Number of keys with a probability of their own; the rest share `OTHER`."""
    tenant_share: float = DEFAULT_SHARE
    """Part of `max_keys` for a tenant that is alone (`fair_share`)."""
    max_sites: int = 10_000
    max_releases: int = 1_000
    forget_after: float = 3_600.0
    """Seconds without traffic after which a key, site or release is removed."""
