"""The limits of one `rate_limiter`: their keys, figures and messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otelwp_agent.errors import RateLimitedError, ThrottledError
from otelwp_agent.limiting.classes import PRESETS, class_of_path
from otelwp_agent.limiting.concurrency import RequestsInProgress
from otelwp_agent.limiting.gcra import Gcra, Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.extensions.rate_limiter.config import Config, Key, Unit
    from otelwp_agent.limiting.leases import SharedRates

REUSED = 0.05
"""Seconds for which a refusal is used again for the same key. The wait in it is then too long by this much at most."""
MAX_REUSED = 1024
"""Refusals that a limit keeps for this."""
CONCURRENCY_RETRY = 1.0
"""Seconds after which a sender with too many requests in progress may retry: when they end is unknown."""
MAX_PLANS = 1000
"""Figures of tenants' plans that a limit keeps as `Rate` objects."""
_HOUR = 3600.0
_UNAVAILABLE = 503
"""HTTP status that every SDK takes as temporary."""


class RateLimit:
    """A rate for each value of a key."""

    def __init__(  # noqa: PLR0913 - a record: each argument is a field
        self,
        name: str,
        *,
        key: str,
        unit: Unit,
        rate: Rate,
        rates: Gcra | SharedRates,
        error: type[RateLimitedError],
    ) -> None:
        """Limit `unit` for each `key` to `rate`, with the numbers in `rates`, and refuse with `error`.

        `name` is the label in metrics.
        """
        self.name = name
        self.key = key
        self.unit = unit
        self.rate = rate
        self.rates = rates
        self._error = error
        self._plans: dict[tuple[float, float], Rate] = {}
        self._refusals: dict[str, tuple[float, RateLimitedError]] = {}

    def rate_for(self, limits: Mapping[str, float]) -> Rate | None:
        """Return the rate for a tenant whose plan has these figures; `None` if its plan has no limit.

        `<unit>_per_second` and `<unit>_burst` replace the configured figures. A burst that the plan does not name is in
        proportion. Figures that are not positive are ignored.
        """
        if not limits:
            return self.rate
        own = self.rate
        per_second = _figure(limits.get(f"{self.unit}_per_second"), own.per_second)
        if per_second == math.inf:
            return None
        burst = _figure(limits.get(f"{self.unit}_burst"), max(1.0, own.burst * per_second / own.per_second))
        if (per_second, burst) == (own.per_second, own.burst):
            return own
        found = self._plans.get((per_second, burst))
        if found is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            found = self._plans[per_second, burst] = Rate(per_second, min(burst, 1e15))
        return found

    def refusal(self, key: str, rate: Rate, now: float, wait: float) -> RateLimitedError:
        """Return the error for a request that would be allowed after `wait` seconds."""
        return self._error(
            f"limit exceeded: {self.describe(rate)}",
            retry_after=wait,
            quota=rate.burst,
            remaining=self.rates.remaining(key, rate, now),
            reset_after=self.rates.reset_after(key, now),
        )

    def kept_refusal(self, key: str, rate: Rate, now: float, wait: float) -> RateLimitedError:
        """Return `refusal`, or the one of the same key that was made less than `REUSED` seconds ago."""
        kept = self._refusals.get(key)
        if kept is not None and 0 <= now - kept[0] < REUSED and kept[1].quota == rate.burst:
            return kept[1]
        if len(self._refusals) >= MAX_REUSED:
            self._refusals.clear()
        error = self.refusal(key, rate, now, wait)
        self._refusals[key] = now, error
        return error

    def describe(self, rate: Rate) -> str:
        """Return the limit in words: `50 requests per second for each tenant, burst 100`."""
        per_second = rate.per_second
        slow = per_second < 1
        figure, period = (per_second * _HOUR, "hour") if slow else (per_second, "second")
        return f"{figure:.10g} {self.unit} per {period} for each {self.key}, burst {rate.burst:.10g}"


class ConcurrencyLimit:
    """A number of requests in progress for each value of a key."""

    def __init__(self, name: str, *, key: Key, most: int, error: type[RateLimitedError]) -> None:
        """Allow `most` requests at the same time, and refuse with `error`. `name` is the label in metrics."""
        self.name = name
        self.key = key
        self.most = most
        self.requests = RequestsInProgress()
        self._error = error

    def most_for(self, limits: Mapping[str, float]) -> int | None:
        """Return the number for a tenant whose plan has these figures; `None` if its plan has no limit."""
        figure = _figure(limits.get("concurrent_requests"), self.most)
        return None if figure == math.inf else max(1, int(figure))

    def refusal(self, most: int) -> RateLimitedError:
        """Return the error for a request beyond `most`."""
        return self._error(
            f"limit exceeded: {most} requests in progress for each {self.key}",
            retry_after=CONCURRENCY_RETRY,
            quota=most,
            reset_after=CONCURRENCY_RETRY,
        )


class LimitSet:
    """All limits of a configuration."""

    def __init__(self, config: Config, numbers: Callable[[str], Gcra | SharedRates]) -> None:
        """Create the limits; `numbers` creates the place for the numbers of the limit with the given name."""
        error = ThrottledError if config.throttle_status == _UNAVAILABLE else RateLimitedError
        self.rates: list[RateLimit] = []
        self.concurrency: list[ConcurrencyLimit] = []
        for each in config.limits:
            if each.rate is not None:
                unit, per_second = each.rate
                name, rate = f"{each.key}_{unit}", Rate(per_second, float(each.burst or max(1.0, per_second)))
                limit = RateLimit(name, key=each.key, unit=unit, rate=rate, rates=numbers(name), error=error)
                self.rates.append(limit)
            if each.concurrent_requests is not None:
                name = f"{each.key}_concurrent_requests"
                counter = ConcurrencyLimit(name, key=each.key, most=each.concurrent_requests, error=error)
                self.concurrency.append(counter)
        self.addresses = [limit for limit in self.rates if limit.key == "address" and limit.unit == "requests"]
        """Limits of requests by address, which apply to requests that fail to authenticate too."""
        self._preset = PRESETS[config.preset] if config.preset is not None else {}
        self._classes: dict[str, RateLimit] = {}
        for class_, rate in self._preset.items():
            name, key = f"class_{class_}", f"client and the class {class_}"
            limit = RateLimit(name, key=key, unit="requests", rate=rate, rates=numbers(name), error=error)
            self._classes[class_] = limit
        self.every_rate = [*self.rates, *self._classes.values()]

    def of_class(self, route: str) -> RateLimit | None:
        """Return the limit of the class of requests to `route`, or `None` without a preset."""
        return self._classes[class_of_path(route, self._preset)] if self._classes else None


def _figure(value: float | None, default: float) -> float:
    """Return a figure of a plan, or `default` if it is missing or not positive."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else default
