"""Share a bounded capacity fairly among tenants.

Every bounded stage uses one rule: a tenant may use at most a fixed share of the capacity that all others leave free. A
tenant alone may use `share · capacity`. Among `n` tenants that all want more, each gets
`share · capacity / (1 + share · (n - 1))`, so that a part of the capacity always stays free for a tenant that uses
nothing yet. The rule does not need the number of tenants, and a decision takes constant time.

Data without a tenant may use all of the capacity. What they use is not free for tenants.

Reference: A. Choudhury and E. Hahne, "Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM
Transactions on Networking 6(2), 1998.
"""

from __future__ import annotations

DEFAULT_SHARE = 0.5
"""Maximum share of a capacity for a tenant that is alone, unless the configuration sets another one."""


def allowance(capacity: float, share: float, others: float) -> float:
    """Return the most of a capacity that a tenant may use while all others together use `others`."""
    return share * (capacity - others)


class TenantUse:
    """Use of one bounded capacity by each tenant. Tenants that use nothing take no memory."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        """Start with no use."""
        self._used: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of tenants that use anything."""
        return len(self._used)

    def of(self, tenant: str) -> int:
        """Return what a tenant uses."""
        return self._used.get(tenant, 0)

    def add(self, tenant: str, amount: int) -> None:
        """Add to what a tenant uses; a negative amount releases. Data without a tenant are not counted."""
        if not tenant:
            return
        used = self._used.get(tenant, 0) + amount
        if used > 0:
            self._used[tenant] = used
        else:
            self._used.pop(tenant, None)

    def excess(self, tenant: str, amount: int, *, capacity: float, share: float, total: float) -> float | None:
        """Return the allowance of a tenant if it would be exceeded by `amount` more, else `None`.

        `total` is what all together use, whether of tenants or not. A tenant that uses nothing may use any amount
        once, so that a request larger than the allowance is not refused for ever.
        """
        used = self._used.get(tenant)
        if not used:
            return None
        most = allowance(capacity, share, total - used)
        return most if used + amount > most else None
