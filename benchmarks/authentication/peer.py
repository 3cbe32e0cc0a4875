"""Compare the cost of a bearer token: the agent and the OpenTelemetry Collector with `bearertokenauth`, in turn.

Both have the pipeline `otlp (HTTP, gRPC) → memory_limiter → batch → otlp_http`, check the token of each request, and
get the same load. The agent is measured without authentication too, in the same rounds. CPU time is that of the
collector's process from /proc.

Run: `.venv/bin/python benchmarks/authentication/peer.py`, about five minutes; `--quick` for two short rounds. The
Collector is built from its Go modules (tools/peers/collector) if necessary.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]

from collectors import Collector, Otelcol, Otelwp  # noqa: E402 - the path is set above
from peers import golang  # noqa: E402
from process import Cores  # noqa: E402
from results import OTELCOL, OURS, Results  # noqa: E402
from run import PROTOCOLS, Bench, machine  # noqa: E402

SPANS = (1, 100)
"""A request."""
TOKEN = "0123456789abcdef0123456789abcdef"
OPEN = f"{OURS}, no authentication"


def table(results: Results) -> str:
    """Return a Markdown table: medians, and the medians of the rounds' ratios."""
    heads = (
        "",
        "spans a request",
        f"{OPEN}: CPU a request",
        OURS,
        OTELCOL,
        "the token's share",
        f"{OTELCOL} over ours",
    )
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for protocol, spans in itertools.product(PROTOCOLS, SPANS):
        cells = [results.of(name, protocol, spans) for name in (OPEN, OURS, OTELCOL)]
        costs = [[sample.cpu_us_per_request for sample in samples] for samples in cells]
        share = median(ours / free - 1 for free, ours, _ in zip(*costs, strict=True))
        ratio = median(peer / ours for _, ours, peer in zip(*costs, strict=True))
        figures = [f"{median(each):.1f} µs" for each in costs]
        row = [protocol, str(spans), *figures, f"{100 * share:+.1f} %", f"{ratio:.2f} x"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    options = parser.parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (5, 3.0)
    env = {"BENCH_TOKEN": TOKEN}
    collectors: list[Collector] = [
        Otelwp("none", name=OPEN),
        Otelwp("none", configs=("bench_bearer.yaml",), env=env),
        Otelcol(golang.collector(), golang.collector_version(), "otelcol_bearer.yaml", env),
    ]
    cores = Cores.divide()
    results = Results(machine(collectors, cores))
    with tempfile.TemporaryDirectory(prefix="otelwp-bench-") as logs:
        bench = Bench(cores, Path(logs))
        try:
            for turn, protocol, spans in itertools.product(range(rounds), PROTOCOLS, SPANS):
                for collector in collectors:
                    print(f"round {turn + 1}/{rounds}, {protocol}, {spans} spans, {collector.name}", file=sys.stderr)
                    results.samples.append(bench.cell(collector, protocol, spans, seconds, TOKEN))
        finally:
            bench.close()
    print("\n".join(f"* {name}: {value}" for name, value in results.machine.items()))
    print()
    print(table(results))
    refused = sum(sample.errors for sample in results.samples)
    missing = sum(sample.sent_spans - sample.arrived_spans for sample in results.samples)
    print(f"\nRequests not accepted: {refused}; accepted spans that did not arrive: {missing}")


if __name__ == "__main__":
    main()
