"""Read the hints in the answers of a managed collector, and report them: to samplers, in the log and in metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.sampling.advice import SamplingAdvice
from otelwp_agent.sampling.trace_sampler import TraceSampler
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.transport import hints as names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.component import Context

VALID_FOR = 600.0
"""Seconds for which samplers follow a hint after the last answer with it."""
REPEAT = 5.0
"""Seconds after which unchanged hints are forwarded again: a reload may have replaced the samplers."""

_LABELS = ("exporter",)
SAMPLING_RATE = Instrument(
    "otelwp_managed_sampling_rate",
    "Highest part of all traces that the managed collector wants (1: no limit).",
    InstrumentKind.GAUGE,
    _LABELS,
)
ITEMS_LEFT = Instrument(
    "otelwp_managed_items_left",
    "Items that the managed collector would accept at once, as of its last answer.",
    InstrumentKind.GAUGE,
    _LABELS,
)
INSTRUMENTS = (SAMPLING_RATE, ITEMS_LEFT)


_NO_ADVICE = SamplingAdvice()


@dataclass(frozen=True, slots=True)
class Hints:
    """The hints in one answer."""

    advice: SamplingAdvice = _NO_ADVICE
    configuration: str = ""
    remaining: float | None = None
    """Items that may be sent now."""

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Hints:
        """Read the headers of an answer, whose names are lower case. Values that are not valid are ignored."""
        rate = _number(headers, names.SAMPLING_RATE)
        per_second = _number(headers, names.TRACES_PER_SECOND)
        return cls(
            SamplingAdvice(1.0 if rate is None or rate > 1 else rate, per_second or math.inf),
            headers.get(names.CONFIGURATION.lower(), "").strip()[:64],
            _number(headers, names.REMAINING),
        )


class HintReporter:
    """Forwards the hints of one exporter's backend."""

    def __init__(self, context: Context, configuration: str) -> None:
        """Compare the collector's version of the configuration with `configuration`; "" is not compared."""
        self._context = context
        self._source = str(context.id)
        self._configuration = configuration
        self._told = ""
        """The newer version that was logged last."""
        self._last = Hints()
        self._forward_at = -math.inf
        self._left = context.registry.gauge(ITEMS_LEFT, exporter=self._source)
        self._left.set(math.inf)
        self._rate = context.registry.gauge(SAMPLING_RATE, exporter=self._source)
        self._rate.set(1.0)

    def take(self, headers: Mapping[str, str]) -> None:
        """Read the hints in the headers of an answer and forward them."""
        hints = Hints.read(headers)
        if hints.remaining is not None:
            self._left.set(hints.remaining)
        now = self._context.clock()
        if hints.advice != self._last.advice or now >= self._forward_at:
            self._forward(hints.advice, now)
        if hints.configuration and hints.configuration != self._told:
            self._told = hints.configuration
            if self._configuration and hints.configuration != self._configuration:
                self._context.log.warning(
                    "newer configuration available", installed=self._configuration, available=hints.configuration
                )
        self._last = hints

    def _forward(self, advice: SamplingAdvice, now: float) -> None:
        self._forward_at = now + REPEAT
        if not (advice.limits or self._last.advice.limits):
            return
        if advice != self._last.advice:
            self._rate.set(advice.rate)
            self._context.log.info(
                "sampling limits changed by the managed collector",
                rate=advice.rate,
                traces_per_second=None if advice.traces_per_second == math.inf else advice.traces_per_second,
            )
        for sampler in self._context.host.providers(TraceSampler):
            sampler.advise(self._source, advice, now + VALID_FOR)


def _number(headers: Mapping[str, str], name: str) -> float | None:
    """Return the number in a header, `None` if there is none that is finite and at least 0."""
    try:
        number = float(headers.get(name.lower(), ""))
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None
