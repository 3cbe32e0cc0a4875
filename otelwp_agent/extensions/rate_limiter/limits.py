"""The limits of one `rate_limiter`: their keys, figures and messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otelwp_agent.errors import RateLimitedError, ThrottledError
from otelwp_agent.limiting.classes import PRESETS, class_of_path
from otelwp_agent.limiting.concurrency import RequestsInProgress
from otelwp_agent.limiting.gcra import Gcra, Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.extensions.rate_limiter.config import Key, LimitSettings, Unit
    from otelwp_agent.limiting.leases import SharedRates

REUSED = 0.05
"""Seconds for which a refusal is used again for the same key. The wait in it is then too long by this much at most."""
MAX_REUSED = 1024
"""Refusals that a limit keeps for this."""
CONCURRENCY_RETRY = 1.0
"""Seconds after which a sender with too many requests in progress may retry: when they end is not known."""
MAX_BURST = 1e15
"""Largest burst; a plan may have any figure."""
MAX_PLANS = 1000
"""Figures of tenants' plans that a limit keeps as `Rate` objects."""
TENANT: Final = "tenant"
"""The key whose figures plans replace."""
_CONCURRENT = "concurrent_requests"
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
        rate: Rate | None,
        rates: Gcra | SharedRates,
        error: type[RateLimitedError],
    ) -> None:
        """Limit `unit` for each `key` to `rate`, with the numbers in `rates`, and refuse with `error`.

        `name` is the label in metrics. Without a `rate`, only tenants whose plan has one are limited.
        """
        self.name = name
        self.key = key
        self.unit = unit
        self.rate = rate
        self.rates = rates
        self._error = error
        self._plans: dict[tuple[float, float], Rate] = {}
        self._refusals: dict[str, tuple[float, RateLimitedError]] = {}

    def rate_for(self, plan: Mapping[str, float]) -> Rate | None:
        """Return the rate for a tenant whose plan has these figures; `None` if it is not limited.

        `<unit>_per_second` of the plan replaces the configured rate and burst; without a burst in the plan
        (`request_burst`, `item_burst`, `byte_burst`), it is one second of the rate. Figures that are not positive are
        ignored.
        """
        per_second = _figure(plan.get(f"{self.unit}_per_second")) if plan else 0.0
        if not per_second:
            return self.rate
        if per_second == math.inf:
            return None
        burst = min(_figure(plan.get(f"{self.unit[:-1]}_burst")) or max(1.0, per_second), MAX_BURST)
        found = self._plans.get((per_second, burst))
        if found is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            found = self._plans[per_second, burst] = Rate(per_second, burst)
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

    def __init__(self, name: str, *, key: Key, most: int | None, error: type[RateLimitedError]) -> None:
        """Allow `most` requests at the same time, or what the plan of a tenant allows, and refuse with `error`."""
        self.name = name
        self.key = key
        self.most = most
        self.requests = RequestsInProgress()
        self._error = error

    def most_for(self, plan: Mapping[str, float]) -> int | None:
        """Return the number for a tenant whose plan has these figures; `None` if it is not limited."""
        figure = _figure(plan.get("concurrent_requests"))
        if not figure:
            return self.most
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

    def __init__(
        self,
        limits: Sequence[LimitSettings],
        preset: str | None,
        throttle_status: int,
        numbers: Callable[[str], Gcra | SharedRates],
    ) -> None:
        """Create the limits; `numbers` creates the place for the numbers of the limit with the given name."""
        error = ThrottledError if throttle_status == _UNAVAILABLE else RateLimitedError
        self.rates: list[RateLimit] = []
        self.concurrency: list[ConcurrencyLimit] = []
        for each in limits:
            if each.rate is not None:
                unit, per_second = each.rate
                name, rate = f"{each.key}_{unit}", Rate(per_second, float(each.burst or max(1.0, per_second)))
                limit = RateLimit(name, key=each.key, unit=unit, rate=rate, rates=numbers(name), error=error)
                self.rates.append(limit)
            if each.concurrent_requests is not None:
                name = f"{each.key}_{_CONCURRENT}"
                counter = ConcurrencyLimit(name, key=each.key, most=each.concurrent_requests, error=error)
                self.concurrency.append(counter)
        self._add_plans(numbers, error)
        self.addresses = [
            (limit, limit.rate)
            for limit in self.rates
            if limit.key == "address" and limit.unit == "requests" and limit.rate is not None
        ]
        """Limits of requests by address, which apply to requests that fail to authenticate too."""
        self._preset = PRESETS[preset] if preset is not None else {}
        self._classes: dict[str, tuple[RateLimit, Rate]] = {}
        for class_, rate in self._preset.items():
            name, key = f"class_{class_}", f"client and the class {class_}"
            limit = RateLimit(name, key=key, unit="requests", rate=rate, rates=numbers(name), error=error)
            self._classes[class_] = limit, rate
        self.every_rate = [*self.rates, *(limit for limit, _ in self._classes.values())]

    def _add_plans(self, numbers: Callable[[str], Gcra | SharedRates], error: type[RateLimitedError]) -> None:
        """Add the limits that only plans of tenants have."""
        units: tuple[Unit, ...] = ("requests", "items", "bytes")
        configured = {limit.unit for limit in self.rates if limit.key == TENANT}
        for unit in units:
            if unit not in configured:
                name = f"{TENANT}_{unit}"
                limit = RateLimit(name, key=TENANT, unit=unit, rate=None, rates=numbers(name), error=error)
                self.rates.append(limit)
        if all(counter.key != TENANT for counter in self.concurrency):
            self.concurrency.append(ConcurrencyLimit(f"{TENANT}_{_CONCURRENT}", key=TENANT, most=None, error=error))

    def of_class(self, route: str) -> tuple[RateLimit, Rate] | None:
        """Return the limit and rate of the class of requests to `route`, or `None` without a preset."""
        return self._classes[class_of_path(route, self._preset)] if self._classes else None


def _figure(value: object) -> float:
    """Return a figure of a plan, or 0 if it is missing or not positive."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else 0.0
