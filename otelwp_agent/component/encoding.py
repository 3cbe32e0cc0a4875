"""`EncodingProcessor`: base class of processors that compress or encrypt the bodies of batches.

Small bodies are encoded at once, in `consume`. A body that would take longer than `LONGEST_ON_LOOP` is encoded in a
thread; the cost per byte is measured all the time. Meanwhile the batch is kept here; if the next stage refuses it, it
is offered again.

Invariants:

* `_held` is the sum of the bodies that are kept here. Nothing is kept beyond `MAX_HELD`, except one larger body
  alone, and what a fan-out has `admitted`.
* The kept batches of a tenant are forwarded in the order of their arrival. Tenants do not wait for each other.
* Each batch that was accepted is forwarded, or settled as dropped with a reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.component.bases import Processor
from otelwp_agent.errors import ConsumeError, Overloaded, RetryableError
from otelwp_agent.fair_share import DEFAULT_SHARE, TenantUse
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.decoding import executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component.context import Context
    from otelwp_agent.model.batch import Batch

LONGEST_ON_LOOP = 0.001
"""CPU seconds from which on a body is encoded in a thread. A thread costs about 0.1 ms more."""
MAX_HELD = 32 * 2**20
"""Maximum number of bytes of the bodies that one processor keeps."""
FIRST_SPEED = 64 * 2**20
"""Assumed bytes per second before anything was measured."""

_LEAST_MEASURED = 16 * 2**10
"""Bytes of the smallest body by which the speed is measured: smaller ones show the cost per call."""
_WEIGHT = 0.2
"""Weight of the last measurement in the speed."""
_DRAIN_CHECK = 0.005
"""Seconds between two checks at shutdown whether everything has been forwarded."""


class EncodingProcessor(Processor):
    """Forwards batches with encoded bodies. A subclass implements `encode`."""

    def __init__(self, context: Context) -> None:
        """Keep nothing yet."""
        super().__init__(context)
        self._tenants: dict[str, _TenantBatches] = {}
        self._held = 0
        self._use = TenantUse()
        self._capacity = Capacity(f"processors/{context.id}", context.clock)
        self._bytes_on_loop = FIRST_SPEED * LONGEST_ON_LOOP
        self._drops = LogLimit(context.clock)

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with an encoded body; raise `ConsumeError`.

        It is called on the event loop or in a thread, so it must not change the processor.
        """
        raise NotImplementedError

    def encoded(self, before: Batch, after: Batch, seconds: float) -> None:
        """Count an encoded batch; `seconds` of CPU were needed. Called on the event loop."""

    def unable(self) -> RetryableError | None:
        """Return the error if no batch can be encoded now, else `None`."""
        return None

    def consume(self, batch: Batch) -> None:
        """Encode the batch and forward it, now or later; raise if it is refused."""
        large = len(batch.body) > self._bytes_on_loop
        if not batch.admitted:
            refusal = self._refusal(batch, large=large)
            if refusal is not None:
                try:
                    raise refusal
                finally:
                    del refusal  # else this frame, with the body, and the error would hold each other
        if large:
            self._keep(batch)
            return
        after, seconds = _timed(self.encode, batch)
        self._measure(batch, after, seconds)
        self.next.consume(after)

    def admit(self) -> None:
        """Raise if no batch can be encoded now."""
        error = self.unable()
        if error is not None:
            raise error

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now, else `None`."""
        return self._refusal(batch, large=len(batch.body) > self._bytes_on_loop)

    def rewired(self) -> None:
        """Offer the batches again that the next stage has refused."""
        for kept in tuple(self._tenants.values()):
            kept.offer.again()

    async def shutdown(self) -> None:
        """Forward all batches, without a time limit; when cancelled, drop the remaining ones."""
        try:
            while self._tenants:  # noqa: ASYNC110 - threads and offers forward them
                await asyncio.sleep(_DRAIN_CHECK)
        finally:
            self._drop_everything()

    def _refusal(self, batch: Batch, *, large: bool) -> RetryableError | None:
        refusal = self.unable()
        if refusal is not None or not large:
            return refusal or self.next.refusal(batch)
        tenant, size = batch.origin.tenant, len(batch.body)
        if self._held and self._held + size > MAX_HELD:
            return self._full("")
        if self._use.excess(tenant, size, capacity=MAX_HELD, share=DEFAULT_SHARE, total=self._held) is not None:
            return self._full(tenant)
        return self.next.refusal(batch)

    def _full(self, tenant: str) -> Overloaded:
        self._capacity.refuse(full=not tenant)
        message = f"processor {self.context.id} cannot encode large batches as fast as they arrive"
        return Overloaded(message, retry_after=1.0, reason="encoding", capacity=self._capacity, tenant=tenant)

    def _keep(self, batch: Batch) -> None:
        """Keep a batch, and encode it in a thread."""
        tenant = batch.origin.tenant
        kept = self._tenants.get(tenant)
        if kept is None:
            kept = self._tenants[tenant] = _TenantBatches(lambda: self._forward(tenant))
        entry = _KeptBatch(batch)
        kept.entries.append(entry)
        self._hold(batch, len(batch.body))
        self._start(tenant, entry)

    def _hold(self, batch: Batch, size: int) -> None:
        self._held += size
        self._use.add(batch.origin.tenant, size)
        self.context.in_flight.reserve(size)

    def _start(self, tenant: str, entry: _KeptBatch) -> None:
        entry.running = True
        future = asyncio.get_running_loop().run_in_executor(executor(), _timed, self.encode, entry.batch)
        future.add_done_callback(lambda done: self._finished(tenant, entry, done))

    def _finished(self, tenant: str, entry: _KeptBatch, done: asyncio.Future[tuple[Batch, float]]) -> None:
        entry.running = False
        entry.error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if entry.error is None:
            entry.after, seconds = done.result()
            self._measure(entry.batch, entry.after, seconds)
        if not entry.given_up:
            self._forward(tenant)

    def _measure(self, before: Batch, after: Batch, seconds: float) -> None:
        size = len(before.body)
        if size >= _LEAST_MEASURED and seconds > 0:
            measured = size / seconds * LONGEST_ON_LOOP
            self._bytes_on_loop += _WEIGHT * (measured - self._bytes_on_loop)
        self.encoded(before, after, seconds)

    def _forward(self, tenant: str) -> None:
        """Forward the encoded batches of a tenant, in order, until one is refused or not encoded yet."""
        kept = self._tenants[tenant]
        if kept.offer.waiting:
            return
        while kept.entries and not kept.entries[0].running:
            entry = kept.entries[0]
            error = entry.error
            try:
                if isinstance(error, RetryableError):
                    entry.error = None
                    raise error
                if error is not None:
                    self._drop(entry.batch, error)
                elif entry.after is None:  # it could not be encoded before
                    self._start(tenant, entry)
                    return
                else:
                    self.next.consume(entry.after)
            except RetryableError as refusal:
                kept.offer.wait(refusal)
                return
            except ConsumeError as refusal:
                self._drop(entry.batch, refusal)
            kept.offer.accepted()
            self._release(kept.entries.popleft())
        if not kept.entries:
            del self._tenants[tenant]

    def _release(self, entry: _KeptBatch) -> None:
        self._hold(entry.batch, -len(entry.batch.body))
        if self._capacity.watched:
            self._capacity.freed()

    def _drop(self, batch: Batch, error: BaseException) -> None:
        """Settle a batch that can never be forwarded."""
        reason = error.reason if isinstance(error, ConsumeError) else "internal_error"
        batch.settle(Outcome.DROPPED, reason)
        if total := self._drops.take(batch.items):
            bug = None if isinstance(error, ConsumeError) else error
            self.context.log.error("items dropped", reason=reason, items=total, error=str(error), exc_info=bug)

    def _drop_everything(self) -> None:
        """Abandon the batches that are left when the shutdown has no more time."""
        dropped = 0
        for kept in self._tenants.values():
            kept.offer.cancel()
            for entry in kept.entries:
                entry.given_up = True
                dropped += entry.batch.abandon()
                self._release(entry)
        self._tenants.clear()
        if dropped:
            message = "they could not be encoded and forwarded before the shutdown ended"
            self.context.log.error("items dropped", reason="shutdown", items=dropped, error=message)


class _KeptBatch:
    """A batch that is kept, and the result of its encoding."""

    __slots__ = ("after", "batch", "error", "given_up", "running")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.after: Batch | None = None
        self.error: BaseException | None = None
        self.running = False
        self.given_up = False


class _TenantBatches:
    """The kept batches of one tenant, in order; `offer` waits while the next stage refuses the first."""

    __slots__ = ("entries", "offer")

    def __init__(self, again: Callable[[], None]) -> None:
        self.entries: deque[_KeptBatch] = deque()
        self.offer = Offer(again)


def _timed(encode: Callable[[Batch], Batch], batch: Batch) -> tuple[Batch, float]:
    """Return the encoded batch and the CPU seconds of this thread that it took."""
    started = time.thread_time()
    after = encode(batch)
    return after, time.thread_time() - started
