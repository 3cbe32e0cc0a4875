"""Account of what `batch` holds for each tenant, and refusals of tenants that use their share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import Overloaded
from otelwp_agent.fair_share import TenantUse

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch


class BatchShares:
    """The bytes and groups that each tenant uses. All tenants may use `max_bytes` and `max_groups` (0: no limit)."""

    __slots__ = ("_bytes", "_groups", "_max_bytes", "_max_groups", "_share")

    def __init__(self, max_bytes: int, max_groups: int, share: float) -> None:
        """Start with nothing held; `share` is the most that one tenant alone may use."""
        self._max_bytes = max_bytes
        self._max_groups = max_groups
        self._share = share
        self._bytes = TenantUse()
        self._groups = TenantUse()

    def hold(self, tenant: str, size: int) -> None:
        """Add bytes that a tenant holds; a negative number releases."""
        self._bytes.add(tenant, size)

    def add_groups(self, tenant: str, number: int) -> None:
        """Add groups of a tenant; a negative number removes."""
        self._groups.add(tenant, number)

    def refusal(self, batch: Batch, held: int) -> Overloaded | None:
        """Return the error if the tenant of the batch would hold too much; `held` is what all hold."""
        tenant, size, use = batch.origin.tenant, len(batch.body), self._bytes
        if not tenant or self._share >= 1:
            return None
        most = use.excess(tenant, size, capacity=self._max_bytes, share=self._share, total=held)
        if most is None:
            return None
        message = (
            f"tenant {tenant} fills its share of the batch processor ({use.of(tenant)} of {most:.0f} bytes): the next "
            "stage refuses batches; max_tenant_share is the share"
        )
        return Overloaded(message, retry_after=1.0, reason="tenant_batch_full", tenant=tenant)

    def group_refusal(self, tenant: str, groups: int, wait: float) -> Overloaded | None:
        """Return the error if there can be no further group of a tenant; all have `groups` now."""
        most = self._max_groups
        if not most:
            return None
        if tenant and self._share < 1:
            excess = self._groups.excess(tenant, 1, capacity=most, share=self._share, total=groups)
            if excess is not None:
                message = f"tenant {tenant} uses its share of {most} combinations of metadata values at once"
                return Overloaded(message, retry_after=wait, reason="tenant_metadata_cardinality", tenant=tenant)
        if groups >= most:
            message = f"more than {most} combinations of metadata values at once"
            return Overloaded(message, retry_after=wait, reason="metadata_cardinality")
        return None
