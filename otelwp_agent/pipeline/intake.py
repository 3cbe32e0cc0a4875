"""Connect receivers, the journal and the pipelines.

A request is written to the journal first and then fed to its pipelines. Entries that wait in the journal, from before a
crash or because an exporter had no capacity, are fed when an exporter that has not settled them has capacity again, but
only up to half of its queue: the other half is for new requests.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, RetryableError
from otelwp_agent.journal.claims import JournalClaim
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.pipeline.acknowledge import Answer
from otelwp_agent.pipeline.entry import ReceiverEntry
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Key = tuple[str, str, str, tuple[tuple[str, str], ...], tuple[str, ...]]
    """Receiver, transport, tenant, headers and pipelines."""

    import structlog

    from otelwp_agent.journal.claims import Done, JournaledRequest
    from otelwp_agent.journal.journal import Journal
    from otelwp_agent.journal.records import RequestContext
    from otelwp_agent.model.ledgers import Ledgers
    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.entry import PipelineHead
    from otelwp_agent.telemetry.metrics import Registry

MAX_FILL = 0.5
"""Share of an exporter's queue that entries read again may fill."""
TURN = 0.005
"""Seconds of reading again before other tasks run."""
REMEMBERED_SENDERS = 1024
PAUSE = 0.25
"""Seconds after which waiting entries are tried again if no queue has reported capacity."""


class Intake:
    """Feeds journaled requests to the pipelines that `switch` names."""

    def __init__(self, journal: Journal, ledgers: Ledgers, log: structlog.typing.FilteringBoundLogger) -> None:
        """Prepare; `switch` names the pipelines, `start` begins."""
        self.journal = journal
        self.ledgers = ledgers
        self.headers: Sequence[str] = ()
        """Client headers that a component reads, in lower case: only these are written to disk."""
        self._heads: Mapping[str, PipelineHead] = {}
        self._log = log
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        journal.on_closed = self._wake.set

    def switch(self, heads: Mapping[str, PipelineHead], headers: Iterable[str]) -> None:
        """From now on, feed to these pipelines (by id), and write these client headers to disk: at start and reload."""
        self._heads = heads
        self.headers = sorted(set(headers))

    def start(self) -> None:
        """Start to feed waiting entries, and to check that no file of the journal has disappeared."""
        self.journal.start()
        self._task = spawn(self._run(), name="feed from the journal")

    def stop(self) -> None:
        """Stop feeding waiting entries."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def feed(self, entry: JournaledRequest, pipelines: Sequence[str], batch: Batch, ledgers: Sequence[Ledger]) -> None:
        """Feed an entry to its pipelines that have not settled it. Failures are reported through its claims."""
        done = entry.done
        if not done and len(ledgers) == 1:  # nearly always
            self._feed_one(JournalClaim(entry, 0, ledgers[0]), pipelines[0], batch)
            return
        claims = [
            JournalClaim(entry, place, ledger)
            for place, ledger in enumerate(ledgers)
            if not done or (place, "") not in done
        ]
        for claim in claims:
            self._feed_one(claim, pipelines[claim.pipeline], batch)
        if not claims:
            self.journal.closed(entry)

    def ledgers_of(self, pipelines: Sequence[str], receiver: str, tenant: str) -> tuple[Ledger, ...]:
        """Return the ledgers of a receiver and tenant, one for each pipeline."""
        return tuple([self.ledgers.get(name, receiver, tenant) for name in pipelines])

    def _feed_one(self, claim: JournalClaim, pipeline: str, batch: Batch) -> None:
        receipt = claim.receipt
        head = self._heads.get(pipeline)
        if head is None:
            self._log.error("items dropped", reason="pipeline_removed", pipeline=pipeline, items=batch.items)
            receipt.settle(Outcome.DROPPED, batch.items, "pipeline_removed")
            return
        try:
            head.first.consume(batch.with_body(batch.body, shares=((receipt, batch.items),)))
        except RetryableError:
            claim.refuse()
        except ConsumeError as error:
            self._log.error(
                "items dropped", reason=error.reason, pipeline=pipeline, items=batch.items, error=str(error)
            )
            receipt.settle(Outcome.DROPPED, batch.items, error.reason)
        except Exception as error:  # noqa: BLE001 - a bug ends this request, not the agent
            head.bugs.report(error, time.monotonic)
            self._log.error("items dropped", reason="internal_error", pipeline=pipeline, items=batch.items)
            receipt.settle(Outcome.DROPPED, receipt.pending - receipt.parked, "internal_error")

    async def _run(self) -> None:
        """Feed waiting entries whenever there may be capacity."""
        while True:
            if self.journal.waiting and await self._feed_what_waits():
                continue
            self._wake.clear()  # a refusal just now has set it
            try:
                async with asyncio.timeout(PAUSE if self.journal.waiting else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _feed_what_waits(self) -> int:
        """Go through the waiting entries once and feed those with capacity; return the number of accepted ones.

        Every `TURN` seconds other tasks run.
        """
        end = time.perf_counter() + TURN
        fed = 0
        full: set[tuple[tuple[str, ...], str, Done]] = set()

        def ready(context: RequestContext, done: Done) -> bool:
            tenant = context.origin.tenant
            return (context.pipelines, tenant, done) not in full and self._has_capacity(context.pipelines, tenant, done)

        for replay in self.journal.replays(ready):
            if replay is not None:
                entry, record, context = replay
                done = entry.done
                batch = Batch(record.signal, record.body(), record.items, context.origin, (), context.encodings)
                ledgers = self.ledgers_of(context.pipelines, context.origin.receiver, context.origin.tenant)
                self.feed(entry, context.pipelines, batch, ledgers)
                if entry.parked and not entry.open and entry.done == done:
                    full.add((context.pipelines, context.origin.tenant, done))
                else:
                    fed += 1
            if time.perf_counter() > end:
                await asyncio.sleep(0)
                end = time.perf_counter() + TURN
        return fed

    def _has_capacity(self, pipelines: Sequence[str], tenant: str, done: Done) -> bool:
        """Return whether an exporter that has not settled a tenant's entry has capacity for it."""
        for place, name in enumerate(pipelines):
            if (place, "") in done:
                continue
            head = self._heads.get(name)
            if head is None:
                return True
            fills = head.fills(tenant)
            left = [fill for branch, fill in fills.items() if (place, branch) not in done]
            # If none is left, the branch that has not settled the entry is gone, and the others get it again.
            if any(fill(tenant) < MAX_FILL for fill in left or fills.values()):
                return True
        return False


class JournaledEntry(ReceiverEntry):
    """Accepts a receiver's batches of one signal and writes them to the journal."""

    def __init__(  # noqa: PLR0913 - what its parent takes, and the journal
        self,
        heads: Sequence[PipelineHead],
        receiver: str,
        signal: Signal,
        registry: Registry,
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        acknowledge: str = "accepted",
        intake: Intake,
    ) -> None:
        """Write to the intake's journal, to feed `heads`."""
        super().__init__(
            heads,
            receiver,
            signal,
            registry,
            clock=clock,
            log=log,
            acknowledge=acknowledge,
            admit=intake.journal.admit,  # pipelines need no capacity: the journal has it
        )
        self.pipelines = tuple(head.pipeline for head in heads)
        self.intake = intake
        self._senders: dict[Origin, tuple[Key, tuple[Ledger, ...]]] = {}

    def consume(
        self, batch: Batch, answer: object = None, rejected: Callable[[int, str], object] | None = None
    ) -> asyncio.Future[object]:
        """Queue the batch for writing; the future gets `answer` when it is on disk, or the error if it cannot be."""
        if self.permit is not None:
            self.check_plan(self.permit, batch)
        allowance = batch.origin.allowance
        if allowance is not None:
            self.charge(allowance, batch)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        try:
            self.intake.journal.append(_Request(self, batch, future, answer, rejected))
        except ConsumeError as error:
            if allowance is not None:
                allowance.refund(batch.items, len(batch.body))
            raise self.count_refused(batch, error) from error.__cause__
        return future

    @property
    def answers_late(self) -> bool:
        """Always true: a request is answered when it is on disk."""
        return True

    def sender(self, origin: Origin) -> tuple[Key, tuple[Ledger, ...]]:
        """Return what the journal stores about an origin, and its ledgers."""
        found = self._senders.get(origin)
        if found is None:
            headers = origin.headers
            read = tuple([(name, headers[name]) for name in self.intake.headers if name in headers])
            key = (self.receiver, origin.transport, origin.tenant, read, self.pipelines)
            found = key, self.intake.ledgers_of(self.pipelines, self.receiver, origin.tenant)
            if len(self._senders) >= REMEMBERED_SENDERS:
                self._senders.clear()
            self._senders[origin] = found
        return found


class _Request(Answer):
    """A request on its way into the journal (`commit_builder.PendingRequest`), and the answer that waits for it."""

    __slots__ = ("_entry", "_sender", "batch", "key", "ledgers")

    def __init__(
        self,
        entry: JournaledEntry,
        batch: Batch,
        future: asyncio.Future[object],
        answer: object,
        rejected: Callable[[int, str], object] | None,
    ) -> None:
        super().__init__(future, answer, rejected)
        self._entry = entry
        self.batch = batch
        sender, self.ledgers = entry.sender(batch.origin)
        self.key: tuple[object, ...] = (sender, batch.encodings) if batch.encodings else sender
        self._sender = sender

    @property
    def pipelines(self) -> tuple[str, ...]:
        return self._entry.pipelines

    def origin(self) -> Origin:
        receiver, transport, tenant, headers, _ = self._sender
        return Origin(receiver, transport, tenant, dict(headers))

    def written(self, entry: JournaledRequest) -> None:
        route, batch = self._entry, self.batch
        route.count_accepted(batch)
        if batch.message is not None:
            route.intake.journal.messages.accept(batch.message)
        if route.waits:
            self.expect()
            entry.on_closed = self.entry_closed
        else:
            self.give()
        route.intake.feed(entry, route.pipelines, batch, self.ledgers)

    def refused(self, error: ConsumeError) -> None:
        allowance = self.batch.origin.allowance
        if allowance is not None:
            allowance.refund(self.batch.items, len(self.batch.body))
        self.fail(self._entry.count_refused(self.batch, error))
