"""The answer that a sender waits for: that its request has been accepted, or what became of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.errors import PermanentError, RetryableError
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.journal.claims import Entry
    from otelwp_agent.model.receipt import Receipt

PATIENCE = 30.0
"""Seconds after which who waits for an outcome is told that there is none yet."""
_TRY_AGAIN = frozenset({"queue_full", "shutdown", "retries_exhausted", "timeout", "overloaded"})
"""Reasons of a drop after which the same request may come through."""


class Answer:
    """What will be told to one sender. `rejected(items, why)` makes the answer where a part of a request was lost."""

    __slots__ = ("_answer", "_future", "_rejected", "_timer")

    def __init__(
        self,
        future: asyncio.Future[object],
        answer: object,
        rejected: Callable[[int, str], object] | None = None,
    ) -> None:
        """Give `answer` through `future`."""
        self._future = future
        self._answer = answer
        self._rejected = rejected
        self._timer: asyncio.TimerHandle | None = None

    def give(self) -> None:
        """Say yes."""
        if not self._future.done():
            self._future.set_result(self._answer)

    def fail(self, error: ConsumeError) -> None:
        """Say no."""
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # who handed over without waiting has nobody to ask

    def expect(self) -> None:
        """Say what became of it, but not later than in `PATIENCE` seconds."""
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)

    def settled(self, receipt: Receipt) -> None:
        """Hear what became of it."""
        self._tell(receipt.items, [receipt.count(outcome) for outcome in Outcome], receipt.reason)

    def entry_closed(self, entry: Entry) -> None:
        """Hear what became of it in every pipeline, or that the journal keeps it for later."""
        if entry.parked:
            self._late("the destination has no room now; the journal keeps it")
        elif entry.outcomes is not None:
            self._tell(sum(entry.outcomes), entry.outcomes, entry.reason)

    def _tell(self, items: int, outcomes: Sequence[int], reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        dropped = outcomes[Outcome.DROPPED]
        if not dropped:
            self.give()
            return
        why = f"{dropped} of {items} items were dropped ({reason})"
        if reason in _TRY_AGAIN and dropped == items:
            self.fail(RetryableError(why, reason=reason))
        elif dropped == items or self._rejected is None:
            self.fail(PermanentError(why, reason=reason))
        elif not self._future.done():
            self._future.set_result(self._rejected(dropped, why))

    def _give_up(self) -> None:
        self._late(f"not delivered within {PATIENCE:g}s")

    def _late(self, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.fail(RetryableError(f"{why}; it may still be delivered", reason="not_delivered_yet"))
