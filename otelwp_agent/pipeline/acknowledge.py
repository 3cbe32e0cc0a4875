"""The answer that a sender waits for: its request has been accepted, or the outcome of its items."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.errors import PermanentError, RetryableError
from otelwp_agent.model.receipt import DEAD_LETTER, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.journal.claims import JournaledRequest
    from otelwp_agent.model.receipt import Receipt

PATIENCE = 30.0
"""Seconds that a sender waits for an outcome; after that the answer is that there is none yet."""
_TRY_AGAIN = frozenset({"queue_full", "shutdown", "retries_exhausted", "timeout", "overloaded"})
"""Reasons of a drop after which a retry of the same request may succeed."""


class Answer:
    """Answer to one sender. `rejected(items, why)` makes the answer if a part of the request was lost."""

    __slots__ = ("_answer", "_future", "_rejected", "_timer")

    def __init__(
        self,
        future: asyncio.Future[object],
        answer: object,
        rejected: Callable[[int, str], object] | None = None,
    ) -> None:
        """Prepare to set `answer`, or an error, as the result of `future`."""
        self._future = future
        self._answer = answer
        self._rejected = rejected
        self._timer: asyncio.TimerHandle | None = None

    def give(self) -> None:
        """Answer that the request was accepted."""
        if not self._future.done():
            self._future.set_result(self._answer)

    def fail(self, error: ConsumeError) -> None:
        """Answer with `error`."""
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # a caller that does not wait never retrieves it, and asyncio would warn

    def expect(self) -> None:
        """Limit the wait for the outcome to `PATIENCE` seconds."""
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)

    def settled(self, receipt: Receipt) -> None:
        """Answer with the outcome of a settled receipt."""
        self._answer_outcome(receipt.items, [receipt.count(outcome) for outcome in Outcome], receipt.reason)

    def entry_closed(self, entry: JournaledRequest) -> None:
        """Answer with the outcome of an entry in every pipeline, or that the journal keeps it for later."""
        if entry.parked:
            self._late("the queue of the destination is full; the journal keeps the request")
        elif entry.outcomes is not None:
            self._answer_outcome(sum(entry.outcomes), entry.outcomes, entry.reason)

    def _answer_outcome(self, items: int, outcomes: Sequence[int], reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        dropped = outcomes[Outcome.DROPPED]
        if not dropped:
            self.give()
            return
        fate = "kept by the agent as dead letters" if reason.startswith(DEAD_LETTER) else "dropped"
        reason = reason.removeprefix(DEAD_LETTER)
        why = f"{dropped} of {items} items were {fate} ({reason})"
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
