"""Where batches enter: from a receiver or a connector into every pipeline that it feeds.

`PipelineHead` keeps a pipeline's ledger; `ReceiverEntry` counts what a receiver's requests came to, and asks before a
body is decoded whether there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, Overloaded
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.fan_out import consume_forks
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import Consumer
    from otelwp_agent.model.batch import Batch
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


class PipelineHead:
    """The beginning of one pipeline, and its ledger. `first` and `admits` change at a reload; the ledger stays."""

    def __init__(self, pipeline: str) -> None:
        """Begin the pipeline with this id; wire it before the first batch."""
        self.pipeline = pipeline
        self.ledger = Ledger()
        self.first: Consumer
        self.admits: Sequence[Callable[[], None]] = ()

    def consume(self, batch: Batch) -> None:
        """Enter the batch into the ledger and hand it to the first stage."""
        ledger = self.ledger
        for receipt, _ in batch.shares:
            receipt.ledger = ledger
        ledger.accepted += batch.items
        try:
            self.first.consume(batch)
        except BaseException:
            ledger.accepted -= batch.items
            for receipt, _ in batch.shares:
                receipt.ledger = None
            raise

    def admit(self) -> None:
        """Raise `Overloaded` if a stage that can tell early would refuse."""
        for admit in self.admits:
            admit()


class ReceiverEntry:
    """What a receiver hands its batches of one signal to."""

    def __init__(self, heads: Sequence[PipelineHead], receiver: str, signal: Signal, registry: Registry) -> None:
        """Feed `heads`, and count for `receiver`."""
        self._heads = heads
        self._only = heads[0] if len(heads) == 1 else None
        if self._only is not None:
            self.admit = self._only.admit  # type: ignore[method-assign]  # one call less for each request
        self._receiver = receiver
        self._signal = signal
        self._registry = registry
        self._counters: dict[str, tuple[Counter, Counter]] = {}

    def admit(self) -> None:
        """Raise `Overloaded` if every pipeline would refuse a batch now."""
        refusal: Overloaded | None = None
        for head in self._heads:
            try:
                head.admit()
            except Overloaded as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal

    def consume(self, batch: Batch) -> None:
        """Take the batch into every pipeline, or raise having taken nothing."""
        transport = batch.origin.transport
        counters = self._counters.get(transport) or self._bind(transport)
        try:
            if self._only is not None:
                self._only.consume(batch)
            else:
                consume_forks(self._heads, batch)
        except ConsumeError as error:
            counters[1].value += batch.items
            error.items = batch.items
            if error.given_up is not None:
                error.given_up(batch.items)
            raise
        counters[0].value += batch.items

    def _bind(self, transport: str) -> tuple[Counter, Counter]:
        accepted, refused = (
            self._registry.counter(instruments[self._signal], receiver=self._receiver, transport=transport)
            for instruments in (ACCEPTED, REFUSED)
        )
        counters = self._counters[transport] = (accepted, refused)
        return counters


class ConnectorEntry:
    """What a connector hands its batches of one signal to.

    The batch arrives with the account of the pipeline that it leaves; it goes on with forks, so that each pipeline's
    ledger keeps its own sums.
    """

    def __init__(self, heads: Sequence[PipelineHead]) -> None:
        """Feed `heads`."""
        self._heads = heads

    def admit(self) -> None:
        """Have no opinion: what comes through a connector has been admitted already."""

    def consume(self, batch: Batch) -> None:
        """Take the batch into every pipeline, or raise having taken nothing."""
        consume_forks(self._heads, batch)
