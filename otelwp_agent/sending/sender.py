"""The sending half of an exporter: wrap it with a queue, retries, timeouts and an optional batcher.

A `Sender` accepts batches of one signal and keeps them in a bounded queue (`sending.queue`, in which tenants take
turns: `sending.fair_queue`). Its `Dispatcher` decides when the next one is sent: several at once, as many as the
backend can process (`sending.concurrency`), and none while the circuit breaker is open (`sending.breaker`). Its
`Delivery` sends a batch once and handles the outcome: settled, retried, split or given up.

Invariants:

* Every item that `consume` accepted is settled exactly once: delivered, or dropped with a reason; unless a journal
  keeps it and the agent stops (`Batch.abandon`).
* Items accepted = sent + send_failed + kept by the journal + those in the queue (those being sent included).
* An item that the queue refuses counts as enqueue_failed only if it is lost: a fan-out continues without it, because
  this branch is isolated (`Capacity.lost`). An item that its client or a `batch` processor offers again adds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as chance
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.sending.attempts import Attempts
from otelwp_agent.sending.breaker import State
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.delivery import Delivery
from otelwp_agent.sending.dispatcher import Dispatcher
from otelwp_agent.sending.metrics import ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import KEPT_SHARE_BYTES, SHARE_BYTES, SendingQueue
from otelwp_agent.sending.queue_batch import batcher, max_bytes
from otelwp_agent.sending.watchers import Watchers, pipeline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import ComponentHealth, Exporter
    from otelwp_agent.config.blocks import Queue, Retry
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.ledger_report import LedgerLine
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.routing.outlets import SendWatcher
    from otelwp_agent.sending.breaker import Breaker
    from otelwp_agent.sending.delivery import DeadLetters, Elsewhere
    from otelwp_agent.sending.retry import Backoff


@dataclass(frozen=True, slots=True)
class Drained:
    """Numbers of items that a sender held when it stopped: delivered, dropped (`left`), or kept by the journal."""

    delivered: int
    left: int
    kept: int = 0


class SignalSender(ABC):
    """Accepts batches of one signal for `exporter` and sends them. Call it from the thread of the event loop only."""

    exporter: Exporter
    signal: Signal

    @property
    @abstractmethod
    def headers(self) -> Sequence[str]:
        """The client headers that are read of its batches."""

    @property
    @abstractmethod
    def holds(self) -> bool:
        """Whether it holds a batch."""

    @property
    @abstractmethod
    def blocked_until(self) -> float:
        """Time before which nothing is sent; infinity while one attempt tests whether the backend works."""

    @property
    @abstractmethod
    def broken(self) -> bool:
        """Whether nothing is sent because attempts have failed."""

    @property
    @abstractmethod
    def backlog(self) -> int:
        """Number of batches in its queues, including those being sent."""

    @abstractmethod
    def watch(self, watcher: SendWatcher) -> None:
        """Report the results of attempts to `watcher`, too."""

    @abstractmethod
    def unwatch(self, watcher: SendWatcher) -> None:
        """Stop reporting to `watcher`."""

    @abstractmethod
    def move(self, pipeline: str, forward: Callable[[Batch], bool]) -> None:
        """Offer the waiting batches of `pipeline` to `forward`; release those for which it returns `True`."""

    @abstractmethod
    def fill(self, tenant: str) -> float:
        """Return the share of the capacity for a tenant that is used, from 0 to 1."""

    @abstractmethod
    def admit(self) -> None:
        """Raise `Overloaded` if `consume` would refuse any batch."""

    @abstractmethod
    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""

    @abstractmethod
    def consume(self, batch: Batch) -> None:
        """Queue the batch, or raise `Overloaded`. Before `start`, batches wait."""

    @abstractmethod
    def resent(self, items: int, reason: str) -> None:
        """Count the items of a dead letter of this exporter, which `consume` accepted, as in flight again."""

    @abstractmethod
    def rewired(self) -> None:
        """Let every stage that waits for capacity offer again: a reload may have changed where it forwards to."""

    @abstractmethod
    async def start(self) -> None:
        """Start to send."""

    @abstractmethod
    async def drain(self, deadline: float) -> Drained:
        """Accept nothing more, send what is queued until `deadline` (on the context's clock), abandon the rest."""

    async def shutdown(self) -> None:
        """Stop at once: abandon what is queued."""
        await self.drain(self.exporter.context.clock())

    @abstractmethod
    def health(self) -> ComponentHealth:
        """Return the exporter's state."""

    @abstractmethod
    def line(self) -> LedgerLine:
        """Return its ledger."""


class Sender(SignalSender):
    """Sends batches of one signal through `exporter`. Call it from the thread of the event loop only."""

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
        account: str = "",
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """Wrap `exporter`; one try takes at most `timeout` seconds (0: no limit).

        `breaker` is the exporter's, shared with its senders of other signals. `keeps`: a journal keeps what is sent
        here, so retries have no end unless the configuration sets one. `account` is the id under which deliveries and
        dead letters are recorded, by default that of the exporter. `elsewhere` is called with each batch whose attempt
        failed, and may put it into the queue of another sender (`put_moved`).
        """
        context = exporter.context
        clock = self._clock = context.clock
        self.exporter = exporter
        self.signal = signal
        self._id = str(context.id)
        self._draining = False
        """Whether nothing more is accepted."""
        self._batcher = batcher(queue, context)
        if self._batcher is not None:
            self._batcher.next = _QueueConsumer(self._put, self._queue_refusal)
        share_bytes = KEPT_SHARE_BYTES if keeps else SHARE_BYTES
        self._queue = SendingQueue(queue, self._id, share_bytes, clock=clock, lost=self._lost)
        self.breaker = breaker or breaker_of(context, retry, random)
        self._concurrency = Concurrency(queue.min_concurrency, queue.num_consumers)
        self._metrics = ExporterMetrics(context, signal, self._queue, self.breaker, self._concurrency)
        self._watchers = Watchers()
        self._attempts = Attempts(
            exporter, self._metrics, self.breaker, self._concurrency, timeout, watchers=self._watchers
        )
        self._dispatcher = Dispatcher(self._queue, self.breaker, self._concurrency, queue.num_consumers, clock)
        limits = [limit for limit in (exporter.max_request_bytes, max_bytes(queue)) if limit is not None]
        endless = keeps and "max_elapsed_time" not in retry.model_fields_set
        self._delivery = Delivery(
            self._attempts,
            self._metrics,
            queue=self._queue,
            breaker=self.breaker,
            dispatcher=self._dispatcher,
            clock=clock,
            exporter=account or self._id,
            retry=retry.model_copy(update={"max_elapsed_time": 0.0}) if endless else retry,
            max_bytes=min(limits, default=None),
            journaled=keeps,
            dead_letters=dead_letters,
            throttled_by_tenant=exporter.throttled_by_tenant,
            deliveries=context.deliveries,
            watchers=self._watchers,
            random=random,
            elsewhere=elsewhere,
        )

    @property
    def headers(self) -> Sequence[str]:
        """The client headers that its exporter reads, and those by which its batcher separates batches."""
        return (*self.exporter.headers, *(self._batcher.headers if self._batcher is not None else ()))

    @property
    def holds(self) -> bool:
        """Whether it holds a batch: in its batcher, in its queue, or being sent."""
        return bool(self._queue.size) or (self._batcher is not None and self._batcher.holds)

    @property
    def blocked_until(self) -> float:
        """Time before which nothing is sent; infinity while a probe of the circuit breaker is under way."""
        return self.breaker.until

    @property
    def broken(self) -> bool:
        """Whether the circuit breaker is not closed."""
        return self.breaker.state is not State.CLOSED

    @property
    def backlog(self) -> int:
        """Number of batches that wait in the queue or are being sent."""
        return len(self._queue) + self._metrics.in_flight

    def watch(self, watcher: SendWatcher) -> None:
        """Report the results of attempts to `watcher`, too."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: SendWatcher) -> None:
        """Stop reporting to `watcher`."""
        self._watchers.remove(watcher)

    def move(self, pipeline: str, forward: Callable[[Batch], bool]) -> None:
        """Offer the waiting batches of `pipeline` to `forward`; release those for which it returns `True`."""
        self._queue.move(lambda batch: pipeline_of(batch) == pipeline, forward)

    def fill(self, tenant: str) -> float:
        """Return the share of the queue's capacity for a tenant that is used, from 0 to 1."""
        return self._queue.fill(tenant)

    def admit(self) -> None:
        """Raise `Overloaded` if `consume` would refuse any batch."""
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
        """Queue the batch, or raise `Overloaded`. Before `start`, batches wait."""
        if self._draining:
            raise self._closed()
        if self._batcher is None:
            self._put(batch)
        else:
            self._batcher.consume(batch)

    def put_moved(self, batch: Batch, backoff: Backoff | None) -> None:
        """Queue a batch that another sender had accepted, even beyond the capacity; `backoff` if it was tried there."""
        batch.admitted = True
        self._queue.put(batch, backoff)
        self._dispatcher.wake()

    def withdraw(self, accept: Elsewhere) -> None:
        """Offer all batches that wait in the queue to `accept`, and remove those that it accepts."""
        self._queue.withdraw(accept)

    def resent(self, items: int, reason: str) -> None:
        """Count the items of a dead letter of this exporter, which `consume` accepted, as in flight again."""
        self._metrics.resent(items, reason)

    def rewired(self) -> None:
        """Let every stage that waits for the queue offer again: a reload may have changed where it forwards to."""
        self._queue.freed_for_all()

    async def start(self) -> None:
        """Start to send."""
        self._dispatcher.start(f"send {self._id} {self.signal.value}", self._delivery.send)

    async def drain(self, deadline: float) -> Drained:
        """Accept nothing more, send what is queued until `deadline` (on the context's clock), abandon the rest.

        Retries are not delayed any more: each batch that failed before is tried once again, at once, and what fails
        from now on is abandoned. So is everything that waits when the circuit breaker is open after a last probe. A
        second call with an earlier deadline shortens the first one.
        """
        self._draining = True
        self.rewired()  # after a reload, what waits for this queue goes elsewhere
        metrics = self._metrics
        delivered, left, kept = metrics.delivered, metrics.left, metrics.kept
        self._dispatcher.hurry()
        if self._batcher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._batcher.shutdown()
        await self._dispatcher.finish(deadline)
        self._attempts.close()
        self._delivery.abandon_all()
        self._dispatcher.close()
        metrics.close()
        return Drained(metrics.delivered - delivered, metrics.left - left, metrics.kept - kept)

    def health(self) -> ComponentHealth:
        """Return the exporter's state: unhealthy from a failed try to the next that succeeds."""
        return self._metrics.health()

    def line(self) -> LedgerLine:
        """Return its ledger."""
        return self._metrics.line()

    def _lost(self, items: int) -> None:
        self._metrics.lost(items)

    def _queue_refusal(self, batch: Batch) -> RetryableError | None:
        return self._queue.refusal(batch)

    def _put(self, batch: Batch) -> None:
        self._queue.put(batch)
        self._dispatcher.wake()

    def _closed(self) -> Overloaded:
        return Overloaded(f"{self._id} is shutting down", reason="shutting_down")


class _QueueConsumer:
    """The consumer that the batcher forwards to: the queue."""

    def __init__(self, put: Callable[[Batch], None], refusal: Callable[[Batch], RetryableError | None]) -> None:
        self.consume = put
        self.refusal = refusal
