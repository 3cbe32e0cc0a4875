"""Forward kept traces in order and merged, and retry when the next stage refuses a batch.

Each tenant has a queue of its own, so that batches of a tenant that the next stage refuses do not delay other tenants.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.errors import ConsumeError, Overloaded, RetryableError
from otelwp_agent.model.merging import MergeLimits, Merger, same_sender
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.model.batch import Batch

_LIMITS = MergeLimits(size=2**20, batches=1024)


class OutgoingQueue:
    """The batches of one tenant, in order."""

    __slots__ = ("batches", "offer", "refused_tenant", "size", "tenant")

    def __init__(self, tenant: str, forward: Callable[[OutgoingQueue], None]) -> None:
        """Start empty; `forward` is called with the queue when its refused batch may be accepted."""
        self.tenant = tenant
        self.batches: deque[Batch] = deque()
        self.offer = Offer(lambda: forward(self))
        self.refused_tenant = ""
        """The tenant whose own use was the cause of the last refusal; "" if it was not a tenant's."""
        self.size = 0
        """Bytes of the batches."""

    def take(self) -> Batch:
        """Remove the first batches of one sender, and merge them."""
        batches = self.batches
        origin = batches[0].origin
        merger = Merger(_LIMITS)
        complete = False
        while batches and not complete and same_sender(origin, batches[0].origin):
            complete = merger.add(batches.popleft())
        self.size -= merger.size
        return merger.take()


class Outgoing:
    """Batches for the next stage. While it refuses them, they are kept here and offered again.

    Invariants:

    * A tenant has a queue in `_queues` if, and only if, a batch of it is kept here.
    * Each queue is in `_ready`, or its offer waits; `_waiting` is the number of those that wait.
    """

    def __init__(self, send: Callable[[Batch], None], context: Context) -> None:
        """Forward with `send`; `context` is the processor's."""
        self._send = send
        self._log = context.log
        self._queues: dict[str, OutgoingQueue] = {}
        self._ready: dict[str, OutgoingQueue] = {}
        self._waiting = 0
        self._cause: Capacity | None = None
        """Capacity that the last refused batch was missing."""
        self._capacity = Capacity(f"processors/{context.id}", context.clock)
        self.size = 0
        """Bytes of waiting batches."""

    def __bool__(self) -> bool:
        """Whether any batch waits."""
        return bool(self._queues)

    @property
    def blocked(self) -> bool:
        """Whether the next stage has refused."""
        return self._waiting > 0

    def size_of(self, tenant: str) -> int:
        """Return the bytes of batches of a tenant that the next stage has refused; 0 if it refuses none of them."""
        queue = self._queues.get(tenant)
        return queue.size if queue is not None and queue.offer.waiting else 0

    def tenant_overloaded(self, tenant: str) -> Overloaded:
        """Return the error for batches of a tenant that uses its share of the memory while its batches are refused."""
        cause = self._queues[tenant].refused_tenant if tenant in self._queues else ""
        message = f"tenant {tenant} fills its share of adaptive_sampling: the next stage refuses its batches"
        return Overloaded(message, retry_after=1.0, reason="tenant_sampling_full", tenant=cause)

    def overloaded(self) -> Overloaded:
        """Return the error for batches that would have to wait for the next stage."""
        capacity = self._capacity
        capacity.cause = self._cause
        capacity.refuse()
        message = "adaptive_sampling is full: the next stage refuses batches"
        return Overloaded(message, retry_after=1.0, capacity=capacity)

    def put(self, batch: Batch) -> None:
        """Append a batch; `flush` forwards it."""
        tenant = batch.origin.tenant
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = self._ready[tenant] = OutgoingQueue(tenant, self._offer_of)
        queue.batches.append(batch)
        queue.size += len(batch.body)
        self.size += len(batch.body)

    def flush(self) -> None:
        """Forward all batches that the next stage accepts."""
        ready, self._ready = self._ready, {}
        for queue in ready.values():
            self._forward(queue)

    def offer_again(self) -> None:
        """Offer refused batches again: the next stage has been replaced."""
        for queue in tuple(self._queues.values()):
            queue.offer.again()

    def abandon(self) -> int:
        """Release all batches because the agent stops; return the number of dropped spans."""
        dropped = 0
        for queue in self._queues.values():
            queue.offer.cancel()
            dropped += sum([batch.abandon() for batch in queue.batches])
        self._queues.clear()
        self._ready.clear()
        self.size = self._waiting = 0
        return dropped

    def _offer_of(self, queue: OutgoingQueue) -> None:
        """Offer the refused batch of a queue again, and forward those behind it."""
        self._waiting -= 1
        self._forward(queue)

    def _forward(self, queue: OutgoingQueue) -> None:
        """Forward the batches of a queue until the next stage refuses one."""
        while queue.batches:
            before = queue.size
            batch = queue.take()
            self.size -= before - queue.size
            try:
                self._send(batch)
            except RetryableError as refusal:
                queue.batches.appendleft(batch)
                queue.size += len(batch.body)
                self.size += len(batch.body)
                queue.refused_tenant = refusal.tenant if isinstance(refusal, Overloaded) else ""
                self._cause = refusal.capacity
                self._waiting += 1
                queue.offer.wait(refusal)
                return
            except ConsumeError as error:
                batch.settle(Outcome.DROPPED, error.reason)
                self._log.error("batch dropped", reason=error.reason, items=batch.items, error=str(error))
            queue.offer.accepted()
            if self._capacity.watched:
                self._capacity.freed()
        del self._queues[queue.tenant]
