"""What stands around an exporter: the queue, the tries, the parts.

A `Sender` takes batches of one signal, keeps them in a bounded queue and has its exporter send them, several at once:

* A `RetryableError` is tried again after a back-off (`sending.retry`), until `max_elapsed_time` has passed. A batch
  that waits for its next try waits in the queue and keeps nobody from sending another.
* A batch above the exporter's `max_request_bytes` is split before it is sent; one refused as too large is halved.
* A merged batch that is refused as malformed is halved between its receipts until the malformed one stands alone, so
  that one bad sender never sinks its neighbours. A single malformed request is dropped whole.
* What the other side rejects of a batch that it took (partial success) is dropped and never sent again. OTLP tells how
  many items those were, not which: the last ones are taken to be.
* What is refused for good goes to `dead_letters`, if there are any, before it is dropped.
* How many are sent at once adapts to the other side (`sending.concurrency`), tenants take turns
  (`sending.fair_queue`), and nothing is tried while the circuit breaker is open (`sending.breaker`).

Invariants:

* Every item that `consume` took is settled exactly once: delivered, or dropped with a reason; unless a journal keeps it
  and the agent stops (`Batch.abandon`).
* Items taken = sent + send_failed + kept by the journal + those still in the queue (which includes what is being sent).
* An item that the queue refuses counts as enqueue_failed only if it is lost: a fan-out goes on without it, because this
  branch is isolated (`Capacity.lost`). What its sender or a `batch` processor offers again adds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as chance
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.errors import (
    Overloaded,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from otelwp_agent.model.receipt import DEAD_LETTER, SHUTDOWN, Outcome
from otelwp_agent.sending.attempts import Tries
from otelwp_agent.sending.breaker import Permit, State
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.metrics import SendingAccount, breaker_of
from otelwp_agent.sending.parts import parts_of
from otelwp_agent.sending.queue import KEPT_SHARE_BYTES, SHARE_BYTES, Entry, SendingQueue
from otelwp_agent.sending.queue_batch import batcher, max_bytes
from otelwp_agent.sending.retry import Backoff
from otelwp_agent.sending.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from otelwp_agent.component import ComponentHealth, Exporter
    from otelwp_agent.config.blocks import Queue, Retry
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.ledger_report import Line
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.sending.breaker import Breaker

LETTER_INTERVAL = 1.0
"""Seconds until what a journal has is sent again when it was refused for good and that could not be written down."""
GRAIN = 1e-6
"""Seconds by which a timer may ring early."""
_TRY = Permit.TRY
_REJECTED = "the other side rejected them"


class DeadLetters(Protocol):
    """Where goes what can never be delivered."""

    def put(self, batch: Batch, *, exporter: str, reason: str, error: str) -> Fate:
        """Keep the batch, and why it was refused; return whether it is kept. Never raises."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the items that a sender still held: delivered, dropped (`left`), or kept by the journal."""

    delivered: int
    left: int
    kept: int = 0


class Sender:
    """Sends batches of one signal through `exporter`. Give it batches from the event loop's thread alone."""

    def __init__(  # noqa: PLR0913 - each is a section of the exporter's configuration, or shared with other senders
        self,
        exporter: Exporter,
        signal: Signal,
        *,
        queue: Queue,
        retry: Retry,
        timeout: float,
        breaker: Breaker | None = None,
        keeps: bool = False,
        dead_letters: DeadLetters | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        """Stand around `exporter`; one try takes at most `timeout` seconds (0: as long as the exporter likes).

        `breaker` is the exporter's, shared with its senders of other signals. `keeps`: a journal has what is sent here,
        so retries have no end unless the configuration names one.
        """
        context = exporter.context
        self.exporter = exporter
        self.signal = signal
        self._clock = context.clock
        endless = keeps and "max_elapsed_time" not in retry.model_fields_set
        self._retry = retry.model_copy(update={"max_elapsed_time": 0.0}) if endless else retry
        self._random = random
        self._id = str(context.id)
        self._keeps = keeps
        self._dead_letters = dead_letters
        self._draining = False
        """Nothing more is taken, and nobody waits."""
        self._batcher = batcher(queue, context)
        if self._batcher is not None:
            self._batcher.next = _Intake(self._put, self._queue_refusal)
        limits = [limit for limit in (exporter.max_request_bytes, max_bytes(queue)) if limit is not None]
        self._max_bytes = min(limits, default=None)
        share_bytes = KEPT_SHARE_BYTES if keeps else SHARE_BYTES
        self._queue = SendingQueue(queue, self._id, share_bytes, clock=self._clock, lost=self._lost)
        self.breaker = breaker or breaker_of(context, retry, random)
        self._concurrency = Concurrency(queue.min_concurrency, queue.num_consumers)
        self._account = SendingAccount(context, signal, self._queue, self.breaker, self._concurrency)
        self._tries = Tries(exporter, self._account, self.breaker, self._concurrency, timeout)
        self._workers = Workers(self, queue.num_consumers, self._clock)
        self.breaker.listeners.append(self._workers.wake)

    @property
    def headers(self) -> Sequence[str]:
        """The clients' headers by which it keeps batches apart."""
        return self._batcher.headers if self._batcher is not None else ()

    def fill(self, tenant: str) -> float:
        """Return how much of the queue's room for a tenant is taken: 0 is none, 1 is all of it."""
        return self._queue.fill(tenant)

    def admit(self) -> None:
        """Raise `Overloaded` if `consume` would find no room for anything."""
        if self._draining:
            raise self._closed()
        if self._batcher is None:
            self._queue.admit()
        else:
            self._batcher.admit()

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        if self._draining:
            return self._closed()
        return self._queue.refusal(batch) if self._batcher is None else self._batcher.refusal(batch)

    def consume(self, batch: Batch) -> None:
        """Take the batch, or raise `Overloaded`. Before `start`, batches wait."""
        if self._draining:
            raise self._closed()
        if self._batcher is None:
            self._put(batch)
        else:
            self._batcher.consume(batch)

    def resent(self, items: int, reason: str) -> None:
        """Count the items of a dead letter of this exporter, which `consume` accepted, as in flight again."""
        self._account.resent(items, reason)

    def rewired(self) -> None:
        """Have those offer again who wait for its queue: a reload may have changed where they forward to."""
        self._queue.freed_for_all()

    async def start(self) -> None:
        """Begin to send."""
        self._workers.start(f"send {self._id} {self.signal.value}")

    async def drain(self, deadline: float) -> Drained:
        """Take nothing more, send what is held until `deadline` (on the context's clock), let go of what is left.

        Nobody waits for a back-off any more: what failed before is tried once again, at once, and what fails from now
        on is let go of. So is all that waits when the circuit breaker stands open after a last probe. A second call
        with an earlier deadline cuts the first one short.
        """
        self._draining = True
        self.rewired()  # what waits for it goes elsewhere, if there has been a reload
        account = self._account
        delivered, left, kept = account.delivered, account.left, account.kept
        self._queue.recall(float("inf"))
        self._workers.wake()
        if self._batcher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._batcher.shutdown()
        await self._workers.finish(deadline)
        self._tries.close()
        self._abandon_all()
        with contextlib.suppress(ValueError):  # the second time
            self.breaker.listeners.remove(self._workers.wake)
        account.close()
        return Drained(account.delivered - delivered, account.left - left, account.kept - kept)

    async def shutdown(self) -> None:
        """Stop at once: let go of what is held."""
        await self.drain(self._clock())

    def health(self) -> ComponentHealth:
        """Return the exporter's state: unhealthy from a failed try to the next that succeeds."""
        return self._account.health()

    def line(self) -> Line:
        """Return its ledger."""
        return self._account.line()

    def next_job(self) -> Coroutine[None, None, None] | None:
        """Take the next entry, if one may be sent now, and return what sends it. For the workers."""
        account, queue, breaker = self._account, self._queue, self.breaker
        if not (queue.ready or queue.later) or account.sending >= self._concurrency.limit:
            return None
        permit = _TRY
        if queue.later or not breaker.calm:
            now = self._clock() + GRAIN
            # A probe is rather one that was never tried: the one that failed may be what the other side cannot bear.
            if not queue.ready or self._draining or breaker.state is State.CLOSED:
                queue.recall(now)
            if queue.ready:
                permit = breaker.acquire(now, self, hurry=self._draining)
            if not (queue.ready and permit):
                return None
        entry = queue.take()
        account.sending += 1
        if queue.ready:
            self._workers.wake()
        return self._send(entry, permit)

    def due(self) -> float | None:
        """Return when something may be sent that may not be now. For the workers."""
        if self._account.sending >= self._concurrency.limit:
            return None
        at = max(0.0 if self._queue.ready else self._queue.due, self.breaker.ask_again(self))
        return None if at == float("inf") else at

    def idle(self) -> bool:
        """Tell whether nothing waits. For the workers."""
        return not (self._queue.ready or self._queue.later)

    async def _send(self, entry: Entry, permit: Permit) -> None:
        """Try an entry once and see to what comes of it; outlive whatever goes wrong."""
        batch, limit = entry.batch, self._max_bytes
        try:
            if limit is not None and len(batch.body) > limit:
                self.breaker.released(permit, self._clock())
                reason = f"{len(batch.body)} bytes in {batch.items} items, and {limit} bytes are the most it may send"
                self._refuse(entry, TooLargeError(reason), limit)
                return
            if entry.backoff is not None:
                self._account.retried()
            last_try = self._draining
            started = self._clock()
            try:
                rejected = await self._tries.once(batch, permit)
            except RetryableError as error:
                self._put_off(entry, error, started, last_try=last_try)
            except PermanentError as error:
                self._refuse(entry, error)
            else:
                self._accept(entry, rejected)
        except asyncio.CancelledError:
            self._abandon(entry)
            raise
        except Exception as error:  # noqa: BLE001 - a bug ends this batch, not the sender
            self._account.broke("sending broke")
            if not entry.released:
                self._bury(entry, "internal_error", repr(error))
        finally:
            self._account.sending -= 1

    def _put_off(self, entry: Entry, error: RetryableError, started: float, *, last_try: bool) -> None:
        """Have an entry that failed wait for its next try, or give it up if there is none."""
        self._account.failed(error)
        if last_try or self._workers.stopped:
            self._abandon(entry)
            if self.breaker.state is State.OPEN:
                self._abandon_all()
            return
        if entry.backoff is None:
            entry.backoff = Backoff(self._retry, started, self._random)
        now = self._clock()
        wait = entry.backoff.next_wait(now, error.retry_after)
        if wait is None:
            self._drop(entry, "retries_exhausted", error)
        else:
            self._queue.put_off(entry, now if self._draining else now + wait)

    def _refuse(self, entry: Entry, error: PermanentError, limit: int | None = None) -> None:
        """Put smaller parts of what was refused in its place, if they may pass; else give it up."""
        parts, error = parts_of(entry, error, limit)
        if parts:
            self._queue.replace(entry, parts)
        else:
            self._account.failed(error)
            self._bury(entry, error.reason, error)

    def _accept(self, entry: Entry, rejected: int) -> None:
        """Settle a batch that the other side took, but for `rejected` items."""
        if entry.suspicion is not None:
            entry.suspicion.taken = True
        batch = entry.batch
        taken = max(0, batch.items - rejected) if rejected > 0 else batch.items
        self._account.sent(taken)
        if not taken:
            self._bury(entry, "partial_success", _REJECTED)
            return
        self._queue.release(entry)
        if taken == batch.items:
            batch.settle(Outcome.DELIVERED)
            return
        self._account.dropped(batch.items - taken, "partial_success", _REJECTED)
        for receipt, items in batch.shares:
            delivered = min(items, taken)
            taken -= delivered
            if delivered:
                receipt.settle(Outcome.DELIVERED, delivered)
            if delivered < items:
                receipt.settle(Outcome.DROPPED, items - delivered, "partial_success")

    def _bury(self, entry: Entry, reason: str, error: object) -> None:
        """Give up an entry that can never be delivered."""
        letters = self._dead_letters
        fate = Fate.LOST
        if letters is not None:
            fate = letters.put(entry.batch, exporter=self._id, reason=reason, error=str(error))
        if fate is Fate.KEPT:
            self._drop(entry, DEAD_LETTER + reason, error)
        elif fate is Fate.LOST or not self._keeps:
            self._drop(entry, reason, error)
        elif self._draining:
            self._abandon(entry)
        else:
            self._queue.put_off(entry, self._clock() + LETTER_INTERVAL)

    def _drop(self, entry: Entry, reason: str, error: object) -> None:
        """Give an entry up."""
        self._queue.release(entry, progress=reason != "retries_exhausted")
        self._account.dropped(entry.batch.items, _counted_reason(entry.batch, reason), error)
        entry.batch.settle(Outcome.DROPPED, reason)

    def _abandon(self, entry: Entry) -> None:
        """Let go of an entry because the agent stops."""
        self._queue.release(entry, progress=False)
        dropped = entry.batch.abandon()
        reason = _counted_reason(entry.batch, SHUTDOWN)
        if reason != SHUTDOWN:
            self._account.dropped(dropped, reason, "the agent stopped before they were sent again")
        else:
            self._account.abandoned(entry.batch.items, dropped)

    def _abandon_all(self) -> None:
        """Let go of everything that waits."""
        self._queue.recall(float("inf"))
        while self._queue.ready:
            self._abandon(self._queue.take())

    def _lost(self, items: int) -> None:
        self._account.lost(items)

    def _queue_refusal(self, batch: Batch) -> RetryableError | None:
        return self._queue.refusal(batch)

    def _put(self, batch: Batch) -> None:
        self._queue.put(batch)
        self._workers.wake()

    def _closed(self) -> Overloaded:
        return Overloaded(f"{self._id} is shutting down", reason="shutting_down")


def _counted_reason(batch: Batch, reason: str) -> str:
    """Return the reason to count for a batch that is dropped: that of the letter, if resent letters keep all of it."""
    if reason.startswith(DEAD_LETTER):
        return reason  # it has a new letter, with a new reason
    letters = [receipt.letter_reason for receipt, _ in batch.shares]
    return DEAD_LETTER + letters[0] if letters and all(letters) else reason


class _Intake:
    """Where the batcher hands on."""

    def __init__(self, put: Callable[[Batch], None], refusal: Callable[[Batch], RetryableError | None]) -> None:
        self.consume = put
        self.refusal = refusal
