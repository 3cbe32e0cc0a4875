"""Limits that a backend requests of samplers: how much of the traffic to send.

A component that gets such limits in the answers of its backend, as the exporter `managed` does, forwards them to all
samplers (`TraceSampler.advise`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.sampling.consistent import ALWAYS, threshold_near

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class SamplingAdvice:
    """The most that a backend wants: a part of all traces (0 to 1), and traces per second. Both limits hold."""

    rate: float = 1.0
    traces_per_second: float = math.inf

    @property
    def limits(self) -> bool:
        """Whether it limits anything."""
        return self.rate < 1 or self.traces_per_second < math.inf

    def probability(self, traffic: float) -> float:
        """Return the highest probability for `traffic` traces per second."""
        return min(self.rate, self.traces_per_second / traffic) if traffic > self.traces_per_second else self.rate


class Advices:
    """The advice of each source until it expires. Times are seconds on the caller's clock."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        """Start without advice."""
        self._of: dict[str, tuple[SamplingAdvice, float]] = {}

    def __bool__(self) -> bool:
        """Return whether there is any, expired or not."""
        return bool(self._of)

    def put(self, source: str, advice: SamplingAdvice, until: float) -> None:
        """Follow an advice until a time. An advice without limits removes that of its source."""
        if advice.limits:
            self._of[source] = advice, until
        else:
            self._of.pop(source, None)

    def valid(self, now: float) -> Iterable[SamplingAdvice]:
        """Return what has not expired, and forget the rest."""
        if any(until <= now for _, until in self._of.values()):
            self._of = {source: each for source, each in self._of.items() if each[1] > now}
        return [advice for advice, _ in self._of.values()]

    def threshold(self, traffic: float, now: float) -> int:
        """Return the lowest threshold of traces that the advice allows, with `traffic` traces per second."""
        probability = min([advice.probability(traffic) for advice in self.valid(now)], default=1.0)
        return ALWAYS if probability >= 1 else threshold_near(probability)
