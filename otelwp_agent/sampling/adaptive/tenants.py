"""Parts of an adaptive sampler that belong to one tenant: its number of keys, and its spending of the budget's tokens.

The tokens are a capacity that tenants share (`fair_share`). The debt of a tenant is what it has spent and time has not
refilled yet. A tenant with more debt than its allowance is sampled with a lower probability, so that its bursts leave
tokens for the others until the next plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.fair_share import allowance

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.guard import TokenBucket

SPENT_SHARE = 0.75
"""Share of the tokens for a tenant that is alone. In balance half of them are spent, so it must be above that."""
STEEPNESS = 4
"""Power of allowance / debt by which probabilities are lowered: twice the allowance divides them by 16."""
LEAST = 1 / 1024
"""Least factor, so that every trace has a chance."""


class TenantBudget:
    """The number of a tenant's keys, and what it has spent."""

    __slots__ = ("_at", "debt", "keys", "name", "rate")

    def __init__(self, name: str, rate: float, now: float) -> None:
        """Start without debt; `rate` units a second are refilled."""
        self.name = name
        self.rate = rate
        self.debt = 0.0
        self.keys = 0
        """Number of its keys with a state of their own."""
        self._at = now

    def factor(self, tokens: TokenBucket) -> float:
        """Return the factor for the tenant's probabilities, given the tokens that all tenants share; at most 1."""
        now = tokens.at
        if now > self._at:
            self.debt = max(0.0, self.debt - (now - self._at) * self.rate)
            self._at = now
        debt = self.debt
        if not debt:
            return 1.0
        others = max(0.0, tokens.capacity - tokens.level - debt)
        most = allowance(tokens.capacity, SPENT_SHARE, min(others, tokens.capacity))
        return 1.0 if debt <= most else max(LEAST, (most / debt) ** STEEPNESS)
