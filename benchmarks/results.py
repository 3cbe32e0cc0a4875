"""What a benchmark found: samples, their medians, and the goals beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "otelwp-agent"
"""Our agent, sending without compression."""

OURS_GZIP = "otelwp-agent, gzip"
"""Our agent, compressing what it sends, as the peer does."""

PEER = "Rotel"

PEER_UNSENT = "Rotel, blackhole"
"""The peer with its exporter that neither encodes nor sends: what it costs at least, whatever it compresses."""

OTELCOL = "OpenTelemetry Collector"

BASELINE = "otelwp-agent, baseline"
"""Another checkout of our agent (`--baseline`), sending without compression."""

ACCEPTED = ("200", "OK")
"""The statuses, HTTP and gRPC, that accept a request."""

REFUSED = ("429", "503", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
"""The statuses that ask a sender to come back later."""


@dataclass
class Sample:
    """One collector under one load, once."""

    collector: str
    protocol: str
    spans: int
    """Spans a request."""
    statuses: dict[str, int]
    cpu_seconds: float
    seconds: float
    sent_spans: int
    """Accepted by the collector, warm-up included."""
    arrived_spans: int
    """Counted by the sink."""
    peak_mb: float
    sent_bytes: int
    """From the collector to the sink, over the wire."""
    p50_ms: float = 0.0
    """Time to the answer, over HTTP: the median."""
    p99_ms: float = 0.0
    """The same: 99 of 100 were faster."""

    @property
    def requests(self) -> int:
        """Requests accepted while the clock ran."""
        return sum(self.statuses.get(status, 0) for status in ACCEPTED)

    @property
    def errors(self) -> int:
        """Requests answered otherwise, or not at all."""
        return sum(self.statuses.values()) - self.requests

    @property
    def cpu_us_per_request(self) -> float:
        """CPU time a request, in µs."""
        return self.cpu_seconds / max(self.requests, 1) * 1e6

    @property
    def spans_per_cpu_second(self) -> float:
        """Spans that a second of CPU time carries."""
        return self.requests * self.spans / max(self.cpu_seconds, 1e-9)


@dataclass
class Idle:
    """One collector that was started and left alone."""

    collector: str
    with_grpc: bool
    listening_seconds: float
    rss_mb: float


@dataclass
class Stalled:
    """One collector whose backend takes requests and never answers."""

    collector: str
    protocol: str
    statuses: dict[str, int]
    seconds: float
    peak_mb: float

    @property
    def refused(self) -> int:
        """Requests that were answered with a wish to come back later."""
        return sum(self.statuses.get(status, 0) for status in REFUSED)


@dataclass
class Goal:
    """What must be reached, and what was. `met` is `None` where nothing was measured."""

    text: str
    figure: str
    met: bool | None


@dataclass
class Results:
    """Everything that was found."""

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
        """Return the median CPU time a request, in µs."""
        samples = self.of(collector, protocol, spans)
        return median(sample.cpu_us_per_request for sample in samples) if samples else None

    def rate(self, collector: str, protocol: str, spans: int) -> float | None:
        """Return the median of spans a CPU-second."""
        samples = self.of(collector, protocol, spans)
        return median(sample.spans_per_cpu_second for sample in samples) if samples else None

    def ratio(self, protocol: str, spans: int, ours: str = OURS) -> float | None:
        """Return how many times less CPU we take than the peer: the median over rounds, each against its neighbour."""
        pairs = zip(self.of(ours, protocol, spans), self.of(PEER, protocol, spans), strict=False)
        ratios = [peer.cpu_us_per_request / our.cpu_us_per_request for our, peer in pairs if our.cpu_seconds]
        return median(ratios) if ratios else None

    def goals(self) -> Iterator[Goal]:
        """Yield every goal and whether it was met."""
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
