"""Forward kept traces in order and merged, and retry when the next stage refuses a batch."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.errors import ConsumeError, Overloaded, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.model.batch import Batch, Origin

_MOST_BYTES, _MOST_BATCHES = 2**20, 1024
"""Maximum size of merged batches."""


class Outgoing:
    """Batches on their way to the next stage. While that has no capacity they stay, and are offered again later."""

    def __init__(self, send: Callable[[Batch], None], context: Context) -> None:
        """Hand on by `send`; `context` is the processor's."""
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
        """Return the refusal of what would have to wait for the next stage."""
        capacity = self._capacity
        capacity.cause = self._offer.capacity
        capacity.refuse()
        message = "adaptive_sampling is full: the next stage takes nothing"
        return Overloaded(message, retry_after=1.0, capacity=capacity)

    def put(self, batch: Batch) -> None:
        """Append a batch; `flush` forwards it."""
        self._batches.append(batch)
        self.size += len(batch.body)

    def flush(self) -> None:
        """Hand on everything, as far as the next stage takes it."""
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
        """Hand on what the next stage has refused, if anything is: there is another next stage."""
        self._offer.again()

    def abandon(self) -> int:
        """Let go of everything, because the agent stops; return how many spans that drops."""
        self._offer.cancel()
        dropped = sum([batch.abandon() for batch in self._batches])
        self._batches.clear()
        self.size = 0
        return dropped

    def _take(self) -> Batch:
        """Remove the first batches of one sender, and merge them."""
        batches = self._batches
        taken = [batches.popleft()]
        size = len(taken[0].body)
        origin = taken[0].origin
        while batches and size < _MOST_BYTES and len(taken) < _MOST_BATCHES and _alike(origin, batches[0].origin):
            batch = batches.popleft()
            taken.append(batch)
            size += len(batch.body)
        self.size -= size
        return merge(taken)


def _alike(one: Origin, other: Origin) -> bool:
    """Return whether batches of these origins may be merged."""
    return one is other or (
        one.tenant == other.tenant and one.receiver == other.receiver and one.headers == other.headers
    )
