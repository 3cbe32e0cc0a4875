"""Instruments of `rate_limiter`, with a bounded number of tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Counter, Instrument, InstrumentKind, Registry
from otelwp_agent.telemetry.top_labels import OTHER, TopLabels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.extensions.rate_limiter.limits import RateLimit
    from otelwp_agent.limiting.redis_store import RedisStore

ACCEPTED = Instrument(
    "otelwp_rate_limiter_accepted_requests",
    "Requests within all limits, before their body was read; `tenant` is `other` beyond the most active tenants.",
    labels=("extension", "tenant"),
)
REFUSED = Instrument(
    "otelwp_rate_limiter_refused_requests",
    "Requests refused by a limit, the address list (`access`) or a ban; `tenant` as above.",
    labels=("extension", "limit", "tenant"),
)
BANS = Instrument(
    "otelwp_rate_limiter_bans", "Bans of addresses after failures to authenticate.", labels=("extension",)
)
KEYS = Instrument(
    "otelwp_rate_limiter_keys",
    "Tenants, credentials, addresses or routes that a limit has in memory.",
    InstrumentKind.GAUGE,
    labels=("extension", "limit"),
)
REDIS_CONNECTED = Instrument(
    "otelwp_rate_limiter_redis_connected",
    "1 if the last call of Redis has succeeded, so that limits are shared; 0 if not.",
    InstrumentKind.GAUGE,
    labels=("extension",),
)
REDIS_FAILURES = Instrument(
    "otelwp_rate_limiter_redis_failures",
    "Failed calls of Redis, by reason: connection, timeout, server (an error of Redis) or answer (not valid).",
    labels=("extension", "reason"),
)
INSTRUMENTS = (ACCEPTED, REFUSED, BANS, KEYS, REDIS_CONNECTED, REDIS_FAILURES)


class LimitMeasures:
    """Counts the requests of one extension."""

    def __init__(self, extension: str, registry: Registry, clock: Callable[[], float], top_tenants: int) -> None:
        """Count for the extension with this id, with up to `top_tenants` tenants by name."""
        self._extension = extension
        self._registry = registry
        self._top = TopLabels(top_tenants, clock, self._forget)
        self._accepted: dict[str, Counter] = {}
        self._refused: dict[tuple[str, str], Counter] = {}
        self._bans = registry.counter(BANS, extension=extension)

    def observe(self, limits: Sequence[RateLimit], store: RedisStore | None) -> None:
        """Report the number of keys of `limits`, and the connection to Redis if there is one."""
        for limit in limits:
            count = limit.rates.__len__
            self._registry.gauge(KEYS, callback=count, extension=self._extension, limit=limit.name)
        if store is not None:
            self._registry.gauge(REDIS_CONNECTED, lambda: int(store.connected), extension=self._extension)

    def accepted(self, tenant: str) -> None:
        """Count a request within all limits."""
        label = self._top.label(tenant)
        counter = self._accepted.get(label)
        if counter is None:
            counter = self._accepted[label] = self._registry.counter(ACCEPTED, extension=self._extension, tenant=label)
        counter.value += 1

    def refused(self, tenant: str, limit: str) -> None:
        """Count a request that `limit` has refused."""
        label = self._top.label(tenant)
        counter = self._refused.get((label, limit))
        if counter is None:
            counter = self._refused[label, limit] = self._registry.counter(
                REFUSED, extension=self._extension, limit=limit, tenant=label
            )
        counter.value += 1

    def banned(self) -> None:
        """Count a ban."""
        self._bans.add()

    def redis_failed(self, reason: str) -> None:
        """Count a failed call of Redis."""
        self._registry.counter(REDIS_FAILURES, extension=self._extension, reason=reason).add()

    def _forget(self, tenant: str) -> None:
        """Stop reporting a tenant that is no longer among the most active ones."""
        if tenant == OTHER:  # a tenant of this name: its cells are those of the others
            return
        self._accepted.pop(tenant, None)
        for key in [key for key in self._refused if key[0] == tenant]:
            del self._refused[key]
        for instrument in (ACCEPTED, REFUSED):
            self._registry.remove(instrument, extension=self._extension, tenant=tenant)
