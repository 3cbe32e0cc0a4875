"""The keys of an adaptive sampler: what is known of each, and which of too many are told apart."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from otelwp_agent.sampling.adaptive.estimates import Tally
from otelwp_agent.sampling.adaptive.heavy import SpaceSaving
from otelwp_agent.sampling.adaptive.histogram import LogHistogram
from otelwp_agent.sampling.adaptive.trace import OTHER, Key
from otelwp_agent.sampling.consistent import ALWAYS, probability_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HALF_LIFE, LONGEST = 10.0, 300.0
"""Seconds after which what was measured counts half, of heavy keys and of rare ones."""
EVENTS = 10.0
"""Traces that a measurement should rest on: so rare keys' last longer."""
SURPRISE = 4.0
"""Standard errors (of a Poisson count) from which a tick is no noise but a change, which is believed at once."""
BELIEVED = 0.9
"""How much of a change that surprises."""
SWAP_EVERY = 10.0
"""Seconds after which the heaviest untold keys take the places of the lightest told ones."""
SWAP_AT_MOST = 100
OUTWEIGHS = 2.0
"""How much heavier they have to be: keys of the same weight would change places for ever."""
REFRESH_SLOW = 32
"""Traces of a key after which its percentile is read again."""
REMEMBERED = 4096.0
"""Durations from which the older half fades."""


class KeyState:
    """What is known of one key."""

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
        "slow_above",
        "tally",
        "threshold",
        "traffic",
        "weight",
        "weight_rate",
    )

    def __init__(self, now: float, slow_above: float, threshold: int = ALWAYS) -> None:
        """Begin: nothing known, and `threshold` in the meantime."""
        self.threshold = threshold
        """T of the probability that the budget leaves it."""
        self.seen = -1
        """Traces since the last tick, but for the key's very first one: it is why we look, and says nothing of how many
        follow. `weight` and `adjusted` are of those among them that are left to the key's own
        probability: what they cost, and what those cost that they stand for."""
        self.weight = 0.0
        self.adjusted = 0.0
        self.traffic = 0.0
        """Traces a second."""
        self.weight_rate = 0.0
        """`weight` a second, `adjusted` a second."""
        self.adjusted_rate = 0.0
        self.measured = 0.0
        """Seconds for which it is known."""
        self.last_seen = now
        self.arrived = 0
        """Traces since the estimates' window began."""
        self.firsts = 0
        """Traces kept as the first ones."""
        self.durations: LogHistogram | None = None
        """Of all traces; only if a percentile is to be learned."""
        self.slow_above = slow_above
        """Seconds from which a trace is slow."""
        self.tally = Tally()
        """What was kept in the estimates' window, and (`earlier`) in the window before."""
        self.earlier: Tally | None = None

    @property
    def probability(self) -> float:
        """How probable it is that a trace of the key is kept by chance."""
        return probability_of(self.threshold)

    def learn(self, bucket: int, q: float, fixed: float, at_least: int) -> None:
        """Learn from a duration's bucket what slow is: above the quantile `q` once `at_least` are known, or `fixed`."""
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
        """Say whether what was seen since the last tick cannot be noise."""
        expected = self.traffic * elapsed
        return (self.seen - expected) ** 2 > SURPRISE**2 * (expected if expected > 1 else 1.0)

    def measure(self, now: float, elapsed: float, least: float = 0.0) -> None:
        """Bring the rates up to date, `elapsed` seconds after the last tick; what is new counts `least` at least."""
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
        """Assume `factor` times the traffic."""
        self.traffic *= factor
        self.weight_rate *= factor
        self.adjusted_rate *= factor


class Keys:
    """All keys, at most `limit`; what comes after shares `OTHER`, until it proves heavier than one that is told."""

    def __init__(self, limit: int, forget_after: float, slow_above: float, now: float) -> None:
        """Begin without keys."""
        self._limit = limit
        self._forget_after = forget_after
        self.slow_above = slow_above
        self._sketch = SpaceSaving(max(limit // 10, 10))
        self._swapped = now
        self.new_threshold = ALWAYS
        """Of keys that nothing is known of."""
        self.states: dict[Key, KeyState] = {}
        self.other = KeyState(now, slow_above)
        self.other.seen = 0

    def __iter__(self) -> Iterator[tuple[Key, KeyState]]:
        """Go through all keys; `OTHER` comes last, if there is any."""
        yield from self.states.items()
        if self.other.traffic or self.other.seen:
            yield OTHER, self.other

    def find(self, key: Key) -> KeyState:
        """Return the state of a key, or the one it shares."""
        return self.states.get(key) or self.other

    def admit(self, key: Key, now: float) -> KeyState:
        """Return the state of a key that has none: a new one, or `other`."""
        if len(self.states) < self._limit:
            state = self.states[key] = KeyState(now, self.slow_above, self.new_threshold)
            return state
        self._sketch.add(key)
        return self.other

    def all(self) -> list[KeyState]:
        """Return all states."""
        return [*self.states.values(), self.other]

    def measure(self, now: float, elapsed: float) -> None:
        """Bring all rates up to date, forget keys, and give places to those that deserve them."""
        seen = expected = 0.0
        calm = []
        for state in self.all():
            if state.surprises(elapsed):
                state.measure(now, elapsed, BELIEVED)
            else:
                calm.append(state)
                seen += state.seen
                expected += state.traffic * elapsed
        # A change in all keys can be too small to be seen in any of them.
        surprise = abs(seen - expected) > SURPRISE * math.sqrt(max(expected, 1.0))
        factor = seen / expected if surprise and expected else 1.0
        for state in calm:
            if factor != 1.0:
                state.scale(factor)
            state.measure(now, elapsed)
        forget_before = now - self._forget_after
        for key in [key for key, state in self.states.items() if state.last_seen < forget_before]:
            del self.states[key]
        if now - self._swapped >= SWAP_EVERY:
            self._swap(now)

    def _swap(self, now: float) -> None:
        """Give the places of the lightest keys to heavier ones that have none."""
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
                del self.states[lightest.pop(0)[0]]
            else:
                break
            state = self.states[key] = KeyState(now, self.slow_above)
            # It comes in as heavy as it is: it was seen before, and is no first sight.
            state.measured = elapsed
            state.traffic = traffic
            state.seen = 0
            if self.other.traffic:
                of_other = traffic / self.other.traffic
                state.weight_rate = self.other.weight_rate * of_other
                state.adjusted_rate = self.other.adjusted_rate * of_other
            state.firsts = 1 << 30
