"""The bounded queue of one exporter and signal.

Invariants:

* `size`, `bytes` and `items` are the sums over all batches that were put and not released: those that wait and those
  being sent.
* No batch is put beyond the capacity, except one that is larger than all of it, into an empty queue, and one that a
  fan-out has `admitted` (at most one for each fan-out that the queue is a branch of, because the next one is refused).
  The same holds for the part of the capacity that a tenant may use (`fair_share`).
* A stage that was refused is called when a batch has been released (by the capacity `space`, or that of its tenant).
  Each release also calls one stage that waits for the share of another tenant, because it increases all shares.
* Parts of a batch that was split are measured again. They may exceed the limits (a part repeats its resources), and are
  sent before what their tenant sent later.
* A batch whose retry is not due is in `later`, and counts all the time; when it is due, it waits for its turn again.
"""

from __future__ import annotations

import time
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from otelwp_agent.capacity import Capacity
from otelwp_agent.errors import Overloaded
from otelwp_agent.fair_share import allowance
from otelwp_agent.sending.fair_queue import FairQueue
from otelwp_agent.sending.queued_batch import QueuedBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otelwp_agent.config.blocks import Queue
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sending.concurrency import Concurrency
    from otelwp_agent.sending.queued_batch import MalformedSearch, TenantQueue
    from otelwp_agent.sending.retry import Backoff

SHARE_BYTES = 200
"""Memory that one share of a batch holds beside the body: its receipt, a pair and a place in a list (CPython 3.11)."""
KEPT_SHARE_BYTES = 600
"""The same with a journal, which adds an entry, a claim and the indexes of both."""
LITTLE = 64
"""A queue with less than 1/64 of its capacity left counts as full, until a batch has been released."""


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
        """Read the limits of `settings`; refusals name `owner`. A share counts for `share_bytes` of memory.

        A queue that is not enabled holds only the batches that are sent concurrently. `lost(items)` counts items that
        were dropped because the queue could not accept them.
        """
        self.capacity = settings.queue_size if settings.enabled else settings.num_consumers
        self.max_bytes = settings.max_bytes
        self.size = 0
        self.bytes = 0
        self.items = 0
        self.taken = 0
        """Items of all batches that were ever put, without those that moved to another queue."""
        self._little_units = max(1, self.capacity // LITTLE)
        self._little_bytes = max(1, self.max_bytes // LITTLE)
        self._share = settings.max_tenant_share if settings.enabled else 1.0
        self._sizer = settings.sizer if settings.enabled else "requests"
        self._owner = owner
        self._clock = clock
        self.space = Capacity(owner, clock, isolate_after=settings.isolate_after, lost=lost)
        self._shares: dict[str, Capacity] = {}
        """Capacities of tenants that were refused because of their share, until a batch of theirs has been released."""
        self._watched = False
        """Whether a release has to be reported."""
        self._share_bytes = share_bytes
        self._tenants = FairQueue()
        self.ready = self._tenants.ring
        """True if a batch waits that may be sent, unless its tenant may not begin another send (`may_send`)."""
        self.resting = self._tenants.resting
        """True if a batch waits until another batch of its tenant has been sent."""
        self.may_send = self._tenants.may_send
        """Returns whether a batch waits that may be sent now."""
        self.later: list[tuple[float, int, QueuedBatch]] = []
        """Batches whose retry is not due: a heap by due time."""
        self._puts_off = 0

    def __len__(self) -> int:
        """Return the number of batches that wait, for their turn or for their retry."""
        return len(self._tenants) + len(self.later)

    @property
    def due(self) -> float:
        """Due time of the next retry. There must be one."""
        return self.later[0][0]

    def fill(self, tenant: str) -> float:
        """Return the used share of the capacity that a tenant may use, from 0 to 1.

        The use by all tenants counts two thirds, so that a tenant without batches here is accepted longest.
        """
        tenant_queue = self._tenants.of(tenant)
        of_all = max(self.size / self.capacity, self.bytes / self.max_bytes) * 2 / 3
        if not (tenant_queue.size or tenant_queue.bytes):
            return of_all
        most, most_bytes = self._allowances(tenant_queue) if tenant else (self.capacity, self.max_bytes)
        if most <= 0 or most_bytes <= 0:
            return 1.0
        return min(1.0, max(tenant_queue.size / most, tenant_queue.bytes / most_bytes, of_all))

    def admit(self) -> None:
        """Raise `Overloaded` if the queue is full, or refused batches wait for capacity."""
        if self.space.full or self.size >= self.capacity or self.bytes >= self.max_bytes:
            raise self._full()

    def refusal(self, batch: Batch) -> Overloaded | None:
        """Return why `put` would refuse the batch now, or `None`."""
        return self._refusal(self._entry(batch, self._tenants.of(batch.origin.tenant)))

    def put(self, batch: Batch, backoff: Backoff | None = None) -> None:
        """Append a batch, or raise `Overloaded`. `backoff` is set if it was tried before, in another queue."""
        entry = self._entry(batch, self._tenants.of(batch.origin.tenant))
        entry.backoff = backoff
        if not batch.admitted:
            refusal = self._refusal(entry)
            if refusal is not None:
                try:
                    raise refusal
                finally:
                    del refusal  # else this frame, with the body, and the error would hold each other
        self._hold(entry)
        self.taken += batch.items
        paused_until = entry.tenant_queue.paused_until
        if paused_until and paused_until > self._clock():
            self.put_off(entry, paused_until)
        else:
            self._tenants.append(entry)

    def take(self) -> QueuedBatch:
        """Remove and return the next batch to send, which counts until it is released. One must be `ready`.

        Call `finished` when its sending has ended.
        """
        return self._tenants.take()

    def finished(self, entry: QueuedBatch) -> None:
        """Record that the sending of a batch has ended, whatever the outcome: its tenant may begin another send."""
        self._tenants.finished(entry)

    def limit_sends(self, concurrency: Concurrency | None) -> None:
        """Let `concurrency` limit the sends of each tenant, if tenants share the queue; `None` for no limit."""
        self._tenants.limit_sends(concurrency if self._share < 1 else None)

    def put_off(self, entry: QueuedBatch, due: float) -> None:
        """Let a batch that was taken wait for its retry until `due`."""
        self._puts_off += 1  # among those due at the same time, the first goes first
        heappush(self.later, (due, self._puts_off, entry))

    def pause(self, tenant_queue: TenantQueue, until: float) -> None:
        """Let all batches of a tenant wait until a time, those that wait now and those that are put before it."""
        if until > tenant_queue.paused_until:
            tenant_queue.paused_until = until
            for entry in self._tenants.remove_all(tenant_queue):
                self.put_off(entry, until)

    def recall(self, now: float) -> None:
        """Move batches whose retry is due back to their tenant's queue, before those that were never sent."""
        while self.later and self.later[0][0] <= now:
            self._tenants.append_first(heappop(self.later)[2])

    def release(self, entry: QueuedBatch, *, progress: bool = True) -> None:
        """Release the capacity of a batch that was taken. `progress`: the backend answered."""
        self._give_back(entry)
        if self._watched:
            self.freed(entry.tenant_queue.tenant, progress=progress)

    def move(self, belongs: Callable[[Batch], bool], forward: Callable[[Batch], bool]) -> None:
        """Offer each waiting batch that `belongs` to `forward`; remove those for which it returns `True`.

        After the first batch of a tenant that is not accepted, the later ones of this tenant are not offered.
        """
        stopped: set[TenantQueue] = set()

        def goes(entry: QueuedBatch) -> bool:
            if entry.tenant_queue in stopped or not belongs(entry.batch):
                return False
            if not forward(entry.batch):
                stopped.add(entry.tenant_queue)
                return False
            return True

        self.withdraw(goes)

    def withdraw(self, accept: Callable[[QueuedBatch], bool]) -> None:
        """Offer all waiting batches to `accept`, and remove those that it accepts."""
        moved: list[QueuedBatch] = []

        def goes(entry: QueuedBatch) -> bool:
            accepted = accept(entry)
            if accepted:
                moved.append(entry)
            return accepted

        for tenant_queue in tuple(self._tenants):
            for entry in self._tenants.remove_all(tenant_queue):
                if not goes(entry):
                    self._tenants.append(entry)
        self.later = [waiting for waiting in self.later if not goes(waiting[2])]
        heapify(self.later)
        for entry in moved:
            self.forget(entry)

    def forget(self, entry: QueuedBatch) -> None:
        """Release a batch that another queue has accepted, as if it had never been put."""
        self.taken -= entry.batch.items
        self.release(entry)

    def freed(self, tenant: str = "", *, progress: bool = False) -> None:
        """Let stages offer again that wait for the queue, or for the share of `tenant`."""
        self.space.freed(progress=progress)
        shares = self._shares
        share = shares.get(tenant)
        if share is not None:
            share.freed(progress=progress)
            if progress or not share.watched:
                del shares[tenant]
        other = next(iter(shares), None)
        if other is not None and other != tenant:
            share = shares.pop(other)
            share.freed(progress=False)
            if share.watched:
                shares[other] = share  # the next release is for another one
        self._watched = self.space.watched or bool(shares)

    def freed_for_all(self) -> None:
        """Let all stages offer again that wait for the queue or for a tenant's share."""
        for tenant in ("", *tuple(self._shares)):
            self.freed(tenant)

    def _give_back(self, entry: QueuedBatch) -> None:
        entry.released = True
        tenant_queue = entry.tenant_queue
        tenant_queue.size -= entry.units
        tenant_queue.bytes -= entry.bytes
        self.size -= entry.units
        self.bytes -= entry.bytes
        self.items -= entry.batch.items

    def replace(self, entry: QueuedBatch, parts: Iterable[Batch]) -> None:
        """Release a batch and put the parts it was split into."""
        self._give_back(entry)
        for batch in parts:
            part = self._entry(batch, entry.tenant_queue, entry.search)
            self._hold(part)
            self._tenants.append_first(part)

    def _entry(self, batch: Batch, tenant_queue: TenantQueue, search: MalformedSearch | None = None) -> QueuedBatch:
        body = len(batch.body)
        units = 1 if self._sizer == "requests" else batch.items if self._sizer == "items" else body
        return QueuedBatch(batch, units, batch.memory + self._share_bytes * len(batch.shares), tenant_queue, search)

    def _hold(self, entry: QueuedBatch) -> None:
        tenant_queue = entry.tenant_queue
        tenant_queue.size += entry.units
        tenant_queue.bytes += entry.bytes
        self.size += entry.units
        self.bytes += entry.bytes
        self.items += entry.batch.items

    def _refusal(self, entry: QueuedBatch) -> Overloaded | None:
        tenant_queue = entry.tenant_queue
        if tenant_queue.tenant and self._share < 1 and (tenant_queue.size or tenant_queue.bytes):
            # First, because a tenant that may put no more must not wait for the space that others need.
            most, most_bytes = self._allowances(tenant_queue)
            if tenant_queue.size + entry.units > most or tenant_queue.bytes + entry.bytes > most_bytes:
                return self._tenant_full(tenant_queue, most, most_bytes)
        too_many = self.size + entry.units > self.capacity or self.bytes + entry.bytes > self.max_bytes
        if self.space.full or (too_many and (self.size or self.bytes)):
            return self._full()
        return None

    def _allowances(self, tenant_queue: TenantQueue) -> tuple[float, float]:
        """Return the units and bytes that a tenant may use now."""
        share = self._share
        return (
            allowance(self.capacity, share, self.size - tenant_queue.size),
            allowance(self.max_bytes, share, self.bytes - tenant_queue.bytes),
        )

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

    def _tenant_full(self, tenant_queue: TenantQueue, most: float, most_bytes: float) -> Overloaded:
        share = self._shares.get(tenant_queue.tenant)
        if share is None:
            share = Capacity(self._owner, self._clock, share=tenant_queue.tenant, cause=self.space)
            self._shares[tenant_queue.tenant] = share
        share.refuse()
        self._watched = True
        return Overloaded(
            f"tenant {tenant_queue.tenant} fills its share of the sending queue of {self._owner} "
            f"({tenant_queue.size} of {most:.0f} {self._sizer}, "
            f"{tenant_queue.bytes} of {most_bytes:.0f} bytes; sending_queue.max_tenant_share is the share)",
            reason="tenant_queue_full",
            capacity=share,
            tenant=tenant_queue.tenant,
        )
