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
IDLE_LINES = 256
"""Maximum number of tenants' queues before the empty ones are deleted; keeping some avoids making one per batch."""


class FairQueue:
    """The tenants' queues, and the order of their turns."""

    __slots__ = ("_lines", "ring")

    def __init__(self) -> None:
        """Start empty."""
        self._lines: dict[str, TenantQueue] = {}
        self.ring: deque[TenantQueue] = deque()
        """Queues in which a batch waits, the next one first; true if there is any."""

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return sum(map(len, self.ring))

    def __iter__(self) -> Iterator[TenantQueue]:
        """Iterate over the queues of all tenants with batches that are not released."""
        return (line for line in self._lines.values() if line.size or line.bytes)

    def of(self, tenant: str) -> TenantQueue:
        """Return the queue of a tenant."""
        line = self._lines.get(tenant)
        if line is None:
            if len(self._lines) >= IDLE_LINES:
                self._lines = {line.tenant: line for line in self}
            line = self._lines[tenant] = TenantQueue(tenant)
        return line

    def append(self, entry: QueuedBatch) -> None:
        """Append a batch to the queue of its tenant."""
        line = entry.tenant_queue
        if not (line.waiting or line.first):
            self._enter(line)
        line.waiting.append(entry)

    def append_first(self, entry: QueuedBatch) -> None:
        """Append a batch after its tenant's parts and retries, before the batches that were never sent."""
        line = entry.tenant_queue
        if not (line.waiting or line.first):
            self._enter(line)
        line.first.append(entry)

    def take(self) -> QueuedBatch:
        """Remove and return the batch whose turn it is. There must be one."""
        ring = self.ring
        line = ring[0]
        queue = line.first or line.waiting
        if len(ring) > 1:
            while queue[0].bytes > line.deficit:
                line.deficit += QUANTUM
                ring.rotate(-1)
                line = ring[0]
                queue = line.first or line.waiting
            line.deficit -= queue[0].bytes
        entry = queue.popleft()
        if not (line.waiting or line.first):
            ring.popleft()
        return entry

    def _enter(self, line: TenantQueue) -> None:
        """Add a tenant's queue to the ring."""
        line.deficit = QUANTUM
        self.ring.append(line)
