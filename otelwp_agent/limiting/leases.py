"""Share rates with other replicas: spend units that were leased in advance from a common store.

The store (Redis, see `redis_store`) keeps one GCRA number for each key. A replica leases a batch of units of a key in
the background and spends them without asking. Before the first lease of a key, after the leased units are spent, and
while the store is unreachable, the replica's own share applies: the limit divided by the expected replicas. Units that
were spent from the share are reported with the next lease, so the store charges them too.

After an outage, only what is not available again in the share is reported: the other units would have been charged in
the past, and the rate has replaced them.

A lease is at most a share of the burst (or a single request), and leased units that are spent are charged to the
replica's share as well. So of units that are available at once, all replicas together spend at most the burst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.limiting.gcra import MAX_KEYS, Gcra, Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

REFRESH = 0.1
"""Seconds between two regular leases of a key in use."""
ADVANCE = 2 * REFRESH
"""Seconds of the demand that a lease covers, so that the units last until the answer to the next request."""
FRESH = 1.0
"""Seconds for which the last answer of the store is used to calculate waits."""
IDLE = 1.0
"""Seconds after the last request of a key at which its unused units are returned."""
URGENT = 0.02
"""Shortest time in seconds between two leases of one key."""
_WEIGHT = 0.5
"""Weight of the latest interval in the moving average of the demand."""


class Lease:
    """The units of one key that a replica has leased, spent and needs."""

    __slots__ = (
        "ahead_until",
        "asked",
        "demand",
        "heard",
        "key",
        "largest",
        "rate",
        "share",
        "spent",
        "tokens",
        "used",
        "wanted",
    )

    def __init__(self, key: Hashable, rate: Rate, share: Rate, now: float) -> None:
        self.key = key
        self.rate = rate
        self.share = share
        self.tokens = 0.0
        """Leased units that are not spent."""
        self.spent = 0.0
        """Units spent without a lease, not reported yet."""
        self.wanted = 0.0
        """Units requested since the last report, including refused ones."""
        self.demand = 0.0
        """Units requested per second, a moving average."""
        self.largest = 1.0
        """Largest cost of a request, at most the burst."""
        self.used = now
        """Time of the last request."""
        self.asked = now - FRESH
        """Time at which the last report was made."""
        self.heard = -math.inf
        """Time of the last answer."""
        self.ahead_until = -math.inf
        """Time at which the burst is fully available again, according to the last answer."""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A request to the store: charge `spent` units to the key (negative: return them), and lease `want` units.

    At least `least` units are leased, or none. `floor` is used if the store has lost its number: the seconds by which
    the number was ahead of the time.
    """

    key: Hashable
    rate: Rate
    window: float
    spent: float
    floor: float
    want: float
    least: float


class SharedRates:
    """The rates of many keys, shared with other replicas. It has the methods of `Gcra`."""

    __slots__ = (
        "_connected",
        "_connected_at",
        "_due",
        "_leases",
        "_local",
        "_max_keys",
        "_on_demand",
        "_replicas",
        "name",
    )

    def __init__(
        self, name: str, replicas: int, on_demand: Callable[[], None] = lambda: None, max_keys: int = MAX_KEYS
    ) -> None:
        """Share the limit `name` among `replicas`. `on_demand` is called when a lease is needed soon."""
        self.name = name
        self._replicas = replicas
        self._on_demand = on_demand
        self._max_keys = max_keys
        self._local = Gcra(max_keys)
        self._leases: dict[Hashable, Lease] = {}
        self._due: dict[Hashable, Lease] = {}
        """Leases to report or to renew."""
        self._connected = False
        self._connected_at = math.inf
        """Time of the first answer after the last outage."""

    def __len__(self) -> int:
        """Return the number of keys in memory."""
        return max(len(self._leases), len(self._local))

    def take(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Charge `cost` to `key` and return 0 if it is allowed now; otherwise return the seconds to wait."""
        lease = self._leases.get(key)
        if lease is None or lease.rate is not rate:
            lease = self._open(key, rate, now)
            if lease is None:
                return self._local.take(key, rate.share(self._replicas), now, cost)
        lease.used = now
        lease.wanted += cost
        need = min(cost, rate.burst)
        lease.largest = max(lease.largest, need)
        if lease.tokens >= need:
            lease.tokens -= cost
            if lease.tokens < 0:  # the cost exceeds the burst
                lease.spent -= lease.tokens
                lease.tokens = 0.0
            self._local.charge(key, lease.share, now, cost)
            wait = 0.0
        else:
            fresh = self._connected and now - lease.heard <= FRESH
            wait = self._shared_wait(lease, now, need) if fresh else 0.0
            if not wait:
                wait = self._local.take(key, lease.share, now, cost)
                if not wait:
                    lease.spent += cost
                elif fresh:
                    wait = min(wait, REFRESH)  # the store has units, which the next lease gets
                if now - lease.heard >= URGENT:
                    self._on_demand()
        if lease.spent or lease.tokens < lease.largest + lease.demand * REFRESH:
            self._due[key] = lease
        return wait

    def wait(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Return the seconds until `cost` would be allowed, without charging anything."""
        lease = self._leases.get(key)
        if lease is None:
            return self._local.wait(key, rate.share(self._replicas), now, cost)
        need = min(cost, rate.burst)
        if lease.tokens >= need:
            return 0.0
        if self._connected and now - lease.heard <= FRESH:
            return self._shared_wait(lease, now, need)
        return self._local.wait(key, lease.share, now, cost)

    def refund(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> None:
        """Return a `cost` that was charged to `key` and not used."""
        lease = self._leases.get(key)
        if lease is None:
            self._local.refund(key, rate.share(self._replicas), now, cost)
            return
        self._local.refund(key, lease.share, now, cost)
        lease.tokens += cost

    def remaining(self, key: Hashable, rate: Rate, now: float) -> float:
        """Return the units that would be allowed now."""
        lease = self._leases.get(key)
        if lease is None:
            return self._local.remaining(key, rate.share(self._replicas), now)
        if self._connected and now - lease.heard <= FRESH:
            shared = (rate.window - max(0.0, lease.ahead_until - now)) * rate.per_second
            return max(0.0, lease.tokens + shared - lease.spent)
        return max(lease.tokens, self._local.remaining(key, lease.share, now))

    def reset_after(self, key: Hashable, now: float) -> float:
        """Return the seconds after which the burst of `key` is fully available, if nothing more is charged."""
        lease = self._leases.get(key)
        if lease is not None and self._connected and now - lease.heard <= FRESH:
            return max(0.0, lease.ahead_until - now + (lease.spent - lease.tokens) * lease.rate.interval)
        return self._local.reset_after(key, now)

    def forget_idle(self, now: float) -> None:
        """Plan to return the units of idle keys; remove those that have nothing to return."""
        self._local.forget_idle(now)
        for key, lease in list(self._leases.items()):
            if now - lease.used <= IDLE:
                continue
            if self._connected and (lease.tokens or lease.spent):
                self._due[key] = lease
            elif now - lease.used > lease.rate.window + IDLE or now >= lease.ahead_until:
                del self._leases[key]
                self._due.pop(key, None)

    def release(self) -> None:
        """Plan to return the units of all keys: the replica stops."""
        for key, lease in self._leases.items():
            lease.used = -math.inf
            self._due[key] = lease

    # -- the background task

    def requests(self, now: float, limit: int) -> list[LeaseRequest]:
        """Return up to `limit` requests to send now; give each of them to `granted` or to `failed` later."""
        keys = list(self._due)[:limit]
        return [self._request(self._due.pop(key), now) for key in keys]

    def granted(self, request: LeaseRequest, tokens: float, ahead: float, now: float) -> None:
        """Add leased `tokens`; the number of the key is `ahead` seconds ahead of the time."""
        if not self._connected:
            self._connected, self._connected_at = True, now
        lease = self._leases.get(request.key)
        if lease is None:
            return
        lease.tokens += tokens
        if lease.heard < self._connected_at or now - lease.heard > FRESH:  # units were spent while the answer was late
            lease.spent = max(0.0, min(lease.spent, self._outstanding(lease, now) - request.spent))
        lease.heard = now
        lease.ahead_until = now + ahead

    def failed(self, request: LeaseRequest) -> None:
        """Report the units of `request` again later: the store did not answer, or not correctly."""
        lease = self._leases.get(request.key)
        if lease is not None and request.spent > 0:
            lease.spent += request.spent
            self._due[request.key] = lease

    def disconnected(self) -> None:
        """Use the replica's share, in addition to the units that are leased already."""
        self._connected, self._connected_at = False, math.inf

    def _open(self, key: Hashable, rate: Rate, now: float) -> Lease | None:
        """Return a new lease of `key`, or `None` if there are too many."""
        old = self._leases.get(key)
        if old is None and len(self._leases) >= self._max_keys:
            return None
        lease = self._leases[key] = Lease(key, rate, rate.share(self._replicas), now)
        if old is not None:  # the limit of the key has changed
            lease.spent = old.spent - old.tokens
            self._due[key] = lease
        return lease

    def _shared_wait(self, lease: Lease, now: float, need: float) -> float:
        """Return the seconds until all replicas together may spend `need` units, according to the last answer."""
        interval = lease.rate.interval
        return max(0.0, lease.ahead_until - now + (need - lease.tokens) * interval - lease.rate.window)

    def _outstanding(self, lease: Lease, now: float) -> float:
        """Return the units that were spent from the share and are not available again."""
        return self._local.reset_after(lease.key, now) * lease.share.per_second

    def _request(self, lease: Lease, now: float) -> LeaseRequest:
        rate, share = lease.rate, lease.share
        lease.demand += _WEIGHT * (lease.wanted / max(REFRESH, now - lease.asked) - lease.demand)
        lease.wanted, lease.asked = 0.0, now
        window = max(rate.window, ADVANCE)
        if lease.heard < self._connected_at:
            lease.spent = min(lease.spent, self._outstanding(lease, now))
        if now - lease.used > IDLE:
            want, spent = 0.0, lease.spent - lease.tokens
            lease.tokens = 0.0
        else:
            most = max(share.burst, rate.per_second * ADVANCE / self._replicas, lease.largest)
            want = max(0.0, min(most, max(lease.demand * ADVANCE, lease.largest)) - lease.tokens)
            spent = lease.spent
        lease.spent = 0.0
        least = max(0.0, min(want, lease.largest - lease.tokens))
        return LeaseRequest(lease.key, rate, window, spent, max(0.0, lease.ahead_until - now), want, least)
