"""Estimates for the heaviest keys as metrics with confidence intervals. They are computed when metrics are read."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from otelwp_agent.sampling.adaptive import reporting
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.sampling.adaptive.controller import Controller
    from otelwp_agent.sampling.adaptive.estimates import Estimate
    from otelwp_agent.sampling.adaptive.reporting import KeyReport
    from otelwp_agent.sampling.adaptive.trace import Key

_LABELS = ("processor", "pipeline", "key", "bound")
RATE = Instrument(
    "otelwp_processor_adaptive_sampling_key_traces_per_second",
    "Estimated traces per second of a key, kept or not, with the bounds of the 95 % interval.",
    InstrumentKind.GAUGE,
    _LABELS,
)
ERRORS = Instrument(
    "otelwp_processor_adaptive_sampling_key_error_ratio",
    "Estimated part of a key's traces with errors, with the bounds of the 95 % interval.",
    InstrumentKind.GAUGE,
    _LABELS,
)
DURATION = Instrument(
    "otelwp_processor_adaptive_sampling_key_duration_seconds",
    "Estimated percentiles of the durations of a key's traces, with the bounds of the 95 % intervals.",
    InstrumentKind.GAUGE,
    (*_LABELS, "quantile"),
)
PROBABILITY = Instrument(
    "otelwp_processor_adaptive_sampling_key_probability",
    "Sampling probability of a key's traces.",
    InstrumentKind.GAUGE,
    ("processor", "pipeline", "key"),
)
KEY_INSTRUMENTS = (RATE, ERRORS, DURATION, PROBABILITY)

CHOOSE_EVERY = 10.0
"""Seconds between updates of the set of heaviest keys."""
_FRESH = 1.0
"""Seconds for which a report is reused: a scrape reads it many times."""
_BOUNDS = ("estimate", "low", "high")
_PERCENTILES = {"0.5": 50.0, "0.95": 95.0, "0.99": 99.0}


class KeyMetrics:
    """Gauges of at most `most` keys."""

    def __init__(self, context: Context, controller: Controller, most: int) -> None:
        """Start without keys."""
        self._context = context
        self._controller = controller
        self._most = most
        self._own = {"processor": str(context.id), "pipeline": context.pipeline}
        self._shown: set[Key] = set()
        self._reports: dict[Key, tuple[float, KeyReport]] = {}
        self.due = 0.0
        """Time of the next update."""

    def choose(self, now: float) -> None:
        """Bind gauges for the heaviest keys and remove all others."""
        heaviest = heapq.nlargest(self._most, self._controller.keys(), key=lambda entry: entry[1].traffic)
        # As long as there are no keys, the first one is shown immediately.
        self.due = now + CHOOSE_EVERY if heaviest or not self._most else now
        wanted = {key for key, _ in heaviest}
        self._forget(self._shown - wanted)
        # Bind all of them: a processor that this one replaces removes its gauges when it has been drained.
        for key in wanted:
            self._bind(key)
        self._shown = wanted

    def close(self) -> None:
        """Remove all gauges."""
        self._forget(self._shown)
        self._shown = set()
        self.due = math.inf

    def _forget(self, keys: set[Key]) -> None:
        for key in keys:
            self._context.registry.forget(key=_text(key), **self._own)
            self._reports.pop(key, None)

    def _bind(self, key: Key) -> None:
        gauge, labels = self._context.registry.gauge, {"key": _text(key), **self._own}
        gauge(PROBABILITY, lambda: self._controller.probability(key), **labels)
        for at, bound in enumerate(_BOUNDS):
            gauge(RATE, self._reader(key, at, _rate), bound=bound, **labels)
            gauge(ERRORS, self._reader(key, at, lambda report: report.error_ratio), bound=bound, **labels)
            for quantile, percent in _PERCENTILES.items():
                read = self._reader(key, at, _percentile(percent))
                gauge(DURATION, read, bound=bound, quantile=quantile, **labels)

    def _reader(self, key: Key, at: int, part: Callable[[KeyReport], Estimate]) -> Callable[[], float]:
        return lambda: part(self._report(key))[at]

    def _report(self, key: Key) -> KeyReport:
        now = self._context.clock()
        at, report = self._reports.get(key, (-math.inf, None))
        if report is None or now - at >= _FRESH:
            report = reporting.report(self._controller, key, now, tuple(_PERCENTILES.values()))
            self._reports[key] = now, report
        return report


def _text(key: Key) -> str:
    return "|".join(key)


def _rate(report: KeyReport) -> Estimate:
    seconds = max(report.seconds, 1.0)
    return report.traces._replace(
        value=report.traces.value / seconds, low=report.traces.low / seconds, high=report.traces.high / seconds
    )


def _percentile(percent: float) -> Callable[[KeyReport], Estimate]:
    return lambda report: report.percentiles[percent]
