"""One queue for each tenant, served in turn: deficit round-robin, in bytes.

Each tenant has a deficit: the bytes that it may send. If it is a tenant's turn and the deficit is less than the size of
its first batch, it gets `QUANTUM` bytes more and moves to the end of the ring. So all tenants with waiting batches send
the same number of bytes, whatever the size and number of their batches. A tenant that is alone is not limited.

Invariants:

* A tenant's queue is in the ring or among the resting ones if, and only if, a batch waits in it.
* A tenant's queue rests only while at least one of its batches is being sent, and as many as it may send at once:
  `Concurrency.allows`, or fewer if its sends fail (`TenantQueue.finished`).
* While the first batch of a tenant waits in the ring, each other tenant sends at most the bytes of that batch, plus
  `QUANTUM`, plus one batch.
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

    from otelwp_agent.sending.concurrency import Concurrency
    from otelwp_agent.sending.queued_batch import QueuedBatch

QUANTUM = 64 * 1024
"""Bytes that a tenant may send in one round: about one large request."""
IDLE_TENANTS = 256
"""Maximum number of tenants' queues before the empty ones are deleted; keeping some avoids making one per batch."""


class FairQueue:
    """The tenants' queues, and the order of their turns."""

    __slots__ = ("_concurrency", "_most_tenants", "_tenants", "resting", "ring")

    def __init__(self) -> None:
        """Start empty."""
        self._tenants: dict[str, TenantQueue] = {}
        self._most_tenants = IDLE_TENANTS
        self._concurrency: Concurrency | None = None
        self.ring: deque[TenantQueue] = deque()
        """Queues in which a batch waits, the next one first; true if there is any."""
        self.resting: list[TenantQueue] = []
        """Queues in which a batch waits until another batch of the tenant has been sent."""

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return sum(map(len, self.ring)) + sum(map(len, self.resting))

    def __iter__(self) -> Iterator[TenantQueue]:
        """Iterate over the queues of all tenants with batches that are not released."""
        return (tenant_queue for tenant_queue in self._tenants.values() if tenant_queue.size or tenant_queue.bytes)

    def of(self, tenant: str) -> TenantQueue:
        """Return the queue of a tenant."""
        tenant_queue = self._tenants.get(tenant)
        if tenant_queue is None:
            if len(self._tenants) >= self._most_tenants:
                self._tenants = {tenant_queue.tenant: tenant_queue for tenant_queue in self}
                self._most_tenants = max(
                    IDLE_TENANTS, 2 * len(self._tenants)
                )  # so that each tenant costs constant time
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

    def remove_all(self, tenant_queue: TenantQueue) -> list[QueuedBatch]:
        """Remove and return all batches that wait in a tenant's queue, in the order of their turns."""
        entries = [*tenant_queue.first, *tenant_queue.waiting]
        if entries:
            tenant_queue.first.clear()
            tenant_queue.waiting.clear()
            (self.ring if tenant_queue in self.ring else self.resting).remove(tenant_queue)
        return entries

    def limit_sends(self, concurrency: Concurrency | None) -> None:
        """From now on, let `concurrency` decide whether a tenant may begin another send; `None` for no limit."""
        self._concurrency = concurrency
        self._end_rest()

    def may_send(self) -> bool:
        """Return whether a batch waits that may be sent now; let the tenants rest that may not begin another send."""
        ring, concurrency = self.ring, self._concurrency
        if concurrency is not None:
            while ring:
                tenant_queue = ring[0]
                own = tenant_queue.sending
                if not own or not tenant_queue.tenant or (own < tenant_queue.max_sends and concurrency.allows(own)):
                    break
                self.resting.append(ring.popleft())
        return bool(ring)

    def finished(self, entry: QueuedBatch) -> None:
        """Record that the sending of a batch has finished; it has failed if it is not released."""
        entry.tenant_queue.finished(failed=not entry.released)
        if self.resting:
            self._end_rest()

    def take(self) -> QueuedBatch:
        """Remove and return the batch whose turn it is. There must be one that may be sent."""
        ring = self.ring
        tenant_queue = ring[0]
        queue = tenant_queue.first or tenant_queue.waiting
        if len(ring) > 1:
            while queue[0].bytes > tenant_queue.deficit:
                tenant_queue.deficit += QUANTUM
                ring.rotate(-1)
                self.may_send()
                tenant_queue = ring[0]
                queue = tenant_queue.first or tenant_queue.waiting
            tenant_queue.deficit -= queue[0].bytes
        entry = queue.popleft()
        tenant_queue.sending += 1
        if not (tenant_queue.waiting or tenant_queue.first):
            ring.popleft()
        return entry

    def _end_rest(self) -> None:
        """Return the resting queues to the ring."""
        self.ring.extend(self.resting)
        self.resting.clear()

    def _enter(self, tenant_queue: TenantQueue) -> None:
        """Add a tenant's queue to the ring."""
        tenant_queue.deficit = QUANTUM
        self.ring.append(tenant_queue)
