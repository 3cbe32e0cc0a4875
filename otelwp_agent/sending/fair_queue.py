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
IDLE_LINES = 256
"""Maximum number of tenants' queues before the empty ones are deleted; keeping some avoids making one per batch."""


class FairQueue:
    """The tenants' queues, and the order of their turns."""

    __slots__ = ("_concurrency", "_lines", "_most_lines", "resting", "ring")

    def __init__(self) -> None:
        """Start empty."""
        self._lines: dict[str, TenantQueue] = {}
        self._most_lines = IDLE_LINES
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
        return (line for line in self._lines.values() if line.size or line.bytes)

    def of(self, tenant: str) -> TenantQueue:
        """Return the queue of a tenant."""
        line = self._lines.get(tenant)
        if line is None:
            if len(self._lines) >= self._most_lines:
                self._lines = {line.tenant: line for line in self}
                self._most_lines = max(IDLE_LINES, 2 * len(self._lines))  # so that each tenant costs constant time
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

    def limit_sends(self, concurrency: Concurrency | None) -> None:
        """From now on, let `concurrency` decide whether a tenant may begin another send; `None` for no limit."""
        self._concurrency = concurrency
        self._end_rest()

    def may_send(self) -> bool:
        """Return whether a batch waits that may be sent now; let the tenants rest that may not begin another send."""
        ring, concurrency = self.ring, self._concurrency
        if concurrency is not None:
            while ring:
                line = ring[0]
                own = line.sending
                if not own or not line.tenant or (own < line.max_sends and concurrency.allows(own)):
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
        line = ring[0]
        queue = line.first or line.waiting
        if len(ring) > 1:
            while queue[0].bytes > line.deficit:
                line.deficit += QUANTUM
                ring.rotate(-1)
                self.may_send()
                line = ring[0]
                queue = line.first or line.waiting
            line.deficit -= queue[0].bytes
        entry = queue.popleft()
        line.sending += 1
        if not (line.waiting or line.first):
            ring.popleft()
        return entry

    def _end_rest(self) -> None:
        """Return the resting queues to the ring."""
        self.ring.extend(self.resting)
        self.resting.clear()

    def _enter(self, line: TenantQueue) -> None:
        """Add a tenant's queue to the ring."""
        line.deficit = QUANTUM
        self.ring.append(line)
