"""Keep the last traces in memory, so that the page of the extension `ui` shows them without another backend.

The memory is bounded: the oldest traces are removed for new ones, and a stop of the agent removes all of them. Use it
in addition to an exporter that sends the traces to a backend. With sampling in the pipeline, only kept traces are
shown. Reading the spans costs CPU: leave this exporter out where the page is not used.

Example::

    exporters:
      recent_traces:
        max_mib: 16
    extensions:
      ui:
    service:
      extensions: [ui]
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pydantic import Field

from otelwp_agent.component import Exporter, ExporterConfig, Factory, Kind, Reads, Tier
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.traces.spans import divide
from otelwp_agent.traces.store import TraceSource, TraceStore

if TYPE_CHECKING:
    from otelwp_agent.component import Context
    from otelwp_agent.model.batch import Batch

TRACES = Instrument(
    "otelwp_recent_traces", "Traces in the memory of the exporter.", InstrumentKind.GAUGE, labels=("exporter",)
)
BYTES = Instrument(
    "otelwp_recent_traces_bytes", "Memory that these traces take.", InstrumentKind.GAUGE, labels=("exporter",)
)

READ_OFF_LOOP = 64 * 1024
"""Bytes of a body from which on it is read in a thread."""
_MEBIBYTE = 2**20


class Config(ExporterConfig):
    """Settings of `recent_traces`."""

    max_mib: int = Field(16, ge=1, le=4096)
    """Memory for the traces, in MiB."""


class RecentTraces(Exporter, TraceSource):
    """Keeps the last traces."""

    def __init__(self, config: Config, context: Context) -> None:
        """Start without traces."""
        super().__init__(context)
        self.store = TraceStore(config.max_mib * _MEBIBYTE)
        context.registry.gauge(TRACES, lambda: len(self.store), exporter=str(context.id))
        context.registry.gauge(BYTES, lambda: self.store.bytes, exporter=str(context.id))

    async def export(self, batch: Batch) -> int:
        """Store the spans of a batch by trace."""
        body = batch.body
        parts = await asyncio.to_thread(divide, body) if len(body) > READ_OFF_LOOP else divide(body)
        self.store.add(parts)
        return 0


FACTORY = Factory(
    kind=Kind.EXPORTER,
    type="recent_traces",
    config=Config,
    build=RecentTraces,
    signals=frozenset({Signal.TRACES}),
    tier=Tier.FREE,
    counted=False,
    reads=Reads.FULL,
    instruments=(TRACES, BYTES),
)
"""The store is bounded, so the exporter never refuses a batch that it can read."""
