"""The instruments of `batch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from otelwp_agent.component import Context
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.telemetry.metrics import Counter

SEND_SIZE = Instrument(
    "otelcol_processor_batch_batch_send_size",
    "Items in a forwarded batch",
    InstrumentKind.HISTOGRAM,
    ("processor",),
    (
        *(10, 25, 50, 75, 100, 250, 500, 750, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000),
        *(10_000, 20_000, 30_000, 50_000, 100_000),
    ),
)
SEND_SIZE_BYTES = Instrument(
    "otelcol_processor_batch_batch_send_size_bytes",
    "Bytes in a forwarded batch",
    InstrumentKind.HISTOGRAM,
    ("processor",),
    tuple(2.0**power for power in range(7, 25)),
)
SIZE_TRIGGER = Instrument(
    "otelcol_processor_batch_batch_size_trigger_send",
    "Batches forwarded because they reached the size limit",
    labels=("processor",),
)
TIMEOUT_TRIGGER = Instrument(
    "otelcol_processor_batch_timeout_trigger_send",
    "Batches forwarded because the timeout expired",
    labels=("processor",),
)
CARDINALITY = Instrument(
    "otelcol_processor_batch_metadata_cardinality",
    "Current number of groups: combinations of signal, tenant and metadata values",
    InstrumentKind.GAUGE,
    ("processor",),
)
REFUSED_BY_NEXT = Instrument(
    "otelwp_processor_batch_next_refused",
    "Batches that the next stage refused for lack of capacity; they are kept and offered again",
    labels=("processor",),
)
INSTRUMENTS = (SEND_SIZE, SEND_SIZE_BYTES, SIZE_TRIGGER, TIMEOUT_TRIGGER, CARDINALITY, REFUSED_BY_NEXT)


class BatchMeasures:
    """The instruments of one processor."""

    def __init__(self, context: Context) -> None:
        """Bind the instruments of the processor with the id in `context`."""
        name, registry = str(context.id), context.registry
        self._size = registry.histogram(SEND_SIZE, processor=name)
        self._bytes = registry.histogram(SEND_SIZE_BYTES, processor=name)
        self.size_trigger = registry.counter(SIZE_TRIGGER, processor=name)
        self.timeout_trigger = registry.counter(TIMEOUT_TRIGGER, processor=name)
        self.cardinality = registry.gauge(CARDINALITY, processor=name)
        self.refused_by_next = registry.counter(REFUSED_BY_NEXT, processor=name)

    def sent(self, part: Batch, trigger: Counter) -> None:
        """Count a forwarded batch; `trigger` is the counter of the reason."""
        trigger.add()
        self._size.observe(part.items)
        self._bytes.observe(len(part.body))
