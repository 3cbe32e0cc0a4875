"""Results of a benchmark: samples, their medians, and the goals."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "otelwp-agent"
"""The agent, sending without compression."""

OURS_GZIP = "otelwp-agent, gzip"
"""The agent, sending with compression like the peer."""

PEER = "Rotel"

PEER_UNSENT = "Rotel, blackhole"
"""The peer with an exporter that neither encodes nor sends: its minimal cost, whatever the compression."""

OTELCOL = "OpenTelemetry Collector"

BASELINE = "otelwp-agent, baseline"
"""Another checkout of the agent (`--baseline`), sending without compression."""

ACCEPTED = ("200", "OK")
"""HTTP and gRPC statuses that accept a request."""

REFUSED = ("429", "503", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
"""Statuses that ask a sender to retry later."""


@dataclass
class Sample:
    """One measurement of one collector under one load."""

    collector: str
    protocol: str
    spans: int
    """Spans per request."""
    statuses: dict[str, int]
    cpu_seconds: float
    seconds: float
    sent_spans: int
    """Spans accepted by the collector, including the warm-up."""
    arrived_spans: int
    """Spans counted by the sink."""
    peak_mb: float
    sent_bytes: int
    """Bytes from the collector to the sink, over the wire."""
    p50_ms: float = 0.0
    """Median time to the answer, over HTTP."""
    p99_ms: float = 0.0
    """99th percentile of the time to the answer, over HTTP."""

    @property
    def requests(self) -> int:
        """Number of requests accepted during the measurement."""
        return sum(self.statuses.get(status, 0) for status in ACCEPTED)

    @property
    def errors(self) -> int:
        """Number of requests with another answer, or without one."""
        return sum(self.statuses.values()) - self.requests

    @property
    def cpu_us_per_request(self) -> float:
        """CPU time per request, in µs."""
        return self.cpu_seconds / max(self.requests, 1) * 1e6

    @property
    def spans_per_cpu_second(self) -> float:
        """Spans per second of CPU time."""
        return self.requests * self.spans / max(self.cpu_seconds, 1e-9)


@dataclass
class Idle:
    """One collector without load."""

    collector: str
    with_grpc: bool
    listening_seconds: float
    rss_mb: float


@dataclass
class Stalled:
    """One collector whose backend accepts requests and never answers."""

    collector: str
    protocol: str
    statuses: dict[str, int]
    seconds: float
    peak_mb: float

    @property
    def refused(self) -> int:
        """Number of requests that the sender was asked to retry later."""
        return sum(self.statuses.get(status, 0) for status in REFUSED)


@dataclass
class Goal:
    """A goal with its measured value. `met` is `None` if nothing was measured."""

    text: str
    figure: str
    met: bool | None


@dataclass
class Results:
    """All results of a benchmark."""

    machine: dict[str, str]
    samples: list[Sample] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    stalled: list[Stalled] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, collector: str, protocol: str, spans: int) -> list[Sample]:
        """Return the samples of one cell."""
        wanted = (collector, protocol, spans)
        return [sample for sample in self.samples if (sample.collector, sample.protocol, sample.spans) == wanted]

    def us(self, collector: str, protocol: str, spans: int) -> float | None:
        """Return the median CPU time per request, in µs."""
        samples = self.of(collector, protocol, spans)
        return median(sample.cpu_us_per_request for sample in samples) if samples else None

    def rate(self, collector: str, protocol: str, spans: int) -> float | None:
        """Return the median of spans per CPU-second."""
        samples = self.of(collector, protocol, spans)
        return median(sample.spans_per_cpu_second for sample in samples) if samples else None

    def ratio(self, protocol: str, spans: int, ours: str = OURS) -> float | None:
        """Return by which factor the peer needs more CPU: the median of the ratios within each round."""
        pairs = zip(self.of(ours, protocol, spans), self.of(PEER, protocol, spans), strict=False)
        ratios = [peer.cpu_us_per_request / our.cpu_us_per_request for our, peer in pairs if our.cpu_seconds]
        return median(ratios) if ratios else None

    def goals(self) -> Iterator[Goal]:
        """Yield every goal with its result."""
        for ours in (OURS, OURS_GZIP):
            for protocol, spans, limit in (
                ("http", 1, 1.0),
                ("http", 100, 8.0),
                ("http", 512, 8.0),
                ("grpc", 512, 2.5),
            ):
                what = f"{ours}: {protocol}, {spans} spans a request: spans a CPU-second over {PEER}'s"
                yield _at_least(what, self.ratio(protocol, spans, ours), limit, " x")
            rate = self.rate(ours, "http", 100)
            yield _at_least(f"{ours}: http, 100 spans a request: spans a CPU-second", rate and rate / 1e6, 1.5, " M")
        loads: list[Sample | Stalled] = [*self.samples, *self.stalled]
        peaks = [each.peak_mb for each in loads if each.collector in (OURS, OURS_GZIP)]
        yield _at_most("most memory under any of these loads", max(peaks, default=None), 80, " MB")
        yield from self._idle_goals()
        yield from self._stalled_goals()
        samples = [each for each in self.samples if each.collector in (OURS, OURS_GZIP)]
        differences = [abs(each.sent_spans - each.arrived_spans) for each in samples]
        text = "what was accepted and what arrived differ by 0 spans"
        yield Goal(text, str(sum(differences)), not any(differences) if differences else None)

    def _idle_goals(self) -> Iterator[Goal]:
        ours = [each for each in self.idle if each.collector == OURS]
        for with_grpc, limit, text in ((False, 45, "HTTP only"), (True, 60, "with gRPC")):
            memory = [each.rss_mb for each in ours if each.with_grpc is with_grpc]
            yield _at_most(f"idle memory, {text}", median(memory) if memory else None, limit, " MB")
        seconds = [each.listening_seconds for each in ours]
        yield _at_most("from exec to listening", max(seconds, default=None), 1, " s")

    def _stalled_goals(self) -> Iterator[Goal]:
        for each in self.stalled:
            if each.collector == OURS:
                text = f"stalled sink, {each.protocol}: the client is asked to come back (429, 503, RESOURCE_EXHAUSTED)"
                yield Goal(text, f"{each.refused:,} times", each.refused > 0)


def _at_least(text: str, value: float | None, limit: float, unit: str) -> Goal:
    if value is None:
        return Goal(f"{text} ≥ {limit}{unit}", "not measured", None)
    return Goal(f"{text} ≥ {limit}{unit}", f"{value:.2f}{unit}", value >= limit)


def _at_most(text: str, value: float | None, limit: float, unit: str) -> Goal:
    if value is None:
        return Goal(f"{text} ≤ {limit}{unit}", "not measured", None)
    return Goal(f"{text} ≤ {limit}{unit}", f"{value:.1f}{unit}", value <= limit)
