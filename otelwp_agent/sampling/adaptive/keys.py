"""The keys of an adaptive sampler: the measurements of each, and which keys are tracked if there are too many."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from otelwp_agent.fair_share import DEFAULT_SHARE, allowance
from otelwp_agent.sampling.adaptive.estimates import Tally
from otelwp_agent.sampling.adaptive.histogram import LogHistogram
from otelwp_agent.sampling.adaptive.tenants import TenantBudget
from otelwp_agent.sampling.adaptive.trace import OTHER, Key
from otelwp_agent.sampling.consistent import ALWAYS, probability_of
from otelwp_agent.telemetry.space_saving import SpaceSaving

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

HALF_LIFE, LONGEST = 10.0, 300.0
"""Half-life in seconds of measurements, for frequent keys and for the rarest."""
EVENTS = 10.0
"""Number of traces that a measurement should cover, so that rare keys are measured over a longer time."""
SURPRISE = 4.0
"""Standard errors (of a Poisson count) from which a difference is no noise but a change of traffic, adopted at once."""
BELIEVED = 0.9
"""Weight of the new measurement after such a change."""
SWAP_EVERY = 10.0
"""Seconds after which the heaviest untracked keys replace the lightest tracked ones."""
SWAP_AT_MOST = 100
OUTWEIGHS = 2.0
"""Factor by which they must be heavier; otherwise keys of the same weight would replace each other for ever."""
REFRESH_SLOW = 32
"""Number of traces of a key after which its percentile is updated."""
REMEMBERED = 4096.0
"""Number of durations from which older ones are halved."""


class KeyState:
    """The measurements of one key."""

    __slots__ = (
        "adjusted",
        "adjusted_rate",
        "arrived",
        "durations",
        "earlier",
        "firsts",
        "last_seen",
        "measured",
        "seen",
        "shared",
        "slow_above",
        "tally",
        "tenant",
        "threshold",
        "traffic",
        "weight",
        "weight_rate",
    )

    def __init__(self, now: float, slow_above: float, threshold: int = ALWAYS) -> None:
        """Start without measurements, with a provisional threshold."""
        self.threshold = threshold
        """T of the probability that the budget gives the key."""
        self.tenant: TenantBudget | None = None
        """The tenant that the key belongs to, if it has one."""
        self.shared = False
        """Whether several keys share this state, because there are too many."""
        self.seen = -1
        """Traces since the last tick, without the very first trace of the key: that one caused the measurement and does
        not indicate how many follow. `weight` is the cost of those that were decided by the key's own probability,
        `adjusted` the cost of all traces that they represent."""
        self.weight = 0.0
        self.adjusted = 0.0
        self.traffic = 0.0
        """Traces a second."""
        self.weight_rate = 0.0
        """`weight` a second; `adjusted_rate` is `adjusted` a second."""
        self.adjusted_rate = 0.0
        self.measured = 0.0
        """Seconds since the key was first seen."""
        self.last_seen = now
        self.arrived = 0
        """Traces since the window of the estimates began."""
        self.firsts = 0
        """Traces kept as the first ones of the key."""
        self.durations: LogHistogram | None = None
        """Durations of all traces, recorded only if a percentile is to be learned."""
        self.slow_above = slow_above
        """Seconds from which a trace is slow."""
        self.tally = Tally()
        """Kept traces in the current window of the estimates; `earlier`: in the window before."""
        self.earlier: Tally | None = None

    @property
    def probability(self) -> float:
        """Probability with which a trace of the key is kept."""
        return probability_of(self.threshold)

    def learn(self, bucket: int, q: float, fixed: float, at_least: int) -> None:
        """Record the bucket of a duration, and update from which duration on a trace is slow.

        That is above the quantile `q` once `at_least` durations are recorded, and at most `fixed`.
        """
        durations = self.durations
        if durations is None:
            durations = self.durations = LogHistogram()
        durations.add(bucket)
        total = durations.total
        if total >= at_least and (total % REFRESH_SLOW == 0 or total == at_least):
            if total >= REMEMBERED:
                durations.halve()
            self.slow_above = min(fixed, durations.quantile(q))

    def surprises(self, elapsed: float) -> bool:
        """Return whether the difference from the expected traffic since the last tick is too large to be noise."""
        expected = self.traffic * elapsed
        return (self.seen - expected) ** 2 > SURPRISE**2 * (expected if expected > 1 else 1.0)

    def measure(self, now: float, elapsed: float, least: float = 0.0) -> None:
        """Update the rates `elapsed` seconds after the last tick.

        The new measurement has at least the weight `least`.
        """
        self.measured += elapsed
        traffic = self.traffic
        if traffic * HALF_LIFE >= EVENTS:
            half_life = HALF_LIFE
        elif traffic * LONGEST <= EVENTS:
            half_life = LONGEST
        else:
            half_life = EVENTS / traffic
        part = max(1 - 0.5 ** (elapsed / half_life), elapsed / self.measured, least)
        if not self.seen:
            self.scale(1 - part)
            return
        each = part / elapsed
        rest = 1 - part
        self.traffic = traffic * rest + self.seen * each
        self.weight_rate = self.weight_rate * rest + self.weight * each
        self.adjusted_rate = self.adjusted_rate * rest + self.adjusted * each
        self.last_seen = now
        self.seen = 0
        self.weight = self.adjusted = 0.0

    def scale(self, factor: float) -> None:
        """Multiply the rates by `factor`."""
        self.traffic *= factor
        self.weight_rate *= factor
        self.adjusted_rate *= factor


class Keys:
    """All keys, at most `limit`. Later keys share `OTHER` until they are heavier than a tracked key.

    The key of a tenant ends with its name. Tenants share the number of keys (`fair_share`): a tenant alone may have the
    part `share` of it, and its other keys share a state of their own.
    """

    def __init__(
        self, limit: int, forget_after: float, slow_above: float, now: float, share: float = DEFAULT_SHARE
    ) -> None:
        """Start without keys."""
        self._limit = limit
        self._share = share
        self._forget_after = forget_after
        self.slow_above = slow_above
        self._sketch: SpaceSaving[Key] = SpaceSaving(max(limit // 10, 10))
        self._swapped = now
        self.new_threshold = ALWAYS
        """Threshold of keys without measurements."""
        self.new_rate = math.inf
        """Budget of a new tenant, in units a second."""
        self.states: dict[Key, KeyState] = {}
        self.tenants: dict[str, TenantBudget] = {}
        self.others: dict[str, KeyState] = {}
        """By tenant: the state of its keys beyond its share of `limit`."""
        self.other = KeyState(now, slow_above)
        self.other.seen = 0
        self.other.shared = True

    def __iter__(self) -> Iterator[tuple[Key, KeyState]]:
        """Iterate over all keys and their states; `OTHER` is last if it has traffic."""
        yield from self.states.items()
        if self.other.traffic or self.other.seen:
            yield OTHER, self.other
        for tenant, state in self.others.items():
            yield (*OTHER, tenant), state

    def find(self, key: Key) -> KeyState:
        """Return the state of a key, or the shared one."""
        return self.states.get(key) or (self.others.get(key[-1]) if key else None) or self.other

    def admit(self, key: Key, now: float, tenant: str = "") -> KeyState:
        """Return a state for an unknown key: a new one, or a shared one if the limit is reached."""
        if tenant:
            return self._admit_of(tenant, key, now)
        if len(self.states) < self._limit:
            state = self.states[key] = KeyState(now, self.slow_above, self.new_threshold)
            return state
        self._sketch.add(key)
        return self.other

    def all(self) -> list[KeyState]:
        """Return all states."""
        return [*self.states.values(), *self.others.values(), self.other]

    def restore(self, states: dict[Key, KeyState], of_tenants: Container[Key], now: float) -> None:
        """Replace all keys with saved ones; those in `of_tenants` end with the name of their tenant."""
        self.states, self.tenants, self.others = states, {}, {}
        for key, state in states.items():
            if key in of_tenants:
                state.tenant = self.tenants.setdefault(key[-1], TenantBudget(key[-1], self.new_rate, now))
                state.tenant.keys += 1

    def _admit_of(self, name: str, key: Key, now: float) -> KeyState:
        """Return a state for an unknown key of a tenant."""
        number, tenant = len(self.states), self.tenants.get(name)
        if tenant is None:
            if len(self.tenants) >= self._limit:
                return self.other
            tenant = self.tenants[name] = TenantBudget(name, self.new_rate, now)
        most = allowance(self._limit, self._share, number - tenant.keys)
        if number < self._limit and (not tenant.keys or tenant.keys < most):
            state = self.states[key] = KeyState(now, self.slow_above, self.new_threshold)
            tenant.keys += 1
        elif name in self.others:
            return self.others[name]
        else:
            state = self.others[name] = KeyState(now, self.slow_above, self.new_threshold)
            state.seen, state.shared = 0, True
        state.tenant = tenant
        return state

    def _forget(self, key: Key) -> None:
        """Remove a key; remove its tenant with the last one."""
        tenant = self.states.pop(key).tenant
        if tenant is not None:
            tenant.keys -= 1
            self._forget_idle(tenant)

    def _forget_idle(self, tenant: TenantBudget) -> None:
        if not tenant.keys and tenant.name not in self.others:
            del self.tenants[tenant.name]

    def measure(self, now: float, elapsed: float) -> None:
        """Update all rates, remove old keys, and exchange light tracked keys for heavier untracked ones."""
        seen = expected = 0.0
        calm = []
        for state in self.all():
            if state.surprises(elapsed):
                state.measure(now, elapsed, BELIEVED)
            else:
                calm.append(state)
                seen += state.seen
                expected += state.traffic * elapsed
        # A change that affects all keys can be too small to be noticed in any of them.
        surprise = abs(seen - expected) > SURPRISE * math.sqrt(max(expected, 1.0))
        factor = seen / expected if surprise and expected else 1.0
        for state in calm:
            if factor != 1.0:
                state.scale(factor)
            state.measure(now, elapsed)
        forget_before = now - self._forget_after
        for name in [name for name, state in self.others.items() if state.last_seen < forget_before]:
            del self.others[name]
            self._forget_idle(self.tenants[name])
        for key in [key for key, state in self.states.items() if state.last_seen < forget_before]:
            self._forget(key)
        if now - self._swapped >= SWAP_EVERY:
            self._swap(now)

    def _swap(self, now: float) -> None:
        """Replace the lightest tracked keys by heavier untracked ones."""
        elapsed = now - self._swapped
        self._swapped = now
        if not len(self._sketch):
            return
        heaviest = self._sketch.heaviest(SWAP_AT_MOST)
        self._sketch.clear()
        free = self._limit - len(self.states)
        lightest = heapq.nsmallest(len(heaviest), self.states.items(), key=lambda entry: (entry[1].traffic, entry[0]))
        for key, count in heaviest:
            traffic = count / elapsed
            if free > 0:
                free -= 1
            elif lightest and traffic > OUTWEIGHS * lightest[0][1].traffic:
                self._forget(lightest.pop(0)[0])
            else:
                break
            state = self.states[key] = KeyState(now, self.slow_above)
            # Start with the traffic measured so far. None of its traces counts as the first.
            state.measured = elapsed
            state.traffic = traffic
            state.seen = 0
            if self.other.traffic:
                of_other = traffic / self.other.traffic
                state.weight_rate = self.other.weight_rate * of_other
                state.adjusted_rate = self.other.adjusted_rate * of_other
            state.firsts = 1 << 30
