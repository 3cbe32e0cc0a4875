"""The instruments of the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.processors.adaptive_sampling.verdict import TraceVerdict
    from otelwp_agent.telemetry.metrics import Counter

_LABELS = ("processor", "pipeline")
SPANS = Instrument(
    "otelwp_processor_adaptive_sampling_spans",
    "Spans kept or dropped, by reason.",
    labels=(*_LABELS, "decision", "reason"),
)
TRACES = Instrument(
    "otelwp_processor_adaptive_sampling_traces",
    "Traces kept or dropped, by reason.",
    labels=(*_LABELS, "decision", "reason"),
)
LATE = Instrument(
    "otelwp_processor_adaptive_sampling_late_spans",
    "Spans that arrived after the decision about their trace, and followed it.",
    labels=(*_LABELS, "decision"),
)
EARLY = Instrument(
    "otelwp_processor_adaptive_sampling_early_decisions",
    "Traces decided before they were due: memory was full (`memory`), the tenant's share of it was (`tenant_memory`), "
    "the trace was too large (`size`), or the agent stopped (`shutdown`).",
    labels=(*_LABELS, "cause"),
)
ODD = Instrument(
    "otelwp_processor_adaptive_sampling_odd_traces",
    "Traces with a problem: no root, clock skew, duplicate span id, invalid trace id or invalid trace state.",
    labels=(*_LABELS, "kind"),
)
CUT = Instrument(
    "otelwp_processor_adaptive_sampling_cut_spans",
    "Spans dropped from traces that were too large; roots, errors and the spans between them were kept.",
    labels=_LABELS,
)
RESCUED_SPANS = Instrument(
    "otelwp_processor_adaptive_sampling_rescued_spans",
    "Dropped spans that the flight recorder recovered.",
    labels=_LABELS,
)
RECORDED = Instrument(
    "otelwp_processor_adaptive_sampling_recorded_bytes",
    "Memory used by the flight recorder.",
    InstrumentKind.GAUGE,
    _LABELS,
)
KEYS = Instrument(
    "otelwp_processor_adaptive_sampling_keys",
    "Keys with a probability of their own.",
    InstrumentKind.GAUGE,
    _LABELS,
)
WAITING_TRACES = Instrument(
    "otelwp_processor_adaptive_sampling_waiting_traces",
    "Traces that wait for a decision.",
    InstrumentKind.GAUGE,
    _LABELS,
)
WAITING_BYTES = Instrument(
    "otelwp_processor_adaptive_sampling_waiting_bytes",
    "Memory of waiting traces, and of batches that the next stage has not accepted yet.",
    InstrumentKind.GAUGE,
    _LABELS,
)
INSTRUMENTS = (SPANS, TRACES, LATE, EARLY, ODD, CUT, RESCUED_SPANS, RECORDED, KEYS, WAITING_TRACES, WAITING_BYTES)


class Measures:
    """The bound instruments of one processor."""

    def __init__(self, context: Context) -> None:
        """Bind the instruments that always exist."""
        self._registry = context.registry
        self._processor, self._pipeline = str(context.id), context.pipeline
        self._late = [self._counter(LATE, decision=verdict) for verdict in ("dropped", "kept")]
        self.cut = self._counter(CUT)
        self.rescued = self._counter(RESCUED_SPANS)

    def gauge(self, instrument: Instrument, read: Callable[[], float]) -> None:
        """Register a gauge whose value is `read()`."""
        self._registry.gauge(instrument, read, processor=self._processor, pipeline=self._pipeline)

    def decided(self, verdict: TraceVerdict, traces: int, spans: int) -> None:
        """Count decided traces and spans."""
        counters = verdict.counters or self._counters_of(verdict)
        counters[0].value += traces
        counters[1].value += spans

    def _counters_of(self, verdict: TraceVerdict) -> tuple[Counter, Counter]:
        labels = {"decision": "kept" if verdict.keep else "dropped", "reason": verdict.reason}
        counters = verdict.counters = self._counter(TRACES, **labels), self._counter(SPANS, **labels)
        return counters

    def late(self, verdict: TraceVerdict, spans: int) -> None:
        """Count spans that follow an earlier decision."""
        self._late[verdict.keep].value += spans
        self.decided(verdict, 0, spans)

    def early(self, cause: str) -> None:
        """Count a trace that was decided before it was due."""
        self._counter(EARLY, cause=cause).add()

    def odd(self, kind: str) -> None:
        """Count a trace with a problem of this kind."""
        self._counter(ODD, kind=kind).add()

    def _counter(self, instrument: Instrument, **labels: str) -> Counter:
        own = {"processor": self._processor, "pipeline": self._pipeline}
        return self._registry.counter(instrument, None, **own, **labels)
