"""What was spent, and what may be: the guard that keeps a budget whatever the estimates say.

Two measures. Tokens, worth four seconds of the budget: below a quarter of them `factor` makes every probability
smaller, in microseconds rather than at the next tick, so that spending settles at the budget however much arrives. And
the exact sum of the last minute, which nothing may lift above 110 % of the budget.

Both act on probabilities, never on single traces: what is kept still says truly how many it stands for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling
    from otelwp_agent.sampling.adaptive.trace import Reason

TOKENS = 4.0
"""Seconds of the budget. A minute's spending exceeds the budget by at most this and what ceilings let through."""
LOW = 0.25
"""The part of the tokens below which probabilities fall."""
LEAST = 1 / 32
"""The factor when none are left. It halves with each further quarter of them that is overdrawn: everybody still has a
chance, so that what is kept can stand for the rest."""
OVER = 1.1
"""Of the budget: what a minute may cost."""
WINDOW = 60
"""Seconds of the guard."""
CEILING_SECONDS = 5.0
"""Of a ceiling, which can be used up at once."""


class TokenBucket:
    """A bucket that fills by `rate` a second up to `capacity`; it may be overdrawn once, and fills up from there."""

    __slots__ = ("at", "capacity", "level", "rate")

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        """Begin full, with `seconds` of the rate."""
        self.rate = rate
        self.capacity = self.level = rate * seconds
        self.at = now

    def refill(self, now: float) -> None:
        """Add what time has brought."""
        if now > self.at:
            self.level = min(self.level + (now - self.at) * self.rate, self.capacity)
            self.at = now


class BudgetGuard:
    """A budget's tokens, and what the last minute cost."""

    __slots__ = ("_second", "_seconds", "limit", "low", "spent", "tokens")

    def __init__(self, rate: float, now: float) -> None:
        """Begin a guard for `rate` a second."""
        self.tokens = TokenBucket(rate, TOKENS, now)
        self.tokens.level /= 2
        self.low = self.tokens.capacity * LOW
        self.limit = rate * WINDOW * OVER
        self.spent = 0.0
        """In the last 60 whole seconds, and the one that has begun."""
        self._second = int(now)
        self._seconds = [0.0] * (WINDOW + 1)

    def advance(self, now: float) -> None:
        """Go on to `now`: refill, and forget what is older than a minute."""
        self.tokens.refill(now)
        second = int(now)
        if second > self._second:
            size = WINDOW + 1
            for gone in range(self._second + 1, min(second, self._second + size) + 1):
                self._seconds[gone % size] = 0.0
            self._second = second
            self.spent = sum(self._seconds)

    def spend(self, weight: float) -> None:
        """Book what was kept."""
        self.tokens.level -= weight
        self.spent += weight
        self._seconds[self._second % (WINDOW + 1)] += weight

    def has_room(self, weight: float) -> bool:
        """Say whether the minute can bear it. What alone exceeds a whole minute is borne by an empty one."""
        return self.spent + weight <= self.limit or not self.spent

    @property
    def is_low(self) -> bool:
        """Whether `factor` is below 1."""
        return self.tokens.level < self.low

    def factor(self) -> float:
        """Return by how much probabilities are to be multiplied now; at most 1."""
        quarters = self.tokens.level / self.low
        if quarters <= 0:
            return LEAST * math.exp2(max(quarters, -20.0))
        return max(min(quarters, 1.0), LEAST)

    def last_minute(self) -> list[float]:
        """Return what was spent in each second, the one that has begun last."""
        size = WINDOW + 1
        return [self._seconds[(self._second + 1 + at) % size] for at in range(size)]

    def resume(self, level: float, seconds: list[float]) -> None:
        """Go on from what `tokens.level` and `last_minute` said, as if no time had passed since."""
        self.tokens.level = min(level, self.tokens.capacity)
        size = WINDOW + 1
        for at, weight in enumerate(seconds[-size:]):
            self._seconds[(self._second + 1 + at + size - len(seconds[-size:])) % size] = weight
        self.spent = sum(self._seconds)


class Limit:
    """A ceiling's tokens: in the budget's unit for its share, in traces for its rate. Either can say no."""

    __slots__ = ("_kinds", "over", "reason")

    def __init__(self, reason: Reason, ceiling: Ceiling, budget: Budget | None, now: float) -> None:
        """Begin with a full ceiling for what is kept for `reason`."""
        self.reason = reason
        self.over = 0
        """Traces that it had no room for."""
        self._kinds: list[tuple[bool, TokenBucket]] = []
        if ceiling.share is not None and budget is not None:
            self._kinds.append((True, TokenBucket(ceiling.share * budget.rate, CEILING_SECONDS, now)))
        if ceiling.traces_per_second is not None:
            self._kinds.append((False, TokenBucket(ceiling.traces_per_second, CEILING_SECONDS, now)))
            # One that lets less than a trace through in that time still lets one through at once.
            self._kinds[-1][1].capacity = max(self._kinds[-1][1].capacity, 1.0)

    def share(self, other: Limit) -> None:
        """Take tokens from another one's from now on."""
        self._kinds = other._kinds

    def has_room(self, now: float) -> bool:
        """Say whether there are tokens for a trace."""
        for _, tokens in self._kinds:
            tokens.refill(now)
            if tokens.level <= 0:
                return False
        return True

    def charge(self, weight: float, traces: float = 1.0) -> None:
        """Take a trace's tokens; `traces` is 0 for more of one that was charged before."""
        for by_weight, tokens in self._kinds:
            tokens.level -= weight if by_weight else traces

    @property
    def levels(self) -> list[float]:
        """What is left: of the share, of the rate, or of both."""
        return [tokens.level for _, tokens in self._kinds]

    def resume(self, levels: list[float]) -> None:
        """Go on from what `levels` said, if that was of a ceiling of the same kinds."""
        if len(levels) == len(self._kinds):
            for (_, tokens), level in zip(self._kinds, levels, strict=True):
                tokens.level = min(level, tokens.capacity)
