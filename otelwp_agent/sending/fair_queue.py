"""Lines of entries, one for each tenant, served in turn: deficit round-robin, in bytes.

Each time that a line's turn comes and its first entry is too large for what it has saved, it gets `QUANTUM` bytes more
and goes to the end of the ring. So tenants that all have something waiting send the same number of bytes, whatever the
size of their batches and however many of them wait; a tenant alone sends all it has.

Invariants:

* A line is in the ring if, and only if, something waits in it.
* From when something waits in a line until its first entry leaves, each other line sends at most as many bytes as that
  entry has, and `QUANTUM` and one entry more.
* Within a line, parts and retries come before what was never sent; otherwise it is first in, first out.

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
"""Bytes that a line may send in one round: about one large request."""
IDLE_LINES = 256
"""Lines of tenants with nothing in the queue that are kept, so that not every batch makes one anew."""


class FairQueue:
    """The lines of one queue, and whose turn it is."""

    __slots__ = ("_lines", "ring")

    def __init__(self) -> None:
        """Start without lines."""
        self._lines: dict[str, TenantQueue] = {}
        self.ring: deque[TenantQueue] = deque()
        """Lines in which something waits, the next one first. True if there is any."""

    def __len__(self) -> int:
        """Return how many entries wait."""
        return sum(map(len, self.ring))

    def __iter__(self) -> Iterator[TenantQueue]:
        """Go through the lines of all tenants that hold something."""
        return (line for line in self._lines.values() if line.size or line.bytes)

    def of(self, tenant: str) -> TenantQueue:
        """Return a tenant's line."""
        line = self._lines.get(tenant)
        if line is None:
            if len(self._lines) >= IDLE_LINES:
                self._lines = {line.tenant: line for line in self}
            line = self._lines[tenant] = TenantQueue(tenant)
        return line

    def append(self, entry: QueuedBatch) -> None:
        """Have an entry wait in its line."""
        line = entry.tenant_queue
        if not (line.waiting or line.first):
            self._enter(line)
        line.waiting.append(entry)

    def append_first(self, entry: QueuedBatch) -> None:
        """Have an entry wait before those that were never sent."""
        line = entry.tenant_queue
        if not (line.waiting or line.first):
            self._enter(line)
        line.first.append(entry)

    def take(self) -> QueuedBatch:
        """Return the entry whose turn it is. There must be one."""
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
        """Let a line have turns again."""
        line.deficit = QUANTUM
        self.ring.append(line)
