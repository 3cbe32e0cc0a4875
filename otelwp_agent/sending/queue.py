"""What waits for an exporter, and how much room there is.

Invariants:

* `size`, `bytes` and `items` are the sums over all entries that were put and not released: those that wait and those
  being sent.
* Nothing is put beyond the capacity, except one batch that is larger than all of it, into an empty queue, and what a
  fan-out has `admitted` (at most one batch for each fan-out that the queue is a branch of, because the next one is
  refused). The same holds for the share of the capacity that a tenant may fill.
* Whoever was refused is called when something has been released (`space`, and for a tenant's share one of its own).
* Parts of a batch that was split are measured anew. They may pass the limits (a part repeats its resources), and go out
  before what their tenant sent later.
* What is put off comes back to its tenant's line when it is due, and counts all the time.
"""

from __future__ import annotations

import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from otelwp_agent.capacity import Capacity
from otelwp_agent.errors import Overloaded
from otelwp_agent.sending.fair_queue import FairQueue
from otelwp_agent.sending.queued_batch import QueuedBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otelwp_agent.config.blocks import Queue
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sending.queued_batch import Suspicion, TenantQueue

SHARE_BYTES = 200
"""Memory that one share of a batch holds beside the body: its receipt, a pair and a place in a list (CPython 3.11)."""
KEPT_SHARE_BYTES = 600
"""The same where a journal has it: its entry, its claim and where they are found as well."""
LITTLE = 64
"""A queue with less than this part of its capacity left counts as full, until something has been released."""


class SendingQueue:
    """A bounded queue that refuses instead of waiting. Times are seconds on the caller's clock."""

    def __init__(
        self,
        settings: Queue,
        owner: str,
        share_bytes: int = SHARE_BYTES,
        *,
        clock: Callable[[], float] = time.monotonic,
        lost: Callable[[int], None] | None = None,
    ) -> None:
        """Take the limits from `settings`; `owner` is named in refusals. A share counts for `share_bytes` of memory.

        A queue that is not enabled has room for what can be sent at once, and no more. `lost(items)` counts what was
        dropped because the queue could not accept it.
        """
        self.capacity = settings.queue_size if settings.enabled else settings.num_consumers
        self.max_bytes = settings.max_bytes
        self.size = 0
        self.bytes = 0
        self.items = 0
        self.taken = 0
        """Items that were ever put."""
        self._little_units = max(1, self.capacity // LITTLE)
        self._little_bytes = max(1, self.max_bytes // LITTLE)
        share = settings.max_tenant_share if settings.enabled else 1.0
        self._tenant_capacity, self._tenant_bytes = self.capacity * share, self.max_bytes * share
        self._sizer = settings.sizer if settings.enabled else "requests"
        self._owner = owner
        self._clock = clock
        self.space = Capacity(owner, clock, isolate_after=settings.isolate_after, lost=lost)
        self._shares: dict[str, Capacity] = {}
        """Of tenants who were refused because of their share, until something of theirs has been released."""
        self._watched = False
        """Whether a release has to be reported."""
        self._share_bytes = share_bytes
        self._lines = FairQueue()
        self.ready = self._lines.ring
        """True if something waits that is not put off."""
        self.later: list[tuple[float, int, QueuedBatch]] = []
        """What is put off: a heap by when it is due."""
        self._puts_off = 0

    def __len__(self) -> int:
        """Return how many entries wait, for their turn or for their time."""
        return len(self._lines) + len(self.later)

    @property
    def due(self) -> float:
        """When the first of those that are put off is due. There must be one."""
        return self.later[0][0]

    def fill(self, tenant: str) -> float:
        """Return how much of the room that a tenant may fill is taken, by itself: 0 is none, 1 is all of it.

        What others have taken counts for two thirds of that, so that who has nothing here finds room for longest.
        """
        line = self._lines.of(tenant)
        share = self._tenant_capacity if tenant else self.capacity
        share_bytes = self._tenant_bytes if tenant else self.max_bytes
        of_all = max(self.size / self.capacity, self.bytes / self.max_bytes)
        return max(line.size / share, line.bytes / share_bytes, of_all * 2 / 3)

    def admit(self) -> None:
        """Raise `Overloaded` if nothing more has room, or others wait for it."""
        if self.space.full or self.size >= self.capacity or self.bytes >= self.max_bytes:
            raise self._full()

    def refusal(self, batch: Batch) -> Overloaded | None:
        """Return why `put` would refuse the batch now, or `None`."""
        return self._refusal(self._entry(batch, self._lines.of(batch.origin.tenant)))

    def put(self, batch: Batch) -> None:
        """Append a batch, or raise `Overloaded`."""
        entry = self._entry(batch, self._lines.of(batch.origin.tenant))
        if not batch.admitted:
            refusal = self._refusal(entry)
            if refusal is not None:
                raise refusal
        self._hold(entry)
        self.taken += batch.items
        self._lines.append(entry)

    def take(self) -> QueuedBatch:
        """Return the next entry to send, which counts until it is released. Call it only if something is `ready`."""
        return self._lines.take()

    def put_off(self, entry: QueuedBatch, due: float) -> None:
        """Have an entry that was taken wait until it is due."""
        self._puts_off += 1  # among those due at the same time, the first goes first
        heappush(self.later, (due, self._puts_off, entry))

    def recall(self, now: float) -> None:
        """Have what is due wait for its turn again, before what its tenant has not tried to send yet."""
        while self.later and self.later[0][0] <= now:
            self._lines.append_first(heappop(self.later)[2])

    def release(self, entry: QueuedBatch, *, progress: bool = True) -> None:
        """Give back the room of an entry that was taken. `progress`: it was not given up for want of an answer."""
        self._give_back(entry)
        if self._watched:
            self.freed(entry.tenant_queue.tenant, progress=progress)

    def freed(self, tenant: str = "", *, progress: bool = False) -> None:
        """Have those offer again who wait for the whole queue, or for the share of `tenant`."""
        self.space.freed(progress=progress)
        share = self._shares.get(tenant)
        if share is not None:
            share.freed(progress=progress)
            if progress or not share.watched:
                del self._shares[tenant]
        self._watched = self.space.watched or bool(self._shares)

    def freed_for_all(self) -> None:
        """Have everybody offer again who waits for anything here."""
        for tenant in ("", *tuple(self._shares)):
            self.freed(tenant)

    def _give_back(self, entry: QueuedBatch) -> None:
        entry.released = True
        line = entry.tenant_queue
        line.size -= entry.units
        line.bytes -= entry.bytes
        self.size -= entry.units
        self.bytes -= entry.bytes
        self.items -= entry.batch.items

    def replace(self, entry: QueuedBatch, parts: Iterable[Batch]) -> None:
        """Release an entry and put the parts it was split into."""
        self._give_back(entry)
        for batch in parts:
            part = self._entry(batch, entry.tenant_queue, entry.suspicion)
            self._hold(part)
            self._lines.append_first(part)

    def _entry(self, batch: Batch, line: TenantQueue, suspicion: Suspicion | None = None) -> QueuedBatch:
        body = len(batch.body)
        units = 1 if self._sizer == "requests" else batch.items if self._sizer == "items" else body
        return QueuedBatch(batch, units, body + self._share_bytes * len(batch.shares), line, suspicion)

    def _hold(self, entry: QueuedBatch) -> None:
        line = entry.tenant_queue
        line.size += entry.units
        line.bytes += entry.bytes
        self.size += entry.units
        self.bytes += entry.bytes
        self.items += entry.batch.items

    def _refusal(self, entry: QueuedBatch) -> Overloaded | None:
        too_many = self.size + entry.units > self.capacity or self.bytes + entry.bytes > self.max_bytes
        if self.space.full or (too_many and (self.size or self.bytes)):
            return self._full()
        line = entry.tenant_queue
        if line.tenant:
            too_many = line.size + entry.units > self._tenant_capacity or line.bytes + entry.bytes > self._tenant_bytes
            if too_many and (line.size or line.bytes):
                return self._tenant_full(line)
        return None

    def _full(self) -> Overloaded:
        almost = self.size + self._little_units > self.capacity or self.bytes + self._little_bytes > self.max_bytes
        self.space.refuse(full=almost)
        self._watched = True
        return Overloaded(
            f"the sending queue of {self._owner} is full "
            f"({self.size} of {self.capacity} {self._sizer}, {self.bytes} of {self.max_bytes} bytes)",
            reason="queue_full",
            capacity=self.space,
        )

    def _tenant_full(self, line: TenantQueue) -> Overloaded:
        share = self._shares.get(line.tenant)
        if share is None:
            share = Capacity(self._owner, self._clock, share=line.tenant, cause=self.space)
            self._shares[line.tenant] = share
        share.refuse()
        self._watched = True
        return Overloaded(
            f"tenant {line.tenant} fills its share of the sending queue of {self._owner} "
            f"({line.size} of {self._tenant_capacity:.0f} {self._sizer}, "
            f"{line.bytes} of {self._tenant_bytes:.0f} bytes; sending_queue.max_tenant_share is the share)",
            reason="tenant_queue_full",
            capacity=share,
        )
