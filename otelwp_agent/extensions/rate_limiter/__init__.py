"""Limit what each tenant, credential, address or route may send, and which addresses may send at all.

Limits apply to the servers that name the extension in `middlewares`. A limit is a rate of requests, items (spans, data
points, log records) or bytes, with a burst, or a number of requests in progress. A request above a limit is refused
before its body is read, if possible, with 429 and the exact `Retry-After`; gRPC: RESOURCE_EXHAUSTED with `RetryInfo`.
Figures in a tenant's plan (`requests_per_second`, `request_burst`, the same for items and bytes, `concurrent_requests`)
replace the figures of limits with `key: tenant`, also where none is configured.

Several agents can share their rates through Redis (`redis`). Each of them leases a part of the rate in the background,
so no request waits for Redis. While Redis is unreachable, each agent allows its part of each limit.

Example::

    extensions:
      rate_limiter:
        limits:
          - key: tenant
            requests_per_second: 50
            burst: 100
          - key: tenant
            items_per_second: 20000
          - key: address
            concurrent_requests: 20
        access:
          deny: [192.0.2.0/24]
        ban:
          failures: 10
          window: 1m
          duration: 5m
    receivers:
      otlp:
        protocols:
          http:
            middlewares: [{id: rate_limiter}]
    service:
      extensions: [rate_limiter]
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from otelwp_agent.component import ComponentConfig, ComponentHealth, Extension, Factory, Kind, Stability, Tier
from otelwp_agent.config.blocks import Ban  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.references import Capability
from otelwp_agent.errors import ForbiddenError, UnauthenticatedError
from otelwp_agent.extensions.rate_limiter.allowance import Allowance
from otelwp_agent.extensions.rate_limiter.config import Access, LimitSettings, SharedLimits
from otelwp_agent.extensions.rate_limiter.limits import TENANT, LimitSet
from otelwp_agent.extensions.rate_limiter.metrics import INSTRUMENTS, LimitMeasures
from otelwp_agent.limiting.addresses import AccessList, parse_network, peer_key
from otelwp_agent.limiting.bans import Bans
from otelwp_agent.limiting.gcra import Gcra
from otelwp_agent.limiting.leases import SharedRates
from otelwp_agent.limiting.redis_store import RedisStore
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.limiting import RequestLimiter

if TYPE_CHECKING:
    from otelwp_agent.component import Context
    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.extensions.rate_limiter.allowance import Charged, Counted
    from otelwp_agent.transport.authentication import Client

MAX_ALLOWANCES = 4096
"""Maximum number of allowances that are kept for later requests; above it, all are forgotten."""
TIDY, TIDY_SHARED = 10.0, 1.0
"""Seconds between two removals of idle keys; shorter with Redis, to which unused units are returned then."""


class Config(ComponentConfig):
    """Settings of `rate_limiter`."""

    limits: list[LimitSettings] = Field(default_factory=list)
    """The limits. A request must be within all of them. Figures in a tenant's plan replace those of the key `tenant`,
    or add limits."""
    preset: Literal["founding"] | None = None
    """Limits by class of requests, for each tenant (or address, without a tenant): `founding` allows 100 requests an
    hour, 10 to routes with a part `auth`, 50 to routes with a part `payment`."""
    access: Access = Access()
    """Addresses that may send, and addresses that may not; the others are answered with 403 before authentication."""
    ban: Ban | None = None
    """Ban addresses that repeatedly fail to authenticate."""
    throttle_status: Literal[429, 503] = 429
    """HTTP status of requests above a limit. Some SDKs take 429 as permanent and drop the data: 503 makes them retry
    (gRPC: UNAVAILABLE instead of RESOURCE_EXHAUSTED)."""
    redis: SharedLimits | None = None
    """Share the rates with other agents. Limits of requests in progress are not shared. Needs
    `pip install otelwp-agent[redis]`."""
    top_tenants: int = Field(20, ge=0, le=1000)
    """Number of tenants that have a label of their own in metrics: the most active ones. The others are `other`."""

    @field_validator("limits")
    @classmethod
    def _are_distinct(cls, limits: list[LimitSettings]) -> list[LimitSettings]:
        seen: set[tuple[str, str]] = set()
        for limit in limits:
            units: list[str] = [limit.rate[0]] if limit.rate is not None else []
            units += ["requests in progress"] if limit.concurrent_requests is not None else []
            for unit in units:
                if (limit.key, unit) in seen:
                    message = f"two limits of the {unit} of each {limit.key}: give one of them"
                    raise ValueError(message)
                seen.add((limit.key, unit))
        return limits


class RateLimiter(Extension, RequestLimiter):
    """Decides on the requests of the servers that refer to it."""

    def __init__(self, config: Config, context: Context) -> None:
        """Prepare the limits; `start` connects to Redis."""
        super().__init__(context)
        self._measures = LimitMeasures(str(context.id), context.registry, context.clock, config.top_tenants)
        access = config.access
        self._access = AccessList([*map(parse_network, access.allow)], [*map(parse_network, access.deny)])
        ban = config.ban
        self._bans = Bans(ban.failures, ban.window, ban.duration) if ban is not None else None
        self._log_bans = LogLimit(context.clock)
        self._store: RedisStore | None = None
        if config.redis is not None:
            self._store = RedisStore(
                config.redis.url.get_secret_value(),
                config.redis.prefix,
                config.redis.timeout,
                clock=context.clock,
                log=context.log,
                on_error=self._measures.redis_failed,
            )
        self._replicas = config.redis.replicas if config.redis is not None else 1
        self._limits = LimitSet(config.limits, config.preset, config.throttle_status, self._numbers)
        if self._store is not None:
            self._store.rates = [each.rates for each in self._limits.every_rate if isinstance(each.rates, SharedRates)]
        self._measures.observe(self._limits.every_rate, self._store)
        self._allowances: dict[tuple[Client | None, str, str], Allowance] = {}
        """By client, address and route. An allowance has no state of its own, so it serves many connections."""
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Connect to Redis in the background."""
        if self._store is not None:
            self._store.start()
        self._tidy()

    async def shutdown(self) -> None:
        """Return the leased units to Redis."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._store is not None:
            await self._store.stop()

    def health(self) -> ComponentHealth | None:
        """Report the connection to Redis. The limiter is healthy without it: the agent allows its share."""
        store = self._store
        if store is None:
            return None
        message = "" if store.connected else f"Redis is unreachable: limits are not shared ({store.failure})"
        details = {"redis": "connected" if store.connected else "unreachable"}
        return ComponentHealth(self.context.kind, str(self.context.id), healthy=True, message=message, details=details)

    # -- called by the gates of servers

    def check(self, peer: str) -> None:
        """Refuse addresses that may not send, are banned, or have no request left."""
        if not peer:
            return
        if not self._access.permits(peer):
            self._measures.refused("", "access")
            raise ForbiddenError("requests of this address are not accepted", reason="denied_address")
        key = peer_key(peer)
        now = self.context.clock()
        error: ConsumeError | None = self._ban_of(key, now)
        if error is not None:
            raise error
        for limit, rate in self._limits.addresses:
            wait = limit.rates.wait(key, rate, now)
            if wait:
                self._measures.refused("", limit.name)
                error = limit.kept_refusal(key, rate, now, wait)
                raise error.with_traceback(None)

    def authentication_failed(self, peer: str, error: ConsumeError) -> None:
        """Count a request without a valid credential: for a ban, and as a request of its address."""
        if not peer:
            return
        key = peer_key(peer)
        now = self.context.clock()
        for limit, rate in self._limits.addresses:
            limit.rates.take(key, rate, now)
        if self._bans is None or not isinstance(error, UnauthenticatedError):
            return
        seconds = self._bans.failed(key, now)
        if seconds:
            self._measures.banned()
            if bans := self._log_bans.take():
                self.context.log.warning("address banned", address=key, seconds=seconds, bans=bans)

    def allowance(self, client: Client | None, peer: str, route: str) -> Allowance:
        """Return what applies to requests of `client` from `peer` to `route`."""
        sender = client, peer, route
        found = self._allowances.get(sender)
        if found is None:
            if len(self._allowances) >= MAX_ALLOWANCES:
                self._allowances.clear()
            found = self._allowances[sender] = self._new_allowance(client, peer, route)
        return found

    def _new_allowance(self, client: Client | None, peer: str, route: str) -> Allowance:
        tenant = client.tenant if client is not None else ""
        address = peer_key(peer) if peer else ""
        keys = {
            "tenant": tenant,
            "credential": client.credential if client is not None else "",
            "address": address,
            "route": route,
        }
        plan = client.limits if client is not None else {}
        requests: list[Charged] = []
        bodies: list[Charged] = []
        concurrent: list[Counted] = []
        for limit in self._limits.rates:
            if limit.key == "address" and not address:
                continue
            own = limit.rate_for(plan) if limit.key == TENANT else limit.rate
            if own is not None:
                (requests if limit.unit == "requests" else bodies).append((limit, keys[limit.key], own))
        for counter in self._limits.concurrency:
            if counter.key == "address" and not address:
                continue
            most = counter.most_for(plan) if counter.key == TENANT else counter.most
            if most is not None:
                concurrent.append((counter, keys[counter.key], most))
        of_class = self._limits.of_class(route)
        if of_class is not None:
            requests.append((of_class[0], tenant or address, of_class[1]))
        return Allowance(
            requests,
            bodies,
            concurrent,
            clock=self.context.clock,
            banned=(lambda now: self._ban_of(address, now)) if self._bans is not None and address else None,
            measures=self._measures,
            tenant=tenant,
        )

    # -- private

    def _numbers(self, name: str) -> Gcra | SharedRates:
        """Return where the numbers of a limit are kept."""
        return Gcra() if self._store is None else SharedRates(name, self._replicas, self._store.wake)

    def _ban_of(self, key: str, now: float) -> ForbiddenError | None:
        """Return the error for an address that is banned, and count its request."""
        if self._bans is None or not self._bans.banned(key, now):
            return None
        self._measures.refused("", "ban")
        return ForbiddenError("this address is banned for some time: too many invalid credentials", reason="banned")

    def _tidy(self) -> None:
        """Forget idle keys."""
        now = self.context.clock()
        for limit in self._limits.every_rate:
            limit.rates.forget_idle(now)
        if self._bans is not None:
            self._bans.forget_idle(now)
        pause = TIDY if self._store is None else TIDY_SHARED
        self._timer = asyncio.get_running_loop().call_later(pause, self._tidy)


FACTORY = Factory(
    kind=Kind.EXTENSION,
    type="rate_limiter",
    config=Config,
    build=RateLimiter,
    signals=frozenset(),
    stability=Stability.BETA,
    tier=Tier.ENTERPRISE,
    capabilities=frozenset({Capability.REQUEST_LIMITER}),
    instruments=INSTRUMENTS,
)
