"""Decide whether the journal accepts a request now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import Overloaded
from otelwp_agent.fair_share import DEFAULT_SHARE, TenantUse

if TYPE_CHECKING:
    from otelwp_agent.journal.entry_store import EntryStore
    from otelwp_agent.journal.failure import Failure

MAX_UNWRITTEN = 16 * 2**20
"""Bytes of bodies that may wait for a slow disk before senders are refused."""


class Admission:
    """The capacity of the journal: on disk, and of bodies in memory that wait to be written.

    Both are shared by tenants (`fair_share`): `max_tenant_share` is the most that one tenant alone may use.
    """

    def __init__(
        self, entry_store: EntryStore, failure: Failure, max_size: int, max_tenant_share: float = DEFAULT_SHARE
    ) -> None:
        """Accept nothing before `measure`."""
        self.unwritten = 0
        """Bytes of the bodies that wait or are being written."""
        self.closed = True
        self.max_size = max_size
        self._capacity = 0
        """Bytes of bodies that may wait, given the space on disk and in memory."""
        self._entry_store = entry_store
        self._failure = failure
        self._share = max_tenant_share
        self._unwritten_use = TenantUse()

    def measure(self) -> None:
        """Compute the capacity again, after a write."""
        self._capacity = 0 if self.closed else min(self.max_size - self._entry_store.stored, MAX_UNWRITTEN)

    @property
    def full(self) -> bool:
        """Whether the journal has reached its largest size."""
        return self._entry_store.stored + self.unwritten >= self.max_size

    def add(self, tenant: str, size: int) -> None:
        """Add a body that waits to be written."""
        self.unwritten += size
        self._unwritten_use.add(tenant, size)

    def remove(self, tenant: str, size: int) -> None:
        """Remove a body that was written or refused."""
        self.unwritten -= size
        self._unwritten_use.add(tenant, -size)

    def admit_tenant(self, tenant: str, size: int) -> None:
        """Raise `Overloaded` if a body of a tenant exceeds the tenant's share of the disk, or of what waits for it."""
        if not tenant or self._share >= 1:
            return
        store, unwritten = self._entry_store, self._unwritten_use.of(tenant)
        total = store.used + self.unwritten - unwritten
        most = store.use.excess(tenant, unwritten + size, capacity=self.max_size, share=self._share, total=total)
        if most is not None:
            raise Overloaded(
                f"tenant {tenant} fills its share of the journal ({store.use.of(tenant)} of {most:.0f} "
                "bytes): what it sent must be delivered first; service.journal.max_tenant_share is the share",
                retry_after=5.0,
                reason="tenant_journal_full",
                tenant=tenant,
            )
        most = self._unwritten_use.excess(tenant, size, capacity=MAX_UNWRITTEN, share=self._share, total=self.unwritten)
        if most is not None:
            raise Overloaded(
                f"tenant {tenant} sends faster than the disk under the journal can write",
                retry_after=1.0,
                reason="tenant_journal_slow",
                tenant=tenant,
            )

    def admit(self) -> None:
        """Raise `Overloaded` if nothing can be accepted now."""
        if self.unwritten < self._capacity and not self._failure.message:
            return
        self._failure.check()
        if self.full:
            raise Overloaded(
                f"the journal is full ({self._entry_store.stored} of {self.max_size} bytes): what it holds must be "
                "delivered first",
                retry_after=5.0,
                reason="journal_full",
            )
        if self.closed:
            raise Overloaded("the agent is shutting down", reason="shutting_down")
        if self.unwritten >= MAX_UNWRITTEN:
            raise Overloaded("the disk under the journal does not keep up", retry_after=1.0, reason="journal_slow")
