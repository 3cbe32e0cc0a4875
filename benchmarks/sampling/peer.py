"""Compare the cost of tail sampling: the agent and the OpenTelemetry Collector with `tail_sampling`, in turn.

Both have the pipeline `otlp (HTTP) → memory_limiter → sampler → batch → otlp_http`, and get the same requests at the
same rate, each with unique trace ids. Both keep errors, traces of at least a second, and about a tenth of the rest: the
agent with a budget shared among 1 000 keys, the Collector with a probability. CPU time is that of the collector's
process from /proc, from before the first request until all decisions are made and all kept spans have arrived.

Run: `.venv/bin/python benchmarks/sampling/peer.py`, about five minutes; `--quick` for one round. The Collector is built
from its Go modules (tools/peers/collector) if necessary.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]

import fresh  # noqa: E402 - the path is set above
from collectors import Collector, Otelcol, Otelwp  # noqa: E402
from load import CONNECTIONS  # noqa: E402
from peers import golang  # noqa: E402
from process import Cores  # noqa: E402
from results import ACCEPTED, OTELCOL, OURS, Sample  # noqa: E402
from run import Bench, machine  # noqa: E402

SPANS = 100
"""A request."""
RATE = 40_000
"""Spans sent per second."""
SETTLING = 4.0
"""Seconds after the last request until all spans are decided, batched and sent: traces wait for one second, for two
without a root, the Collector decides once a second, and batches wait for 0.2 s."""
SHARE = 0.125
"""Approximate share that both keep: a tenth by chance, plus errors and slow traces."""
AHEAD = 2.0
"""Seconds of its budget that the agent may use in advance at the start."""
DECIDED = {
    OURS: "otelwp_processor_adaptive_sampling_traces",
    OTELCOL: "otelcol_processor_tail_sampling_global_count_traces_sampled",
}
"""Metric that counts decided traces, by collector."""


@dataclass
class Sampled(Sample):
    """One measurement of one collector under one load."""

    errors_sent: int = 0
    errors_arrived: int = 0
    traces: int = 0
    decided: int = 0
    """Of those."""

    @property
    def share(self) -> float:
        """Return the share of the spans that arrived."""
        return self.arrived_spans / max(self.sent_spans, 1)

    @property
    def cpu_us_per_span(self) -> float:
        """Return CPU time per received span, in µs."""
        return self.cpu_us_per_request / SPANS


Found = dict[str, dict[str, list[Sampled]]]
"""Samples by load and collector."""


def cell(bench: Bench, collector: Collector, load: str, seconds: float) -> Sampled:
    """Start the collector, load it, wait until it has made all decisions, and stop it."""
    before = bench.counts()
    running = collector.start(bench.sink, bench.logs, bench.cores, grpc=False)
    try:
        cpu = running.process.cpu_seconds()
        order = {"protocol": "http", "port": running.http_port, "spans": SPANS, "traces": load}
        pace = {"requests": int(RATE / SPANS * seconds), "rest": CONNECTIONS * SPANS / RATE}
        result = bench.send(order | pace | {"seconds": 4 * seconds})
        time.sleep(SETTLING)
        cpu = running.process.cpu_seconds() - cpu
        peak = running.process.peak_rss_mb()
        decided = _metric(running.metrics_port, DECIDED[collector.name])
    finally:
        running.process.stop()
    after = bench.counts()
    requests = sum(result["statuses"].get(status, 0) for status in ACCEPTED)
    return Sampled(
        collector=collector.name,
        protocol="http",
        spans=SPANS,
        statuses=result["statuses"],
        cpu_seconds=cpu,
        seconds=result["seconds"],
        sent_spans=requests * SPANS,
        arrived_spans=after["spans"] - before["spans"],
        peak_mb=peak,
        sent_bytes=after["bytes"] - before["bytes"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        errors_sent=result["errors"],
        errors_arrived=after["found"] - before["found"],
        traces=fresh.traces(load, requests),
        decided=decided,
    )


def _metric(port: int | None, name: str) -> int:
    """Return the sum of a counter over all its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    values = re.findall(rf"^{name}(?:_total)?(?:{{.*}})? (\S+)", text, re.MULTILINE)
    return int(sum(map(float, values)))


def measure(bench: Bench, collectors: list[Collector], rounds: int, seconds: float) -> Found:
    """Measure every load with each collector in turn."""
    found: Found = {load: {collector.name: [] for collector in collectors} for load in fresh.LOADS}
    for turn in range(rounds):
        for load in fresh.LOADS:
            for collector in collectors:
                print(f"round {turn + 1}/{rounds}, {load}, {collector.name}", file=sys.stderr, flush=True)
                found[load][collector.name].append(cell(bench, collector, load, seconds))
    return found


def table(found: Found) -> str:
    """Return a Markdown table: medians, and the median of the rounds' ratios."""
    heads = (
        "a request of 100 spans",
        "",
        "CPU a span",
        "spans a CPU-second",
        "of a core",
        "over the Collector's",
        "peak memory",
        "answer p50, p99",
        "arrived",
        "errors arrived",
    )
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for load, collectors in found.items():
        for name, samples in collectors.items():
            pairs = zip(samples, collectors[OTELCOL], strict=True)
            ratio = median(peer.cpu_us_per_span / each.cpu_us_per_span for each, peer in pairs)
            p50, p99 = (median(getattr(each, field) for each in samples) for field in ("p50_ms", "p99_ms"))
            errors = sum(each.errors_arrived for each in samples), sum(each.errors_sent for each in samples)
            cells = [
                load,
                name,
                f"{median(each.cpu_us_per_span for each in samples):.2f} µs",
                f"{median(each.spans_per_cpu_second for each in samples) / 1e6:.2f} M",
                f"{median(each.cpu_seconds / each.seconds for each in samples):.1%}",
                f"**{ratio:.1f} x**" if name == OURS else "",
                f"{max(each.peak_mb for each in samples):.0f} MB",
                f"{p50:.1f}, {p99:.1f} ms",
                f"{median(each.share for each in samples):.1%}",
                f"all {errors[1]:,}" if errors[0] == errors[1] else f"**{errors[0]:,} of {errors[1]:,}**",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def doubts(found: Found) -> list[str]:
    """Return reasons why the figures may be wrong."""
    said = []
    for load, collectors in found.items():
        for name, samples in collectors.items():
            refused = sum(each.errors for each in samples)
            if refused:
                said.append(f"{load}, {name}: {refused:,} requests were refused or lost; figures and errors are off.")
            said += [
                f"{load}, {name}: {each.decided:,} of {each.traces:,} traces were decided about."
                for each in samples
                if each.decided != each.traces
            ]
            us = [each.cpu_us_per_span for each in samples]
            if max(us) > 1.25 * min(us):
                said.append(
                    f"{load}, {name}: rounds are between {min(us):.2f} and {max(us):.2f} µs: not a quiet machine."
                )
    return said


def main() -> int:
    """Measure and print; return 1 if there are doubts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each cell (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="load of one cell (10)")
    options = parser.parse_args()
    cores = Cores.divide()
    # The budget accounts for `AHEAD`, so that as many spans arrive as from the Collector.
    target = RATE * SHARE * options.seconds / (options.seconds + AHEAD)
    collectors: list[Collector] = [
        Otelwp("none", configs=("bench_sampling.yaml",), env={"BENCH_TARGET": f"{target:.0f}"}),
        Otelcol(golang.collector(), golang.collector_version(), "otelcol_tail_sampling.yaml"),
    ]
    with tempfile.TemporaryDirectory(prefix="otelwp-bench-") as logs:
        bench = Bench(cores, Path(logs), fresh.ERROR)
        try:
            found = measure(bench, collectors, 1 if options.quick else options.rounds, options.seconds)
        finally:
            bench.close()
    print(" · ".join(f"{name}: {value}" for name, value in machine(collectors, cores).items()), "\n", sep="\n")
    print(table(found))
    against = doubts(found)
    print("", *against, sep="\n")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
