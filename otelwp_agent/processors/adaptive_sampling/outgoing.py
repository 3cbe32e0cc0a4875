"""Forward kept traces in order and merged, and retry when the next stage refuses a batch."""

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


class Outgoing:
    """Batches for the next stage. While it refuses them, they are kept here and offered again."""

    def __init__(self, send: Callable[[Batch], None], context: Context) -> None:
        """Forward with `send`; `context` is the processor's."""
        self._send = send
        self._log = context.log
        self._batches: deque[Batch] = deque()
        self._offer = Offer(self.flush)
        self._capacity = Capacity(f"processors/{context.id}", context.clock)
        self.size = 0
        """Bytes of waiting batches."""

    def __bool__(self) -> bool:
        """Whether any batch waits."""
        return bool(self._batches)

    @property
    def blocked(self) -> bool:
        """Whether the next stage has refused."""
        return self._offer.waiting

    def overloaded(self) -> Overloaded:
        """Return the error for batches that would have to wait for the next stage."""
        capacity = self._capacity
        capacity.cause = self._offer.capacity
        capacity.refuse()
        message = "adaptive_sampling is full: the next stage refuses batches"
        return Overloaded(message, retry_after=1.0, capacity=capacity)

    def put(self, batch: Batch) -> None:
        """Append a batch; `flush` forwards it."""
        self._batches.append(batch)
        self.size += len(batch.body)

    def flush(self) -> None:
        """Forward all batches that the next stage accepts."""
        if self._offer.waiting:
            return
        while self._batches:
            batch = self._take()
            try:
                self._send(batch)
            except RetryableError as refusal:
                self._batches.appendleft(batch)
                self.size += len(batch.body)
                self._offer.wait(refusal)
                return
            except ConsumeError as error:
                batch.settle(Outcome.DROPPED, error.reason)
                self._log.error("batch dropped", reason=error.reason, items=batch.items, error=str(error))
            self._offer.accepted()
            if self._capacity.watched:
                self._capacity.freed()

    def offer_again(self) -> None:
        """Offer refused batches again: the next stage has been replaced."""
        self._offer.again()

    def abandon(self) -> int:
        """Release all batches because the agent stops; return the number of dropped spans."""
        self._offer.cancel()
        dropped = sum([batch.abandon() for batch in self._batches])
        self._batches.clear()
        self.size = 0
        return dropped

    def _take(self) -> Batch:
        """Remove the first batches of one sender, and merge them."""
        batches = self._batches
        origin = batches[0].origin
        merger = Merger(_LIMITS)
        complete = False
        while batches and not complete and same_sender(origin, batches[0].origin):
            complete = merger.add(batches.popleft())
        self.size -= merger.size
        return merger.take()
