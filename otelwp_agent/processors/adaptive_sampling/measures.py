"""What the processor counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.processors.adaptive_sampling.verdict import Verdict
    from otelwp_agent.telemetry.metrics import Counter

_LABELS = ("processor", "pipeline")
SPANS = Instrument(
    "otelwp_processor_adaptive_sampling_spans",
    "Spans that were kept or dropped, and why.",
    labels=(*_LABELS, "decision", "reason"),
)
TRACES = Instrument(
    "otelwp_processor_adaptive_sampling_traces",
    "Traces that were kept or dropped, and why.",
    labels=(*_LABELS, "decision", "reason"),
)
LATE = Instrument(
    "otelwp_processor_adaptive_sampling_late_spans",
    "Spans that came after their trace was decided about, and followed that.",
    labels=(*_LABELS, "decision"),
)
EARLY = Instrument(
    "otelwp_processor_adaptive_sampling_early_decisions",
    "Traces decided about before their time: for want of memory, because one was too large, or at a stop.",
    labels=(*_LABELS, "cause"),
)
ODD = Instrument(
    "otelwp_processor_adaptive_sampling_odd_traces",
    "Traces with something wrong: no root, clock skew, a span id twice, a trace id that is none, a bad trace state.",
    labels=(*_LABELS, "kind"),
)
CUT = Instrument(
    "otelwp_processor_adaptive_sampling_cut_spans",
    "Spans left out of traces that were too large, of which roots, errors and the way to those stayed.",
    labels=_LABELS,
)
RESCUED_SPANS = Instrument(
    "otelwp_processor_adaptive_sampling_rescued_spans",
    "Dropped spans that the flight recorder brought back.",
    labels=_LABELS,
)
RECORDED = Instrument(
    "otelwp_processor_adaptive_sampling_recorded_bytes",
    "Memory of the flight recorder.",
    InstrumentKind.GAUGE,
    _LABELS,
)
KEYS = Instrument(
    "otelwp_processor_adaptive_sampling_keys",
    "Keys that are told apart.",
    InstrumentKind.GAUGE,
    _LABELS,
)
WAITING_TRACES = Instrument(
    "otelwp_processor_adaptive_sampling_waiting_traces",
    "Traces that wait to be decided about.",
    InstrumentKind.GAUGE,
    _LABELS,
)
WAITING_BYTES = Instrument(
    "otelwp_processor_adaptive_sampling_waiting_bytes",
    "Memory of those, and of what the next stage has not taken yet.",
    InstrumentKind.GAUGE,
    _LABELS,
)
INSTRUMENTS = (SPANS, TRACES, LATE, EARLY, ODD, CUT, RESCUED_SPANS, RECORDED, KEYS, WAITING_TRACES, WAITING_BYTES)


class Measures:
    """The instruments of one processor, bound."""

    def __init__(self, context: Context) -> None:
        """Bind those that are always there."""
        self._registry = context.registry
        self._processor, self._pipeline = str(context.id), context.pipeline
        self._late = [self._counter(LATE, decision=told) for told in ("dropped", "kept")]
        self.cut = self._counter(CUT)
        self.rescued = self._counter(RESCUED_SPANS)

    def gauge(self, instrument: Instrument, read: Callable[[], float]) -> None:
        """Have a gauge read when somebody asks."""
        self._registry.gauge(instrument, read, processor=self._processor, pipeline=self._pipeline)

    def decided(self, told: Verdict, traces: int, spans: int) -> None:
        """Count what was decided about."""
        counters = told.counters or self._counters_of(told)
        counters[0].value += traces
        counters[1].value += spans

    def _counters_of(self, told: Verdict) -> tuple[Counter, Counter]:
        labels = {"decision": "kept" if told.keep else "dropped", "reason": told.reason}
        counters = told.counters = self._counter(TRACES, **labels), self._counter(SPANS, **labels)
        return counters

    def late(self, told: Verdict, spans: int) -> None:
        """Count spans that follow what was decided before."""
        self._late[told.keep].value += spans
        self.decided(told, 0, spans)

    def early(self, cause: str) -> None:
        """Count a trace that was decided about before its time."""
        self._counter(EARLY, cause=cause).add()

    def odd(self, kind: str) -> None:
        """Count a trace with something wrong."""
        self._counter(ODD, kind=kind).add()

    def _counter(self, instrument: Instrument, **labels: str) -> Counter:
        own = {"processor": self._processor, "pipeline": self._pipeline}
        return self._registry.counter(instrument, None, **own, **labels)
