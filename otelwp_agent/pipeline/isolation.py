"""Track which branches of a fan-out are blocked and for how long, and isolate them.

::

    OPEN ── refuses ──▶ STALLED ── `isolate_after` without progress ──▶ ISOLATED
     ▲                     │                                               │
     └──── has capacity ───┴──────────── has made progress ────────────────┘

While a branch is stalled the whole fan-out refuses, so that nothing that was accepted is lost. An isolated branch loses
what it cannot accept, and the others continue.

Invariants:

* A branch is isolated only if it has made no progress for `isolate_after` since it refused, and another branch has not
  been stuck for as long: where all are stuck, senders wait.
* A refusal that was not caused by an exporter's queue (but by memory, or a shutdown) isolates no branch.
* A stall has one cause (`Capacity`): a tenant whose share is used up isolates no branch for others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from otelwp_agent.capacity import Capacity
    from otelwp_agent.component import Consumer
    from otelwp_agent.errors import RetryableError

GRAIN = 1e-6
"""Seconds by which a timer may fire early."""
LOOK_AGAIN = 0.2
"""Share of `isolate_after` after which a stall that may not be isolated yet is checked again."""


class BranchStall:
    """The capacity that a branch is missing, and since when."""

    __slots__ = ("capacity", "limit", "lost", "observer", "overdue", "root", "since", "timer")

    def __init__(self, capacity: Capacity, since: float, limit: float) -> None:
        """Begin at `since`; `limit` is the number of seconds without progress after which the branch is isolated."""
        self.capacity = capacity
        self.since = since
        self.limit = limit
        self.overdue = False
        """Whether it has lasted for too long."""
        self.root: Capacity | None = None
        """Once the branch is isolated: the exporter's queue that is the cause …"""
        self.observer: Callable[[], None] = _nothing
        """… and what that calls when it makes progress."""
        self.lost = 0
        """Items lost since it was isolated."""
        self.timer: asyncio.TimerHandle | None = None


class Branch:
    """One branch of a fan-out."""

    __slots__ = ("consumer", "name", "stalls")

    def __init__(self, consumer: Consumer, name: str) -> None:
        """Create a branch to `consumer`. A journal stores its name."""
        self.consumer = consumer
        self.name = name
        self.stalls: dict[Capacity, BranchStall] = {}
        """By missing capacity. Empty unless the branch refuses."""

    @property
    def stuck(self) -> bool:
        """Whether it has been stalled for too long."""
        return any(stall.overdue for stall in self.stalls.values())


class Isolation:
    """Watches the branches of one fan-out."""

    def __init__(
        self,
        branches: Sequence[Branch],
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        patience: float = 1.0,
    ) -> None:
        """Watch `branches`; `patience` multiplies `isolate_after`.

        It is greater for a fan-out that is farther from the exporters, so that the nearest one isolates, which costs
        least.
        """
        self._branches = branches
        self._clock = clock
        self._log = log
        self._patience = patience
        self._closed = False

    def blocks(self, branch: Branch, refusal: RetryableError) -> bool:
        """Return whether all branches have to wait for this one, which has refused; `False` if it is isolated."""
        capacity = refusal.capacity
        if capacity is None:
            return True
        stall = branch.stalls.get(capacity)
        if stall is None:
            limit = capacity.root.isolate_after
            if limit is not None and not self._closed:
                stall = branch.stalls[capacity] = BranchStall(capacity, self._clock(), limit * self._patience)
                self._look_after(stall.limit, branch, stall)
            return True
        return stall.root is None

    def accepted(self, branch: Branch) -> None:
        """Record that the branch has accepted a batch. Call it if the branch has `stalls`."""
        for stall in tuple(branch.stalls.values()):
            if stall.root is None and not stall.capacity.short:
                self._end(branch, stall)

    def lost(self, branch: Branch, refusal: RetryableError, items: int) -> bool:
        """Count items that the branch has lost; return whether that is because it is isolated."""
        capacity = refusal.capacity
        if capacity is None:
            return False
        capacity.root.lost(items)
        stall = branch.stalls.get(capacity)
        if stall is None or stall.root is None:
            return False
        stall.lost += items
        return True

    def close(self) -> None:
        """Stop watching."""
        self._closed = True
        for branch in self._branches:
            for stall in tuple(branch.stalls.values()):
                self._forget(branch, stall)

    def _look_after(self, seconds: float, branch: Branch, stall: BranchStall) -> None:
        stall.timer = asyncio.get_running_loop().call_later(seconds, self._look, branch, stall)

    def _look(self, branch: Branch, stall: BranchStall) -> None:
        """Isolate the branch if its time is over."""
        capacity = stall.capacity
        if not capacity.short:
            self._end(branch, stall)
            return
        left = max(stall.since, capacity.progressed_at) + stall.limit - self._clock()
        if left > GRAIN:
            stall.overdue = False
            self._look_after(left, branch, stall)
            return
        stall.overdue = True
        if any(not other.stuck for other in self._branches if other is not branch):
            self._isolate(branch, stall)
        else:
            self._look_after(stall.limit * LOOK_AGAIN, branch, stall)

    def _isolate(self, branch: Branch, stall: BranchStall) -> None:
        root = stall.root = stall.capacity.root
        stall.timer = None
        root.isolated += 1
        stall.observer = lambda: self._end(branch, stall)
        root.observers.append(stall.observer)
        self._log.error(
            "exporter isolated",
            exporter=root.owner,
            branch=branch.name,
            share=stall.capacity.share,
            reason=f"its queue was full without progress for {stall.limit:g}s: it loses what the queue cannot accept",
        )
        stall.capacity.freed(progress=False)  # stages that wait for it need not wait any longer

    def _end(self, branch: Branch, stall: BranchStall) -> None:
        root = stall.root
        self._forget(branch, stall)
        if root is not None:
            event = "exporter no longer isolated"
            self._log.warning(event, exporter=root.owner, branch=branch.name, lost_items=stall.lost)
        if stall.overdue:
            # The others may have had to wait with it; each gets its time to recover.
            now = self._clock()
            for other in self._branches:
                for waiting in other.stalls.values():
                    waiting.since = max(waiting.since, now)

    def _forget(self, branch: Branch, stall: BranchStall) -> None:
        del branch.stalls[stall.capacity]
        if stall.timer is not None:
            stall.timer.cancel()
        if stall.root is not None:
            stall.root.isolated -= 1
            stall.root.observers.remove(stall.observer)


def _nothing() -> None:
    """Do nothing."""
