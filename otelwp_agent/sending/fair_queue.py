"""One queue for each tenant, served in turn: deficit round-robin, in bytes.

Each tenant has a deficit: the bytes that it may send. If it is a tenant's turn and the deficit is less than the size of
its first batch, it gets `QUANTUM` bytes more and moves to the end of the ring. So all tenants with waiting batches send
the same number of bytes, whatever the size and number of their batches. A tenant that is alone is not limited.

Invariants:

* A tenant's queue is in the ring if, and only if, a batch waits in it.
* While the first batch of a tenant waits, each other tenant sends at most the bytes of that batch, plus `QUANTUM`, plus
  one batch.
* Within a tenant's queue, parts and retries come before batches that were never sent; otherwise it is first in, first
  out.

Reference: M. Shreedhar and G. Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from otelwp_agent.sending.queued_batch import TenantQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.sending.queued_batch import QueuedBatch

QUANTUM = 64 * 1024
"""Bytes that a tenant may send in one round: about one large request."""
IDLE_TENANTS = 256
"""Maximum number of tenants' queues before the empty ones are deleted; keeping some avoids making one per batch."""


class FairQueue:
    """The tenants' queues, and the order of their turns."""

    __slots__ = ("_tenants", "ring")

    def __init__(self) -> None:
        """Start empty."""
        self._tenants: dict[str, TenantQueue] = {}
        self.ring: deque[TenantQueue] = deque()
        """Queues in which a batch waits, the next one first; true if there is any."""

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return sum(map(len, self.ring))

    def __iter__(self) -> Iterator[TenantQueue]:
        """Iterate over the queues of all tenants with batches that are not released."""
        return (tenant_queue for tenant_queue in self._tenants.values() if tenant_queue.size or tenant_queue.bytes)

    def of(self, tenant: str) -> TenantQueue:
        """Return the queue of a tenant."""
        tenant_queue = self._tenants.get(tenant)
        if tenant_queue is None:
            if len(self._tenants) >= IDLE_TENANTS:
                self._tenants = {tenant_queue.tenant: tenant_queue for tenant_queue in self}
            tenant_queue = self._tenants[tenant] = TenantQueue(tenant)
        return tenant_queue

    def append(self, entry: QueuedBatch) -> None:
        """Append a batch to the queue of its tenant."""
        tenant_queue = entry.tenant_queue
        if not (tenant_queue.waiting or tenant_queue.first):
            self._enter(tenant_queue)
        tenant_queue.waiting.append(entry)

    def append_first(self, entry: QueuedBatch) -> None:
        """Append a batch after its tenant's parts and retries, before the batches that were never sent."""
        tenant_queue = entry.tenant_queue
        if not (tenant_queue.waiting or tenant_queue.first):
            self._enter(tenant_queue)
        tenant_queue.first.append(entry)

    def take(self) -> QueuedBatch:
        """Remove and return the batch whose turn it is. There must be one."""
        ring = self.ring
        tenant_queue = ring[0]
        queue = tenant_queue.first or tenant_queue.waiting
        if len(ring) > 1:
            while queue[0].bytes > tenant_queue.deficit:
                tenant_queue.deficit += QUANTUM
                ring.rotate(-1)
                tenant_queue = ring[0]
                queue = tenant_queue.first or tenant_queue.waiting
            tenant_queue.deficit -= queue[0].bytes
        entry = queue.popleft()
        if not (tenant_queue.waiting or tenant_queue.first):
            ring.popleft()
        return entry

    def _enter(self, tenant_queue: TenantQueue) -> None:
        """Add a tenant's queue to the ring."""
        tenant_queue.deficit = QUANTUM
        self.ring.append(tenant_queue)
