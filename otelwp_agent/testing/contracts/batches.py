"""Contracts about batches and their receipts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, cast

from otelwp_agent.component import BackendGroup, Carries, Exporter, Kind, Reads
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.contract import contract
from otelwp_agent.testing.requirement import STAGES, require
from otelwp_agent.testing.subject import deliver

if TYPE_CHECKING:
    from otelwp_agent.component import Consumer
    from otelwp_agent.testing.fakes import Catcher
    from otelwp_agent.testing.subject import Subject

    class Stage(Consumer, Protocol):
        """A processor or a connector."""

        async def start(self) -> None:
            """Open files, sockets and tasks."""

        async def shutdown(self) -> None:
            """Forward buffered batches and close everything."""


_REFUSALS = (Overloaded, RetryableError, PermanentError, MalformedError)


@contract(kinds=STAGES)
async def every_item_is_settled_once(subject: Subject) -> None:
    """Settle or forward every item exactly once.

    A stage that drops items settles them. A stage that buffers items forwards them in `shutdown` at the latest.
    Settling an item twice raises `ValueError`.
    """
    for signal, (given, _) in (await subject.passed()).items():
        pending = sum(receipt.pending for batch in given for receipt, _ in batch.shares)
        require(not pending, f"{pending} {signal.items} are neither forwarded nor settled after shutdown")


@contract(kinds=STAGES)
async def a_batch_is_not_changed(subject: Subject) -> None:
    """Never change a batch.

    Other branches of a fan-out have the same batch. Create a new one with `batch.with_body`.
    """
    stage, catcher = await _started(subject)
    for signal in subject.signals():
        for batch in subject.batches(signal):
            before = batch.body, list(batch.shares), batch.items, batch.origin, batch.encodings
            stage.consume(batch)
            after = batch.body, list(batch.shares), batch.items, batch.origin, batch.encodings
            require(before == after, f"`consume` changed a batch of {signal.value}")
    await _drained(stage, catcher)


@contract(kinds=STAGES)
async def shares_add_up(subject: Subject) -> None:
    """Forward batches whose `shares` add up to `items`, and whose `items` is the number of items in the body.

    Shares assign the items of the body, in order, to the requests of the senders. `Selection` and `split_batch` keep
    them correct.
    """
    for signal, (_, forwarded) in (await subject.passed()).items():
        for batch in forwarded:
            shares = sum(items for _, items in batch.shares)
            require(shares == batch.items, f"a batch of {batch.items} {signal.items} has shares of {shares}")
            held = subject.count(batch)
            require(held == batch.items, f"a batch of {batch.items} {signal.items} has {held} in its body")


@contract(kinds=STAGES)
async def refusals_keep_their_kind(subject: Subject) -> None:
    """Raise the error of the next stage unchanged, or keep the batch and lose nothing.

    The kind of the error decides the answer to the sender: retry later, or never. A stage that raises has kept,
    forwarded and settled nothing of the batch.
    """
    for refusal in _REFUSALS:
        stage, catcher = await _started(subject)
        receipts = []
        for signal in subject.signals():
            batch = subject.batches(signal)[-1]
            receipts += [receipt for receipt, _ in batch.shares]
            forwarded = len(catcher.batches)
            catcher.error = refusal("the next stage refuses")
            raised = _refusal_of(stage, batch)
            catcher.error = None
            if raised is not None:
                _require_untouched(raised, refusal, batch)
                require(len(catcher.batches) == forwarded, f"it raised {refusal.__name__} and forwarded a part")
                stage.consume(batch)  # the same batch is accepted when the next stage has capacity
        await _drained(stage, catcher)
        pending = sum(receipt.pending for receipt in receipts)
        require(not pending, f"{pending} items are lost after the next stage raised {refusal.__name__}")


@contract(kinds=STAGES)
async def accepted_batches_outlive_an_overload(subject: Subject) -> None:
    """Keep a batch that was accepted while the next stage was overloaded, and forward it later.

    `Overloaded` asks to retry later. A stage that accepts a batch meanwhile keeps it until the next stage accepts it.
    """
    stage, catcher = await _started(subject)
    kept: list[Batch] = []
    for signal in subject.signals():
        batch = subject.batches(signal)[-1]
        catcher.error = Overloaded("full")
        with contextlib.suppress(Overloaded):
            stage.consume(batch)
            kept.append(batch)
    catcher.error = None
    await _drained(stage, catcher)
    for receipt in [receipt for batch in kept for receipt, _ in batch.shares]:
        require(not receipt.pending, f"{receipt.pending} items are never forwarded")
        require(not receipt.count(Outcome.DROPPED), f"{receipt.count(Outcome.DROPPED)} items are dropped")


@contract(kinds=STAGES)
async def encoded_bodies_are_forwarded_as_they_are(subject: Subject) -> None:
    """Forward encoded bodies as they are, if the factory accepts them.

    This is for factories with `accepts=Carries.ENCODED`, if the settings of the example accept it, too. An encoded body
    is compressed or encrypted, so it cannot be read.
    """
    config = subject.factory.config.model_validate(subject.settings())
    if subject.factory.accepts is not Carries.ENCODED or config.unfit_for(Carries.ENCODED):
        return
    stage, catcher = await _started(subject)
    encoded = Batch(Signal.TRACES, b"\xff\xffencoded", 3, Origin("otlp", "http"), [(Receipt(3), 3)], ("zstd",))
    stage.consume(encoded)
    forwarded = [(batch.body, batch.encodings) for batch in await _drained(stage, catcher)]
    require(forwarded == [(encoded.body, encoded.encodings)], f"it forwarded {forwarded}")


@contract(kinds=STAGES)
async def malformed_bodies_break_nothing(subject: Subject) -> None:
    """Refuse a body that does not parse with `MalformedError`, or forward it.

    Receivers check bodies only down to the items; `projections.parse` raises `MalformedError` for the rest. A stage
    that reads nothing (`Reads.NOTHING`) forwards such a body. Later batches must pass in any case.
    """
    stage, catcher = await _started(subject)
    for signal in subject.signals():
        garbage = Batch(signal, b"\xff\xff\xff", 1, Origin("otlp", "http"), [(Receipt(1), 1)])
        try:
            stage.consume(garbage)
        except MalformedError as error:
            _require_untouched(error, MalformedError, garbage)
            reads = subject.factory.reads
            require(reads is not Reads.NOTHING, "its factory declares Reads.NOTHING, but it read the body")
        stage.consume(subject.batches(signal)[-1])
    await _drained(stage, catcher)


@contract(kinds=[Kind.EXPORTER])
async def an_exporter_never_settles(subject: Subject) -> None:
    """Do not settle receipts in an exporter.

    The queue before the exporter settles them, according to the result or the exception of `export`.
    """
    component, _ = subject.build()
    await component.start()
    exporters = [cast("Exporter", component)]
    if isinstance(component, BackendGroup):
        exporters = [backend.exporter for backend in component.backends.values()]
    for exporter in exporters:
        await _export_all(subject, exporter)
    await component.shutdown()


async def _export_all(subject: Subject, exporter: Exporter) -> None:
    for signal in subject.signals():
        for batch in subject.batches(signal):
            with contextlib.suppress(PermanentError, RetryableError):
                rejected = await exporter.export(batch)
                require(rejected in {0, None}, f"`export` returned {rejected!r} though nothing rejected the batch")
            pending = sum(receipt.pending for receipt, _ in batch.shares)
            require(pending == batch.items, f"it settled {batch.items - pending} of {batch.items} {signal.items}")


async def _started(subject: Subject) -> tuple[Stage, Catcher]:
    component, catcher = subject.build()
    await component.start()
    return cast("Stage", component), catcher


async def _drained(stage: Stage, catcher: Catcher) -> list[Batch]:
    """Stop a stage, settle its forwarded batches as delivered, and return them."""
    await stage.shutdown()
    deliver(catcher)
    return catcher.batches


def _refusal_of(stage: Stage, batch: Batch) -> ConsumeError | None:
    try:
        stage.consume(batch)
    except ConsumeError as error:
        return error
    return None


def _require_untouched(raised: ConsumeError, wanted: type[ConsumeError], batch: Batch) -> None:
    """Require that a stage that refused `batch` raised an error of type `wanted` and settled nothing."""
    name = type(raised).__name__
    require(type(raised) is wanted, f"the next stage raised {wanted.__name__}, but it raised {name}: {raised}")
    pending = sum(receipt.pending for receipt, _ in batch.shares)
    require(pending == batch.items, f"it raised {name} and settled {batch.items - pending} items")


CONTRACTS = (
    every_item_is_settled_once,
    a_batch_is_not_changed,
    shares_add_up,
    refusals_keep_their_kind,
    accepted_batches_outlive_an_overload,
    encoded_bodies_are_forwarded_as_they_are,
    malformed_bodies_break_nothing,
    an_exporter_never_settles,
)
