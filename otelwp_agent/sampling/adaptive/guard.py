"""Enforce a budget exactly, even while the estimates are wrong.

Two mechanisms. The first is a token bucket worth four seconds of the budget: below a quarter of its capacity, `factor`
lowers every probability within microseconds rather than at the next tick, so that spending settles at the budget for
any traffic. The second is the exact sum of the last minute, which can never exceed 110 % of the budget.

The first changes probabilities, never single traces, so that adjusted counts of kept traces stay right.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling
    from otelwp_agent.sampling.adaptive.trace import Reason

TOKENS = 4.0
"""Capacity of the bucket in seconds of the budget. Spending of a minute exceeds the budget at most by this and by what
ceilings allow."""
LOW = 0.25
"""Part of the capacity below which probabilities are lowered."""
LEAST = 1 / 32
"""Factor when no tokens are left. It halves with each further quarter that is overdrawn and never becomes 0, so that
every trace has a chance and kept traces can represent the others."""
OVER = 1.1
"""Upper limit of the spending in a minute, as a multiple of its budget."""
WINDOW = 60
"""Length of the exact sum in seconds."""
CEILING_SECONDS = 5.0
"""Seconds of a ceiling's rate that can be used at once."""


class TokenBucket:
    """A token bucket that fills by `rate` a second up to `capacity`. Its level can become negative."""

    __slots__ = ("at", "capacity", "level", "rate")

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        """Start full, with `seconds` of the rate."""
        self.rate = rate
        self.capacity = self.level = rate * seconds
        self.at = now

    def refill(self, now: float) -> None:
        """Add the tokens for the time since the last call."""
        if now > self.at:
            self.level = min(self.level + (now - self.at) * self.rate, self.capacity)
            self.at = now


class BudgetGuard:
    """The token bucket of a budget, and the spending of the last minute."""

    __slots__ = ("_second", "_seconds", "limit", "low", "spent", "tokens")

    def __init__(self, rate: float, now: float) -> None:
        """Start a guard for a budget of `rate` a second."""
        self.tokens = TokenBucket(rate, TOKENS, now)
        self.tokens.level /= 2
        self.low = self.tokens.capacity * LOW
        self.limit = rate * WINDOW * OVER
        self.spent = 0.0
        """Spending in the last 60 whole seconds and the current one."""
        self._second = int(now)
        self._seconds = [0.0] * (WINDOW + 1)

    def advance(self, now: float) -> None:
        """Set the time to `now`: refill the tokens and remove seconds older than a minute from the sum."""
        self.tokens.refill(now)
        second = int(now)
        if second > self._second:
            size = WINDOW + 1
            for expired in range(self._second + 1, min(second, self._second + size) + 1):
                self._seconds[expired % size] = 0.0
            self._second = second
            self.spent = sum(self._seconds)

    def spend(self, weight: float) -> None:
        """Record the cost of a kept trace."""
        self.tokens.level -= weight
        self.spent += weight
        self._seconds[self._second % (WINDOW + 1)] += weight

    def has_capacity(self, weight: float) -> bool:
        """Return whether a trace of this weight fits in the minute.

        A trace larger than a minute's limit fits in an empty minute.
        """
        return self.spent + weight <= self.limit or not self.spent

    @property
    def is_low(self) -> bool:
        """Whether `factor` is below 1."""
        return self.tokens.level < self.low

    def factor(self) -> float:
        """Return the number by which probabilities are to be multiplied now; at most 1."""
        quarters = self.tokens.level / self.low
        if quarters <= 0:
            return LEAST * math.exp2(max(quarters, -20.0))
        return max(min(quarters, 1.0), LEAST)

    def last_minute(self) -> list[float]:
        """Return the spending of each second, the current one last."""
        size = WINDOW + 1
        return [self._seconds[(self._second + 1 + at) % size] for at in range(size)]

    def resume(self, level: float, seconds: list[float]) -> None:
        """Restore `tokens.level` and the result of `last_minute`, as if no time had passed since."""
        self.tokens.level = min(level, self.tokens.capacity)
        size = WINDOW + 1
        for at, weight in enumerate(seconds[-size:]):
            self._seconds[(self._second + 1 + at + size - len(seconds[-size:])) % size] = weight
        self.spent = sum(self._seconds)


class Limit:
    """Token buckets of a ceiling, all of which must have tokens.

    One is in the budget's unit for the ceiling's share, one in traces for its rate.
    """

    __slots__ = ("_kinds", "over", "reason")

    def __init__(self, reason: Reason, ceiling: Ceiling, budget: Budget | None, now: float) -> None:
        """Start with full buckets for traces kept because of `reason`."""
        self.reason = reason
        self.over = 0
        """Number of traces that exceeded the ceiling."""
        self._kinds: list[tuple[bool, TokenBucket]] = []
        if ceiling.share is not None and budget is not None:
            self._kinds.append((True, TokenBucket(ceiling.share * budget.rate, CEILING_SECONDS, now)))
        if ceiling.traces_per_second is not None:
            self._kinds.append((False, TokenBucket(ceiling.traces_per_second, CEILING_SECONDS, now)))
            # A ceiling that allows less than one trace in that time still allows one at once.
            self._kinds[-1][1].capacity = max(self._kinds[-1][1].capacity, 1.0)

    def share(self, other: Limit) -> None:
        """Use the buckets of `other` from now on."""
        self._kinds = other._kinds

    def has_capacity(self, now: float) -> bool:
        """Return whether there are tokens for a trace."""
        for _, tokens in self._kinds:
            tokens.refill(now)
            if tokens.level <= 0:
                return False
        return True

    def charge(self, weight: float, traces: float = 1.0) -> None:
        """Remove the tokens for a trace; `traces` is 0 for more spans of a trace that was charged before."""
        for by_weight, tokens in self._kinds:
            tokens.level -= weight if by_weight else traces

    @property
    def levels(self) -> list[float]:
        """Token levels: of the share, of the rate, or of both."""
        return [tokens.level for _, tokens in self._kinds]

    def resume(self, levels: list[float]) -> None:
        """Restore the token levels from `levels`, if they belong to a ceiling with the same buckets."""
        if len(levels) == len(self._kinds):
            for (_, tokens), level in zip(self._kinds, levels, strict=True):
                tokens.level = min(level, tokens.capacity)
