"""Order destinations for the next batch, by different strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.routing.figures import LiveFigures

OPTIMISM = 0.9
"""A destination without recent figures counts as this much faster than the fastest other one, so that it is tried."""


class Candidate(Protocol):
    """A destination with its live figures."""

    name: str
    figures: LiveFigures

    def backlog(self) -> int:
        """Return the number of batches in the queues of its exporters."""


class Strategy:
    """The order of the configuration: the first destination is preferred."""

    def order(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:  # noqa: ARG002 - for others
        """Return the destinations, the preferred one first. Changes nothing."""
        return [*candidates]

    def chosen(self, name: str, items: int) -> None:
        """Record that a destination has got a batch."""


class Ranked(Strategy):
    """The highest of given values; equal ones in the order of the configuration."""

    def __init__(self, values: Mapping[str, float]) -> None:
        """Order by `values`, by destination."""
        self._values = values

    def order(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:  # noqa: ARG002 - as the base
        """Return the destinations by their values."""
        return sorted(candidates, key=lambda each: -self._values[each.name])


class Weighted(Strategy):
    """Shares in proportion to weights, of items, or of batches if `in_batches`.

    Each destination has a tag: its items divided by its weight. The one with the lowest tag is next. A destination that
    was left out does not catch up: its tag is at least the one that was chosen last (start-time fair queueing).
    """

    def __init__(self, weights: Mapping[str, float], *, in_batches: bool = False) -> None:
        """Divide in proportion to `weights`, by destination."""
        self._weights = weights
        self._in_batches = in_batches
        self._tags = dict.fromkeys(weights, 0.0)
        self._now = 0.0

    def order(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:  # noqa: ARG002 - as the base
        """Return the destinations by their tags."""
        return sorted(candidates, key=lambda each: max(self._tags[each.name], self._now))

    def chosen(self, name: str, items: int) -> None:
        """Increase the tag of the destination."""
        start = self._now = max(self._tags[name], self._now)
        self._tags[name] = start + (1 if self._in_batches else items) / self._weights[name]


class LeastLatency(Strategy):
    """The lowest expected wait: the median latency, times the batches that are queued there and the next one."""

    def order(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:
        """Return the destinations by their expected wait."""
        latencies = {each.name: each.figures.percentile(0.5) for each in candidates if each.figures.known(now)}
        unknown = OPTIMISM * min(latencies.values(), default=1.0)
        return sorted(candidates, key=lambda each: latencies.get(each.name, unknown) * (1 + each.backlog()))


class Constrained(Strategy):
    """Another strategy, whose preferred destinations are those that keep the constraints.

    The others are used only if none of those works. A destination without recent figures keeps the constraints.
    """

    def __init__(self, strategy: Strategy, max_latency: float, min_success_ratio: float) -> None:
        """Limit `strategy`: the 95th percentile of the latency in seconds (0: no limit), and the ratio of successes."""
        self._strategy = strategy
        self._max_latency = max_latency
        self._min_success_ratio = min_success_ratio

    def order(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:
        """Return the destinations that keep the constraints, then the others."""
        ordered = self._strategy.order(candidates, now)
        ordered.sort(key=lambda each: not self._keeps(each.figures, now))
        return ordered

    def chosen(self, name: str, items: int) -> None:
        """Record that a destination has got a batch."""
        self._strategy.chosen(name, items)

    def _keeps(self, figures: LiveFigures, now: float) -> bool:
        if not figures.known(now):
            return True
        slow = self._max_latency and figures.percentile(0.95) > self._max_latency
        return not slow and figures.success_ratio() >= self._min_success_ratio
