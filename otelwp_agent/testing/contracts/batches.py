"""How a component treats batches and their receipts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, cast

from otelwp_agent.component import Carries, Exporter, Kind, Reads
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.contract import STAGES, contract, require
from otelwp_agent.testing.subject import deliver

if TYPE_CHECKING:
    from otelwp_agent.component import Consumer
    from otelwp_agent.testing.fakes import Catcher
    from otelwp_agent.testing.subject import Subject

    class Stage(Consumer, Protocol):
        """A processor or a connector."""

        async def start(self) -> None:
            """Open what is needed."""

        async def shutdown(self) -> None:
            """Forward what is buffered, and close everything."""


_REFUSALS = (Overloaded, RetryableError, PermanentError, MalformedError)


@contract(kinds=STAGES)
async def every_item_is_settled_once(subject: Subject) -> None:
    """Settle or forward every item exactly once.

    A stage that drops items settles them; a stage that keeps them until later forwards them at `shutdown`. Settling
    an item twice raises `ValueError`.
    """
    for signal, (given, _) in (await subject.passed()).items():
        pending = sum(receipt.pending for batch in given for receipt, _ in batch.shares)
        require(not pending, f"{pending} {signal.items} are neither forwarded nor settled after shutdown")


@contract(kinds=STAGES)
async def a_batch_is_not_changed(subject: Subject) -> None:
    """Never change a batch.

    Other branches of a fan-out have the same batch. Make another one with `batch.with_body`.
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
    """Forward batches whose shares add up to their items, and whose items are those in the body.

    Shares say whose items a batch holds, in the order of the body: `Selection` and `split_batch` keep that.
    """
    for signal, (_, forwarded) in (await subject.passed()).items():
        for batch in forwarded:
            shares = sum(items for _, items in batch.shares)
            require(shares == batch.items, f"a batch of {batch.items} {signal.items} has shares of {shares}")
            held = subject.count(batch)
            require(held == batch.items, f"a batch of {batch.items} {signal.items} has {held} in its body")


@contract(kinds=STAGES)
async def refusals_keep_their_kind(subject: Subject) -> None:
    """Raise what the next stage raises, or keep the batch and lose nothing.

    The sender is answered by the kind of the error: retry later, or never. A stage that raises has kept, forwarded
    and settled nothing of the batch.
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
    """Forward a batch later that was accepted while the next stage was overloaded.

    `Overloaded` means: later. A stage that accepts a batch then must keep it until the next stage accepts it.
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

    With `accepts=Carries.ENCODED`: such a body is compressed or sealed, so it cannot be read.
    """
    if subject.factory.accepts is not Carries.ENCODED:
        return
    stage, catcher = await _started(subject)
    sealed = Batch(Signal.TRACES, b"\xff\xffsealed", 3, Origin("otlp", "http"), [(Receipt(3), 3)], ("zstd",))
    stage.consume(sealed)
    caught = [(batch.body, batch.encodings) for batch in await _drained(stage, catcher)]
    require(caught == [(sealed.body, sealed.encodings)], f"it forwarded {caught}")


@contract(kinds=STAGES)
async def malformed_bodies_break_nothing(subject: Subject) -> None:
    """Refuse bytes that are not a request with `MalformedError`, or forward them.

    Receivers check bodies, but not everything in them: `projections.parse` raises `MalformedError`. A stage that
    reads nothing (`Reads.NOTHING`) forwards them. Later batches pass in any case.
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
    """Leave receipts to the queue in front of the exporter.

    `export` reports by returning, or by what it raises.
    """
    component, _ = subject.build()
    exporter = cast("Exporter", component)
    await exporter.start()
    for signal in subject.signals():
        for batch in subject.batches(signal):
            with contextlib.suppress(PermanentError, RetryableError):
                rejected = await exporter.export(batch)
                require(rejected in {0, None}, f"`export` returned {rejected!r} for a batch that nobody rejected")
            pending = sum(receipt.pending for receipt, _ in batch.shares)
            require(pending == batch.items, f"it settled {batch.items - pending} of {batch.items} {signal.items}")
    await exporter.shutdown()


async def _started(subject: Subject) -> tuple[Stage, Catcher]:
    component, catcher = subject.build()
    await component.start()
    return cast("Stage", component), catcher


async def _drained(stage: Stage, catcher: Catcher) -> list[Batch]:
    """Stop a stage, deliver what it forwarded, and return that."""
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
    """Require that a stage which refused raised the right kind of error and settled nothing."""
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
