"""Free capacity of bounded buffers: who waits for it, and how a buffer reports that there is some again.

A buffer that refuses a batch raises or returns an `Overloaded` that names its `Capacity`. The stage that keeps the
refused batch waits there (`Offer.wait`), and the buffer calls `freed` when it has released something: nobody polls.

Invariants:

* `short` is true from a refusal until something has been freed.
* `full` is true while a refused batch waits, or practically nothing fits. Then the buffer refuses everything: nothing
  overtakes what waits. A request that is too large and is not kept by anybody leaves `full` alone: smaller ones fit.
* Those that wait are served first in, first out. One that is refused again keeps its place.
* Waiting stages run in a callback of the event loop of their own, never inside `freed`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.errors import RetryableError

FIRST_RETRY, LONGEST_RETRY = 0.005, 0.05
"""Seconds between offers of what was refused for another reason than capacity: the first, doubled up to the longest."""


class Capacity:
    """The free capacity of one buffer, or of one tenant's share of it.

    `cause` is the capacity for which the buffer itself waits, if it refuses because the next stage does; `share` names
    the tenant or group of batches whose part of the buffer it is, "" for all of it. An exporter's queue sets
    `isolate_after` (seconds).
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

    def __init__(  # noqa: PLR0913 - an exporter's queue says more than other buffers
        self,
        owner: str,
        clock: Callable[[], float],
        *,
        share: str = "",
        cause: Capacity | None = None,
        isolate_after: float | None = None,
        lost: Callable[[int], None] | None = None,
    ) -> None:
        """Start with free capacity. `owner` is named in logs; `lost(items)` counts what was dropped for lack of it."""
        self.owner = owner
        self.share = share
        self.cause = cause
        self.isolate_after = isolate_after
        self.short = False
        self.full = False
        self.isolated = 0
        """Branches of fan-outs that are isolated because of it."""
        self.freed_at = float("-inf")
        """When something was released that had been delivered or refused for good, as far as anybody waited for it."""
        self.observers: list[Callable[[], None]] = []
        """Called whenever capacity was freed by progress."""
        self._clock = clock
        self._lost = lost
        self._scheduled = False
        self._waiting: OrderedDict[Offer, None] = OrderedDict()

    @property
    def root(self) -> Capacity:
        """The capacity at the end of the chain of causes: an exporter's queue, where there is one."""
        capacity = self
        while capacity.cause is not None:
            capacity = capacity.cause
        return capacity

    @property
    def progressed_at(self) -> float:
        """When anything in the chain of causes was freed last."""
        at, capacity = self.freed_at, self.cause
        while capacity is not None:
            at = max(at, capacity.freed_at)
            capacity = capacity.cause
        return at

    @property
    def watched(self) -> bool:
        """Whether anybody has to hear that capacity was freed."""
        return self.short or bool(self._waiting) or bool(self.observers)

    def refuse(self, *, full: bool = True) -> None:
        """Note that a batch is refused. `full`: practically nothing else would be accepted either."""
        self.short = True
        if full:
            self.full = True

    def lost(self, items: int) -> None:
        """Count items that were dropped because there was no capacity."""
        if self._lost is not None:
            self._lost(items)

    def freed(self, *, progress: bool = True) -> None:
        """Offer again what waits. `progress`: the buffer released something because it was done with it."""
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
        """Have `offer` wait: nothing overtakes it."""
        self.refuse()
        self._waiting[offer] = None

    def leave(self, offer: Offer) -> None:
        """Have `offer` wait no more."""
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
    """A refused batch that is to be offered again: when the buffer that refused it reports capacity, or by a timer.

    The timer is for refusals that name no capacity, such as those of a memory limiter.
    """

    __slots__ = ("_callback", "_capacity", "_delay", "_timer", "waiting")

    def __init__(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it is time."""
        self.waiting = False
        self._callback = callback
        self._capacity: Capacity | None = None
        self._delay = FIRST_RETRY
        self._timer: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> Capacity | None:
        """The capacity that it waits for, if it waits for one."""
        return self._capacity

    def wait(self, refusal: RetryableError) -> None:
        """Wait until what was refused with `refusal` may be accepted."""
        self.waiting = True
        capacity = self._capacity = refusal.capacity
        if capacity is not None:
            capacity.join(self)
            return
        self._timer = asyncio.get_running_loop().call_later(self._delay, self.again)
        self._delay = min(self._delay * 2, LONGEST_RETRY)

    def again(self) -> None:
        """Offer again now."""
        if self.waiting:
            self._stop()
            self._callback()

    def accepted(self) -> None:
        """Start again with the shortest delay."""
        self._delay = FIRST_RETRY

    def cancel(self) -> None:
        """Wait no more, because there is nothing left to offer."""
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
