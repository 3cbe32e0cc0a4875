"""Forward batches from a receiver or a connector into every pipeline that it feeds.

`PipelineHead` keeps the ledgers of a pipeline. `ReceiverEntry` counts accepted and refused items, and refuses requests
before their bodies are decoded while there is no capacity.

Invariants:

* A receiver's request enters all of its pipelines, or none: it is refused while any of them has no capacity, unless
  that one is isolated (`pipeline.fan_out`).
* `admit` takes the same time whatever the number of exporters, tenants and groups: it reads flags that queues and
  buffers keep up to date.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from otelwp_agent.component_errors import Bugs
from otelwp_agent.errors import ConsumeError, Overloaded, refusal_for
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.acknowledge import Answer
from otelwp_agent.pipeline.fan_out import FanOut
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.component import Consumer
    from otelwp_agent.errors import RetryableError
    from otelwp_agent.model.batch import Batch, ItemAllowance
    from otelwp_agent.model.ledgers import Ledgers
    from otelwp_agent.pipeline.isolation import Branch
    from otelwp_agent.telemetry.metrics import Counter, Registry

ACCEPTED = {
    signal: Instrument(
        f"otelcol_receiver_accepted_{signal.items}",
        f"Number of {signal.items.replace('_', ' ')} successfully pushed into the pipeline.",
        labels=("receiver", "transport"),
    )
    for signal in Signal
}
REFUSED = {
    signal: Instrument(
        f"otelcol_receiver_refused_{signal.items}",
        f"Number of {signal.items.replace('_', ' ')} that could not be pushed into the pipeline.",
        labels=("receiver", "transport"),
    )
    for signal in Signal
}
INSTRUMENTS = (*ACCEPTED.values(), *REFUSED.values())

CONNECTOR_PATIENCE, RECEIVER_PATIENCE = 1.05, 1.1
"""Multiples of `isolate_after` for pipelines as branches: the fan-out nearest to the exporter isolates first."""


class PipelineHead:
    """The first stage of one pipeline, with its ledgers. A reload replaces the stages after it; the ledgers stay."""

    def __init__(self, pipeline: str, ledgers: Ledgers) -> None:
        """Create the head of the pipeline with this id; `Wiring` connects it before the first batch."""
        self.pipeline = pipeline
        self.ledgers = ledgers.of_pipeline(pipeline)
        """By receiver and tenant."""
        self.first: Consumer
        self.admits: Sequence[Callable[[], None]] = ()
        self.fills: Mapping[str, Callable[[str], float]] = {}
        """Functions that return the used share (0 to 1) of an exporter's queue for a tenant, by exporter."""
        self._all = ledgers
        self.bugs = Bugs(lambda: logging.get(pipeline=pipeline))

    @property
    def total(self) -> Ledger:
        """The sums of all its ledgers."""
        total = Ledger((self.pipeline, "", ""))
        for ledger in self.ledgers.values():
            total.accepted += ledger.accepted
            for outcome, items in enumerate(ledger.settled):
                total.settled[outcome] += items
            for reason, items in ledger.dropped_reasons.items():
                total.dropped_reasons[reason] = total.dropped_reasons.get(reason, 0) + items
        return total

    def enter(self, batch: Batch) -> Ledger:
        """Add the batch to the ledger of its receiver and tenant; return the ledger."""
        origin = batch.origin
        ledger = self.ledgers.get((origin.receiver, origin.tenant))
        if ledger is None:
            ledger = self._all.get(self.pipeline, origin.receiver, origin.tenant)
        for receipt, _ in batch.shares:
            receipt.ledger = ledger
        ledger.accepted += batch.items
        return ledger

    def consume(self, batch: Batch) -> None:
        """Add the batch to the ledger of its receiver and tenant, and forward it to the first stage."""
        ledger = self.enter(batch)
        try:
            self.first.consume(batch)
        except BaseException as error:
            ledger.accepted -= batch.items
            for receipt, _ in batch.shares:
                receipt.ledger = None
            if isinstance(error, Exception) and not isinstance(error, ConsumeError):
                raise self.bugs.report(error, time.monotonic) from error
            raise

    def admit(self) -> None:
        """Raise `Overloaded` if a stage that can report it early would refuse any batch."""
        try:
            for admit in self.admits:
                admit()
        except ConsumeError:
            raise
        except Exception as error:
            raise self.bugs.report(error, time.monotonic) from error

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        return self.first.refusal(batch)


class Pipelines(FanOut):
    """Several pipelines that get the same batches."""

    def __init__(
        self,
        heads: Sequence[PipelineHead],
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        patience: float,
    ) -> None:
        """Feed `heads`."""
        super().__init__(heads, [head.pipeline for head in heads], clock=clock, log=log, patience=patience)
        self._heads = [*zip(self._branches, heads, strict=True)]

    def admit(self) -> None:
        """Raise `Overloaded` if a pipeline that is not isolated would refuse a batch now."""
        for branch, head in self._heads:
            try:
                head.admit()
            except Overloaded as refusal:
                if self._isolation.blocks(branch, refusal):
                    raise

    def _lose(self, branch: Branch, fork: Batch, error: ConsumeError) -> None:
        """Park or drop what a pipeline has not accepted, in the ledger of that pipeline."""
        cast("PipelineHead", branch.consumer).enter(fork)
        super()._lose(branch, fork, error)


class ReceiverEntry:
    """Accepts a receiver's batches of one signal for all pipelines of the receiver."""

    admit: Callable[[], None]
    """Raises `Overloaded` if a batch would be refused now. It is an attribute, not a method, because it is called for
    each request: a method would add a call to that of the pipelines or the journal."""

    def __init__(  # noqa: PLR0913 - what it feeds, what it counts, and what the isolation of branches needs
        self,
        heads: Sequence[PipelineHead],
        receiver: str,
        signal: Signal,
        registry: Registry,
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        acknowledge: str = "accepted",
        admit: Callable[[], None] | None = None,
    ) -> None:
        """Feed `heads`, and count for `receiver`; with `acknowledge: delivered`, answer with each outcome.

        `admit` raises `Overloaded` while nothing is accepted; by default, the pipelines decide.
        """
        self.receiver = receiver
        self.waits = acknowledge == "delivered"
        self.first = heads[0] if len(heads) == 1 else Pipelines(heads, clock=clock, log=log, patience=RECEIVER_PATIENCE)
        self.admit = self.first.admit if admit is None else admit
        self._signal = signal
        self._registry = registry
        self._counters: dict[str, tuple[Counter, Counter]] = {}

    @property
    def answers_late(self) -> bool:
        """Whether a sender may only be answered when its future has a result."""
        return self.waits

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        return self.first.refusal(batch)

    def close(self) -> None:
        """Stop watching the pipelines: another entry replaces this one."""
        if isinstance(self.first, Pipelines):
            self.first.close()

    def consume(
        self, batch: Batch, answer: object = None, rejected: Callable[[int, str], object] | None = None
    ) -> asyncio.Future[Any] | None:
        """Forward the batch to every pipeline, or raise with nothing accepted.

        Returns `None` if the request may be answered at once. Otherwise returns a future: its result is `answer` when
        the request may be answered, `rejected(items, why)` if a part of it was lost, or the error for the sender.
        """
        allowance = batch.origin.allowance
        if allowance is not None:
            self.charge(allowance, batch)
        future = None
        if self.waits:
            future = asyncio.get_running_loop().create_future()
            waiting = Answer(future, answer, rejected)
            for receipt, _ in batch.shares:
                receipt.on_settled = waiting.settled
        try:
            self.first.consume(batch)
        except ConsumeError as error:
            if allowance is not None:
                allowance.refund(batch.items, len(batch.body))
            raise self.count_refused(batch, error) from error.__cause__
        if future is not None and not future.done():
            waiting.expect()
        self.count_accepted(batch)
        return future

    def charge(self, allowance: ItemAllowance, batch: Batch) -> None:
        """Charge the sender's allowance for the batch, or raise `Overloaded`, count the refusal and charge nothing."""
        try:
            allowance.charge(batch.items, len(batch.body))
        except ConsumeError as error:
            self.count_refused(batch, error)
            raise

    def count_accepted(self, batch: Batch) -> None:
        """Count the items of an accepted batch."""
        transport = batch.origin.transport
        counters = self._counters.get(transport) or self._bind(transport)
        counters[0].value += batch.items

    def count_refused(self, batch: Batch, error: ConsumeError) -> ConsumeError:
        """Count the items of a refused batch, and note them in the error; return the error for its sender."""
        transport = batch.origin.transport
        counters = self._counters.get(transport) or self._bind(transport)
        counters[1].value += batch.items
        error.items = batch.items
        return refusal_for(batch.origin.tenant, error)

    def _bind(self, transport: str) -> tuple[Counter, Counter]:
        accepted, refused = (
            self._registry.counter(instruments[self._signal], receiver=self.receiver, transport=transport)
            for instruments in (ACCEPTED, REFUSED)
        )
        counters = self._counters[transport] = (accepted, refused)
        return counters


class ConnectorEntry(Pipelines):
    """Accepts a connector's batches of one signal for all pipelines that the connector feeds. It gives no answers.

    The receipts of the batch belong to the ledger of the pipeline that it leaves; the next pipelines get forks of them,
    so that each pipeline's ledger keeps its own sums.
    """

    answers_late = False

    def __init__(
        self,
        heads: Sequence[PipelineHead],
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Feed `heads`."""
        super().__init__(heads, clock=clock, log=log, patience=CONNECTOR_PATIENCE)

    def consume(
        self, batch: Batch, answer: object = None, rejected: Callable[[int, str], object] | None = None
    ) -> None:
        """Forward the batch to every pipeline, or raise with nothing accepted."""
        del answer, rejected
        super().consume(batch)

    def transfer(self, batch: Batch) -> None:
        """Accept a batch that another pipeline has accepted and gives up, with its receipts; or raise, unchanged.

        With one pipeline, the receipts change to its ledger, so that a batch may be transferred any number of times. A
        receipt of which other items are elsewhere stays in its ledger, and the batch gets a part of it.
        """
        shares = [(receipt.part(items), items) for receipt, items in batch.shares]
        moved = batch.with_body(batch.body, shares=shares)
        moved.admitted = False
        if len(self._heads) > 1:
            self.consume(moved)
            return
        left = [(receipt, receipt.ledger, items) for receipt, items in shares if receipt.ledger is not None]
        try:
            self._heads[0][1].consume(moved)
        except BaseException:
            for receipt, ledger, _ in left:
                receipt.ledger = ledger
            raise
        for _, ledger, items in left:
            ledger.accepted -= items
