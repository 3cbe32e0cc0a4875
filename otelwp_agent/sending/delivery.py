"""Send one queued batch once and handle the outcome: settle it, queue its retry or its parts, or give it up.

* A `RetryableError` is retried after a back-off (`sending.retry`), until `max_elapsed_time` has passed. A batch that
  waits for its retry waits in the queue, and other batches are sent meanwhile.
* A batch above the limit of bytes is split before it is sent; one that is refused as too large is halved.
* A merged batch that is refused as malformed is halved between its receipts until the malformed one is alone, so that
  one invalid request does not lose those it was merged with. A single malformed request is given up as a whole.
* What the backend rejects of an accepted batch (partial success) is dropped and never sent again. OTLP reports how many
  items were rejected, not which: they are assumed to be the last ones.
* If a connector before the exporter has another destination, a batch that fails moves there instead of waiting for its
  retry or being given up (`sending.watchers`).
* A batch that is refused permanently goes to the dead letters, if there are any, before it is given up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError, TooLargeError
from otelwp_agent.model.receipt import DEAD_LETTER, SHUTDOWN, Outcome
from otelwp_agent.routing.outlets import Move
from otelwp_agent.sending.breaker import MAX_RETRY_AFTER, State
from otelwp_agent.sending.parts import parts_of
from otelwp_agent.sending.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config.blocks import Retry
    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.deliveries import Deliveries
    from otelwp_agent.sending.attempts import Attempts
    from otelwp_agent.sending.breaker import Breaker, Permit
    from otelwp_agent.sending.dispatcher import Dispatcher
    from otelwp_agent.sending.metrics import ExporterMetrics
    from otelwp_agent.sending.queue import SendingQueue
    from otelwp_agent.sending.queued_batch import QueuedBatch
    from otelwp_agent.sending.watchers import Watchers

    Elsewhere = Callable[[QueuedBatch], bool]
    """Puts a batch into another queue if that is better than to retry it here; returns whether it has done so."""

LETTER_INTERVAL = 1.0
"""Seconds until a journaled batch is sent again that was refused permanently and could not be kept as a dead letter."""
_REJECTED = "the backend rejected them"


class DeadLetters(Protocol):
    """Keeps undeliverable batches."""

    def put(self, batch: Batch, *, exporter: str, reason: str, error: str) -> Fate:
        """Keep the batch with the reason of its refusal; return whether it is kept. Never raises."""


class Delivery:
    """Sends the batches of one sender, and settles them."""

    def __init__(  # noqa: PLR0913 - the parts of one sender, and three settings
        self,
        attempts: Attempts,
        metrics: ExporterMetrics,
        *,
        queue: SendingQueue,
        breaker: Breaker,
        dispatcher: Dispatcher,
        clock: Callable[[], float],
        exporter: str,
        retry: Retry,
        max_bytes: int | None,
        journaled: bool,
        dead_letters: DeadLetters | None,
        throttled_by_tenant: bool,
        deliveries: Deliveries,
        watchers: Watchers,
        random: Callable[[], float],
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """Send with `attempts` for the exporter with the id `exporter`, at most `max_bytes` (`None`: no limit) at once.

        `deliveries` counts the outcomes by tenant; failures are reported to `watchers`, which may move a batch.

        `journaled`: a journal keeps what is sent here, so what cannot be delivered or kept when the agent stops is not
        lost. `throttled_by_tenant` is that of the exporter. `elsewhere` is called with each batch whose attempt failed.
        """
        self._attempts = attempts
        self._metrics = metrics
        self._queue = queue
        self._breaker = breaker
        self._dispatcher = dispatcher
        self._clock = clock
        self._exporter = exporter
        self._retry = retry
        self._max_bytes = max_bytes
        self._journaled = journaled
        self._dead_letters = dead_letters
        self._throttled_by_tenant = throttled_by_tenant
        self._deliveries = deliveries
        self._watchers = watchers
        self._random = random
        self._elsewhere = elsewhere

    async def send(self, entry: QueuedBatch, permit: Permit) -> None:
        """Send a batch once and handle the outcome. Any error but `CancelledError` is logged and drops the batch."""
        batch, limit = entry.batch, self._max_bytes
        try:
            if limit is not None and len(batch.body) > limit:
                self._breaker.released(permit, self._clock())
                reason = f"{len(batch.body)} bytes in {batch.items} items, and {limit} bytes are the most it may send"
                self._refuse(entry, TooLargeError(reason), limit)
                return
            if entry.backoff is not None:
                self._metrics.retried()
            last_try = self._dispatcher.draining
            started = self._clock()
            try:
                rejected = await self._attempts.once(batch, permit)
            except RetryableError as error:
                self._put_off(entry, error, started, last_try=last_try)
            except PermanentError as error:
                self._refuse(entry, error)
            else:
                self._accept(entry, rejected)
        except asyncio.CancelledError:
            self.abandon(entry)
            raise
        except Exception as error:  # noqa: BLE001 - a bug ends this batch, not the sender
            self._metrics.bug("sending broke")
            if not entry.released:
                self._give_up(entry, "internal_error", repr(error))

    def abandon(self, entry: QueuedBatch) -> None:
        """Release a batch because the agent stops: the journal keeps it, or it is dropped."""
        self._queue.release(entry, progress=False)
        dropped = entry.batch.abandon()
        self._deliveries.add(self._exporter, entry.batch.origin.tenant, 0, dropped)
        reason = _counted_reason(entry.batch, SHUTDOWN)
        if reason != SHUTDOWN:
            self._metrics.dropped(dropped, reason, "the agent stopped before they were sent again")
        else:
            self._metrics.abandoned(entry.batch.items, dropped)

    def abandon_all(self) -> None:
        """Abandon every batch that waits in the queue."""
        self._queue.recall(float("inf"))
        self._queue.limit_sends(None)  # nothing more is sent
        while self._queue.ready:
            self.abandon(self._queue.take())

    def _put_off(self, entry: QueuedBatch, error: RetryableError, started: float, *, last_try: bool) -> None:
        """Queue the retry of a batch that failed, or give it up if there is none."""
        self._metrics.failed(error)
        if self._watchers and self._move(entry, error) is Move.DONE:
            return
        if last_try or self._dispatcher.stopped:
            self.abandon(entry)
            if self._breaker.state is State.OPEN:
                self.abandon_all()
            return
        now = self._clock()
        if self._throttled_by_tenant and isinstance(error, Overloaded) and error.retry_after:
            self._queue.pause(entry.tenant_queue, now + min(error.retry_after, MAX_RETRY_AFTER))
        wait = self._backoff(entry, started).next_wait(now, error.retry_after)
        if wait is None:
            self._drop(entry, "retries_exhausted", error)
        elif self._elsewhere is not None and self._elsewhere(entry):
            self._queue.forget(entry)
        else:
            self._queue.put_off(entry, now if self._dispatcher.draining else now + wait)

    def _refuse(self, entry: QueuedBatch, error: PermanentError, limit: int | None = None) -> None:
        """Replace a batch that was refused by its parts, if those may be accepted; else give it up."""
        parts, error = parts_of(entry, error, limit)
        if parts:
            self._queue.replace(entry, parts)
            return
        self._metrics.failed(error)
        move = self._move(entry, error) if self._watchers else Move.NONE
        if move is Move.DONE:
            return
        now = self._clock()
        if move is Move.LATER and not self._dispatcher.draining:
            wait = self._backoff(entry, now).next_wait(now)
            if wait is not None:
                self._queue.put_off(entry, now + wait)
                return
        self._give_up(entry, error.reason, error)

    def _backoff(self, entry: QueuedBatch, started: float) -> Backoff:
        """Return the back-off of a batch, whose first attempt began at `started` if it has none yet."""
        if entry.backoff is None:
            entry.backoff = Backoff(self._retry, started, self._random)
        return entry.backoff

    def _move(self, entry: QueuedBatch, error: ConsumeError) -> Move:
        """Report a failure to the connectors before the exporter; release the batch if another exporter has it."""
        move = self._watchers.failed(entry.batch, error)
        if move is Move.DONE:
            self._queue.forget(entry)
        return move

    def _accept(self, entry: QueuedBatch, rejected: int) -> None:
        """Settle a batch that the backend accepted, except for `rejected` items."""
        if entry.search is not None:
            entry.search.accepted = True
        batch = entry.batch
        taken = max(0, batch.items - rejected) if rejected > 0 else batch.items
        self._metrics.sent(taken)
        if not taken:
            self._give_up(entry, "partial_success", _REJECTED)
            return
        self._queue.release(entry)
        self._deliveries.add(self._exporter, batch.origin.tenant, taken, batch.items - taken)
        if taken == batch.items:
            batch.settle(Outcome.DELIVERED)
            return
        self._metrics.dropped(batch.items - taken, "partial_success", _REJECTED)
        for receipt, items in batch.shares:
            delivered = min(items, taken)
            taken -= delivered
            receipt.settle(Outcome.DELIVERED, delivered)
            receipt.settle(Outcome.DROPPED, items - delivered, "partial_success")

    def _give_up(self, entry: QueuedBatch, reason: str, error: object) -> None:
        """Give up a batch that can never be delivered; keep it as a dead letter if possible."""
        letters = self._dead_letters
        fate = Fate.LOST
        if letters is not None:
            fate = letters.put(entry.batch, exporter=self._exporter, reason=reason, error=str(error))
        if fate is Fate.KEPT:
            self._drop(entry, DEAD_LETTER + reason, error)
        elif fate is Fate.LOST or not self._journaled:
            self._drop(entry, reason, error)
        elif self._dispatcher.draining:
            self.abandon(entry)
        else:
            self._queue.put_off(entry, self._clock() + LETTER_INTERVAL)

    def _drop(self, entry: QueuedBatch, reason: str, error: object) -> None:
        """Settle a batch as dropped."""
        self._queue.release(entry, progress=reason != "retries_exhausted")
        self._metrics.dropped(entry.batch.items, _counted_reason(entry.batch, reason), error)
        self._deliveries.add(self._exporter, entry.batch.origin.tenant, 0, entry.batch.items)
        entry.batch.settle(Outcome.DROPPED, reason)


def _counted_reason(batch: Batch, reason: str) -> str:
    """Return the reason to count for a dropped batch: that of its dead letters, if resent letters hold all of it."""
    if reason.startswith(DEAD_LETTER):
        return reason  # it has a new letter with a new reason
    letters = [receipt.letter_reason for receipt, _ in batch.shares]
    return DEAD_LETTER + letters[0] if letters and all(letters) else reason
