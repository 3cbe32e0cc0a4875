"""What stands around an exporter: the queue, the tries, the parts.

A `Sender` takes batches of one signal, keeps them in a bounded queue and has its exporter send them, several at once:

* A `RetryableError` is tried again after a back-off (`pipeline.retry`), until `max_elapsed_time` has passed.
* A batch above the exporter's `max_request_bytes` is split before it is sent; one refused as too large is halved.
* A merged batch that is refused as malformed is halved between its receipts until the malformed one stands alone, so
  that one bad sender never sinks its neighbours. A single malformed request is dropped whole.
* What the other side rejects of a batch that it took (partial success) is dropped and never sent again. OTLP tells how
  many items those were, not which: the last ones are taken to be.

Invariants:

* Every item that `consume` took is settled exactly once: delivered, or dropped with a reason.
* Items taken = sent + send_failed + those still in the queue (which includes what is being sent).
* An item that the queue refuses counts as enqueue_failed when it is given up (`ConsumeError.given_up`): a fan-out goes
  on without it, or its sender is told. A `batch` processor that keeps it and offers it again adds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as chance
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.config.types import format_duration
from otelwp_agent.errors import (
    MalformedError,
    Overloaded,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from otelwp_agent.model.projections import split_batch, split_bytes, split_receipts
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.pipeline.queue import Entry, SendingQueue, Suspicion
from otelwp_agent.pipeline.queue_batch import batcher, max_bytes
from otelwp_agent.pipeline.retry import Backoff
from otelwp_agent.pipeline.sending_account import SHUTDOWN, SendingAccount
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import ComponentHealth, Exporter
    from otelwp_agent.config.blocks import Queue, Retry
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal

REFUSALS_BEFORE_GIVING_UP = 64
"""Parts of one batch that may be refused as malformed before any is taken. The hunt goes breadth first, so by then
every 32nd of the batch is known to be refused: no bad sender among good ones, but a backend that refuses everything."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the items that a sender still held: how many were delivered, and how many had to be left."""

    delivered: int
    left: int


class Sender:
    """Sends batches of one signal through `exporter`. Give it batches from the event loop's thread alone."""

    def __init__(  # noqa: PLR0913 - each is a section of the exporter's configuration
        self,
        exporter: Exporter,
        signal: Signal,
        *,
        queue: Queue,
        retry: Retry,
        timeout: float,
        random: Callable[[], float] = chance.random,
    ) -> None:
        """Stand around `exporter`; one try takes at most `timeout` seconds (0: as long as the exporter likes)."""
        context = exporter.context
        self.exporter = exporter
        self.signal = signal
        self._clock = context.clock
        self._retry = retry
        self._timeout = timeout or None
        self._random = random
        self._consumers = queue.num_consumers
        self._id = str(context.id)
        self._queue = SendingQueue(queue, self._id)
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._pauses: set[asyncio.Future[None]] = set()
        self._draining = False
        """Nothing more is taken, and nobody waits."""
        self._ending = False
        """Nothing more comes, not even from the batcher."""
        self._stopped = False
        """The time is up."""
        self._batcher = batcher(queue, context)
        if self._batcher is not None:
            self._batcher.next = _Intake(self._put)
        limits = [limit for limit in (exporter.max_request_bytes, max_bytes(queue)) if limit is not None]
        self._max_bytes = min(limits, default=None)
        self._account = SendingAccount(context, signal, self._queue)

    @property
    def fill(self) -> float:
        """How much of the queue's room is taken: 0 is none, 1 is all of it."""
        return self._queue.fill

    def admit(self) -> None:
        """Raise `Overloaded` if `consume` would find no room for anything."""
        if self._draining:
            raise self._closed()
        if self._batcher is None:
            self._queue.admit()
        else:
            self._batcher.admit()

    def consume(self, batch: Batch) -> None:
        """Take the batch, or raise `Overloaded`. Before `start`, batches wait."""
        try:
            if self._draining:
                raise self._closed()
            if self._batcher is None:
                self._put(batch)
            else:
                self._batcher.consume(batch)
        except Overloaded as error:
            error.given_up = self._account.refused
            raise

    async def start(self) -> None:
        """Begin to send."""
        name = f"send {self._id} {self.signal.value}"
        self._workers = [spawn(self._work(), name=f"{name} {number}") for number in range(self._consumers)]

    async def drain(self, deadline: float) -> Drained:
        """Take nothing more, send what is held until `deadline` (on the context's clock), drop what is left.

        Nobody waits for a back-off any more: what failed before is tried once again, at once, and what fails from now
        on is dropped. A second call with an earlier deadline cuts the first one short.
        """
        self._draining = True
        delivered, left = self._account.delivered, self._account.left
        for waiter in tuple(self._pauses):
            _resolve(waiter)
        if self._batcher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._batcher.shutdown()
        self._ending = True
        for waiter in self._idle:
            _resolve(waiter)
        running = [worker for worker in self._workers if not worker.done()]
        if running:
            _, late = await asyncio.wait(running, timeout=max(0.0, deadline - self._clock()))
            self._stopped = True
            for worker in late:
                worker.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        while (entry := self._queue.take()) is not None:
            self._drop(entry, SHUTDOWN, "the agent stopped before its turn came")
        self._account.close()
        return Drained(self._account.delivered - delivered, self._account.left - left)

    async def shutdown(self) -> None:
        """Stop at once: drop what is held."""
        await self.drain(self._clock())

    def health(self) -> ComponentHealth:
        """Return the exporter's state: unhealthy from a failed try to the next that succeeds."""
        return self._account.health()

    async def _work(self) -> None:
        """Send one entry after another; sleep while there is none; end when there is none and nothing will come."""
        while not self._stopped:
            entry = self._queue.take()
            if entry is not None:
                await self._handle(entry)
                del entry  # else the last batch would stay in memory until the next one comes
            elif self._ending:
                return
            else:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter

    async def _handle(self, entry: Entry) -> None:
        """See an entry to its end, and outlive whatever goes wrong with it."""
        self._account.in_flight += 1
        try:
            await self._deliver(entry)
        except asyncio.CancelledError:
            self._drop(entry, SHUTDOWN, "the agent stopped before it was sent")
            raise
        except Exception as error:  # noqa: BLE001 - a bug ends this batch, not the sender
            self._account.broke("sending broke")
            if not entry.released:
                self._drop(entry, "internal_error", repr(error))
        finally:
            self._account.in_flight -= 1

    async def _deliver(self, entry: Entry) -> None:
        """Try until the entry is delivered, replaced by its parts, or given up."""
        batch = entry.batch
        limit = self._max_bytes
        if limit is not None and len(batch.body) > limit:
            reason = f"{len(batch.body)} bytes in {batch.items} items, and {limit} bytes are the most it may send"
            self._part(entry, lambda: split_bytes(batch, limit), TooLargeError(reason))
            return
        backoff = Backoff(self._retry, self._clock(), self._random)
        again = True
        while again:
            last_try = self._draining
            try:
                rejected = await self._try(batch)
            except RetryableError as error:
                again = await self._wait(entry, error, backoff, last_try=last_try)
            except PermanentError as error:
                self._refuse(entry, error)
                return
            else:
                self._accept(entry, rejected)
                return

    async def _wait(self, entry: Entry, error: RetryableError, backoff: Backoff, *, last_try: bool) -> bool:
        """Wait until it is time to try again; return False if there is no such time and the entry has been dropped."""
        self._account.failed(error)
        if last_try or self._stopped:
            self._drop(entry, SHUTDOWN, error)
            return False
        wait = backoff.next_wait(self._clock(), error.retry_after)
        if wait is None:
            self._drop(entry, "retries_exhausted", error)
            return False
        await self._pause(wait)
        self._account.retried()
        return True

    async def _try(self, batch: Batch) -> int:
        """Have the exporter send the batch once; return how many items were rejected. Raises only `ConsumeError`."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._timeout) as timer:
                return await self.exporter.export(batch) or 0  # third parties may return None
        except (PermanentError, RetryableError):
            raise
        except TimeoutError as error:
            within = f" within {format_duration(self._timeout)}" if self._timeout and timer.expired() else " in time"
            raise RetryableError(f"no answer{within}", reason="timeout") from error
        except OSError as error:
            raise RetryableError(str(error), reason="os_error") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RetryableError("the exporter gave the try up", reason="cancelled") from error
        except Exception as error:
            self._account.broke("exporter broke")
            raise PermanentError(f"a bug in the exporter: {error!r}", reason="internal_error") from error
        finally:
            self._account.tried(self._clock() - started)

    async def _pause(self, seconds: float) -> None:
        """Wait, or less if a drain begins."""
        if self._draining:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _resolve, waiter)
        self._pauses.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._pauses.discard(waiter)

    def _refuse(self, entry: Entry, error: PermanentError) -> None:
        """Try smaller parts of what was refused, if that may help; else give it up."""
        batch = entry.batch
        if isinstance(error, TooLargeError):
            self._part(entry, lambda: _halve(batch), error)
        elif isinstance(error, MalformedError) and self._is_worth_a_hunt(entry):
            self._part(entry, lambda: split_receipts(batch), error)
        else:
            self._account.failed(error)
            self._drop(entry, error.reason, error)

    def _part(self, entry: Entry, split: Callable[[], Sequence[Batch]], error: PermanentError) -> None:
        """Put the parts of an entry in its place; drop it if it has none, for what `error` says."""
        batch = entry.batch
        if batch.items > 1 and not batch.encodings:
            try:
                parts = split()
            except MalformedError as unreadable:
                error = unreadable
            else:
                if len(parts) > 1:
                    self._queue.replace(entry, parts)
                    for _ in parts:
                        self._wake()
                    return
        self._account.failed(error)
        self._drop(entry, error.reason, error)

    def _is_worth_a_hunt(self, entry: Entry) -> bool:
        """Tell one bad sender among good ones from a backend that refuses everything."""
        suspicion = entry.suspicion = entry.suspicion or Suspicion()
        suspicion.refused += 1
        return suspicion.taken or suspicion.refused <= REFUSALS_BEFORE_GIVING_UP

    def _accept(self, entry: Entry, rejected: int) -> None:
        """Settle a batch that the other side took, but for `rejected` items."""
        if entry.suspicion is not None:
            entry.suspicion.taken = True
        batch = entry.batch
        self._queue.release(entry)
        if rejected <= 0:
            self._account.sent(batch.items)
            batch.settle(Outcome.DELIVERED)
            return
        taken = max(0, batch.items - rejected)
        self._account.sent(taken)
        self._account.dropped(batch.items - taken, "partial_success", "the other side rejected them")
        for receipt, items in batch.shares:
            delivered = min(items, taken)
            taken -= delivered
            if delivered:
                receipt.settle(Outcome.DELIVERED, delivered)
            if delivered < items:
                receipt.settle(Outcome.DROPPED, items - delivered, "partial_success")

    def _drop(self, entry: Entry, reason: str, error: object) -> None:
        """Give an entry up."""
        self._queue.release(entry)
        self._account.dropped(entry.batch.items, reason, error)
        entry.batch.settle(Outcome.DROPPED, reason)

    def _put(self, batch: Batch) -> None:
        self._queue.put(batch)
        self._wake()

    def _wake(self) -> None:
        """Wake one worker that sleeps, if any does."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _closed(self) -> Overloaded:
        return Overloaded(f"{self._id} is shutting down", reason="shutting_down")


class _Intake:
    """Where the batcher hands on."""

    def __init__(self, put: Callable[[Batch], None]) -> None:
        self.consume = put


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _halve(batch: Batch) -> list[Batch]:
    half = batch.items // 2
    return split_batch(batch, [half, batch.items - half])
