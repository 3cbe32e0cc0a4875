"""Free capacity of bounded buffers: a list of waiting stages, and a notification when capacity is free again.

A buffer that refuses a batch raises or returns an `Overloaded` with its `Capacity`. The stage that keeps the refused
batch waits for that capacity (`Offer.wait`). The buffer calls `freed` when it has released something, so that no stage
has to poll.

Invariants:

* `short` is true from a refusal until capacity is freed.
* `full` is true while a refused batch waits, or while almost no batch would fit. Then the buffer refuses every batch,
  so that no batch overtakes a waiting one. A request that is too large, and that no stage keeps, does not set `full`:
  smaller requests still fit.
* Waiting stages are served first in, first out. A stage that is refused again keeps its position.
* Waiting stages run in their own callback of the event loop, never inside `freed`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_RETRY, LONGEST_RETRY = 0.005, 0.05
"""Seconds before a batch is offered again that was not refused for lack of capacity: doubled from first to longest."""


class Refusal(Protocol):
    """An error that refuses a batch for now: `errors.RetryableError`."""

    @property
    def capacity(self) -> Capacity | None:
        """The capacity that was missing, if the error names one."""


class Capacity:
    """The free capacity of one buffer, or of one tenant's share of it.

    `cause` is the capacity that the buffer itself waits for, if it refuses because the next stage refuses. `share` is
    the name of the tenant or group of batches that this part of the buffer belongs to; "" for the whole buffer. An
    exporter's queue sets `isolate_after` (seconds).
    """

    __slots__ = (
        "_clock",
        "_lost",
        "_scheduled",
        "_waiting",
        "cause",
        "freed_at",
        "full",
        "isolate_after",
        "isolated",
        "observers",
        "owner",
        "share",
        "short",
    )

    def __init__(  # noqa: PLR0913 - most arguments are for an exporter's queue only
        self,
        owner: str,
        clock: Callable[[], float],
        *,
        share: str = "",
        cause: Capacity | None = None,
        isolate_after: float | None = None,
        lost: Callable[[int], None] | None = None,
    ) -> None:
        """Start with free capacity. `owner` is the name in logs; `lost(items)` counts items dropped for lack of it."""
        self.owner = owner
        self.share = share
        self.cause = cause
        self.isolate_after = isolate_after
        self.short = False
        self.full = False
        self.isolated = 0
        """Number of fan-out branches that are isolated because this capacity is short."""
        self.freed_at = float("-inf")
        """Time when a delivered or permanently refused batch was last released while the capacity was `watched`."""
        self.observers: list[Callable[[], None]] = []
        """Functions that are called whenever progress has freed capacity."""
        self._clock = clock
        self._lost = lost
        self._scheduled = False
        self._waiting: OrderedDict[Offer, None] = OrderedDict()

    @property
    def root(self) -> Capacity:
        """The capacity at the end of the chain of causes: usually that of an exporter's queue."""
        capacity = self
        while capacity.cause is not None:
            capacity = capacity.cause
        return capacity

    @property
    def progressed_at(self) -> float:
        """The latest `freed_at` in the chain of causes."""
        at, capacity = self.freed_at, self.cause
        while capacity is not None:
            at = max(at, capacity.freed_at)
            capacity = capacity.cause
        return at

    @property
    def watched(self) -> bool:
        """Whether the buffer must call `freed`: capacity is short, a stage waits or there are observers."""
        return self.short or bool(self._waiting) or bool(self.observers)

    def refuse(self, *, full: bool = True) -> None:
        """Record that a batch is refused. `full`: almost no other batch would be accepted either."""
        self.short = True
        if full:
            self.full = True

    def lost(self, items: int) -> None:
        """Count items that were dropped for lack of capacity."""
        if self._lost is not None:
            self._lost(items)

    def freed(self, *, progress: bool = True) -> None:
        """Let the waiting stages offer their batches again.

        `progress`: the buffer released a batch because it was delivered or permanently refused.
        """
        if progress:
            self.freed_at = self._clock()
            for observer in tuple(self.observers):
                observer()
        if not self._waiting:
            self._open()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._offer)

    def join(self, offer: Offer) -> None:
        """Add `offer` to the waiting ones; until it is served, every other batch is refused."""
        self.refuse()
        self._waiting[offer] = None

    def leave(self, offer: Offer) -> None:
        """Remove `offer` from the waiting ones."""
        self._waiting.pop(offer, None)

    def _offer(self) -> None:
        self._scheduled = False
        self._open()
        waiting = self._waiting
        for _ in range(len(waiting)):
            offer, _ = waiting.popitem(last=False)
            offer.again()
            if not self.full and waiting:
                continue
            if offer in waiting:
                waiting.move_to_end(offer, last=False)
            break

    def _open(self) -> None:
        self.short = self.full = False


class Offer:
    """A refused batch that waits to be offered again: for free capacity of the buffer that refused it, or for a timer.

    The timer is for refusals without a capacity, such as those of a memory limiter.
    """

    __slots__ = ("_callback", "_capacity", "_delay", "_timer", "waiting")

    def __init__(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the batch should be offered again."""
        self.waiting = False
        self._callback = callback
        self._capacity: Capacity | None = None
        self._delay = FIRST_RETRY
        self._timer: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> Capacity | None:
        """The capacity that the offer waits for; `None` while it waits for its timer or does not wait."""
        return self._capacity

    def wait(self, refusal: Refusal) -> None:
        """Wait until the batch that was refused with `refusal` may be accepted."""
        self.waiting = True
        capacity = self._capacity = refusal.capacity
        if capacity is not None:
            capacity.join(self)
            return
        self._timer = asyncio.get_running_loop().call_later(self._delay, self.again)
        self._delay = min(self._delay * 2, LONGEST_RETRY)

    def again(self) -> None:
        """Offer the batch again now, if it waits."""
        if self.waiting:
            self._stop()
            self._callback()

    def accepted(self) -> None:
        """Reset the delay to the shortest."""
        self._delay = FIRST_RETRY

    def cancel(self) -> None:
        """Stop waiting, because there is nothing left to offer."""
        if self.waiting:
            self._stop()

    def _stop(self) -> None:
        self.waiting = False
        capacity, self._capacity = self._capacity, None
        if capacity is not None:
            capacity.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
