"""One batch in an exporter's queue, and the queue of its tenant."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sending.retry import Backoff


MAX_SENDS = 2**20
"""Limit of the sends of a tenant that has no failures: none."""


class MalformedSearch:
    """State of the search for the malformed request in one merged batch; the parts of the batch share it."""

    __slots__ = ("accepted", "refused")

    def __init__(self) -> None:
        """Start with no result."""
        self.refused = 0
        """Parts that were refused as malformed."""
        self.accepted = False
        """Whether any part was accepted."""


class QueuedBatch:
    """A batch in the queue of its tenant, and what it counts for."""

    __slots__ = ("backoff", "batch", "bytes", "released", "search", "tenant_queue", "units")

    def __init__(
        self, batch: Batch, units: int, size: int, queue: TenantQueue, search: MalformedSearch | None = None
    ) -> None:
        """Hold `batch`, which takes `units` of the queue's capacity and `size` bytes of memory."""
        self.batch = batch
        self.units = units
        self.bytes = size
        self.tenant_queue = queue
        self.search = search
        self.backoff: Backoff | None = None
        """Set by its first failure."""
        self.released = False


class TenantQueue:
    """The batches of one tenant in a queue, and what they count for: `size` (units) and `bytes`, until released."""

    __slots__ = ("bytes", "deficit", "first", "max_sends", "paused_until", "sending", "size", "tenant", "waiting")

    def __init__(self, tenant: str) -> None:
        """Start empty."""
        self.tenant = tenant
        self.size = 0
        self.bytes = 0
        self.deficit = 0
        self.sending = 0
        """Batches that were taken and whose sending has not finished."""
        self.max_sends = MAX_SENDS
        """Limit of `sending`, for a tenant whose sends fail."""
        self.paused_until = 0.0
        """Time before which the backend wants nothing of this tenant."""
        self.first: deque[QueuedBatch] = deque()
        self.waiting: deque[QueuedBatch] = deque()

    def finished(self, *, failed: bool) -> None:
        """Record that the sending of a batch has finished; a failure halves the limit, anything else adds one."""
        if failed:
            self.max_sends = max(1, min(self.max_sends, self.sending) // 2)
        elif self.max_sends < MAX_SENDS:
            self.max_sends += 1
        self.sending -= 1

    def __len__(self) -> int:
        """Return the number of batches that wait in it."""
        return len(self.first) + len(self.waiting)
