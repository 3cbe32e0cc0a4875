"""Measure the price of sealing: from an agent that encrypts to an agent that opens, beside other roads.

Each road has a sender and a recipient, two processes with the pipeline `otlp (HTTP) → memory_limiter → batch → …`. The
sender gets requests of 100 spans; the recipient forwards to a sink. Roads are measured in turns, in the same rounds:

* sealed: `compression` (zstd) and `encryption`, sent by `managed` over HTTP without TLS, opened by receiver `otlp`;
* sealed, over TLS: the same over HTTPS, as over the internet;
* sealed alone: the same as `sealed` without `batch` in the sender, so that each envelope has 100 spans;
* ours, zstd and TLS: `otlp_http` over HTTPS to receiver `otlp`, not sealed;
* the OpenTelemetry Collector to itself: `otlphttp` with gzip over HTTPS.

Figures are spans for each CPU-second of the sender and of the recipient, from /proc. `--parts` measures the parts alone
in this process, and `--dictionary` what compression levels, long windows and trained dictionaries do to bodies.

Run: `.venv/bin/python benchmarks/sealing.py`, about four minutes; `--quick` for two short rounds. The Collector is
built from its Go modules (tools/peers/collector) if it is not there yet; `--alone` does without.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools"), str(ROOT)]

import workload  # noqa: E402 - the path is set above
import zstandard  # noqa: E402
from isal import igzip_lib  # noqa: E402
from peers import golang  # noqa: E402
from process import Cores, Process, free_ports  # noqa: E402
from results import OTELCOL  # noqa: E402
from run import Bench, machine  # noqa: E402

from otelwp_agent.licensing.public_keys import encode_base64url  # noqa: E402
from otelwp_agent.sealing.content import decode  # noqa: E402
from otelwp_agent.sealing.envelope import SealedHeader, parse, seal, unseal  # noqa: E402
from otelwp_agent.sealing.key_files import opening_keys_text  # noqa: E402
from otelwp_agent.sealing.key_ring import KeyRing  # noqa: E402
from otelwp_agent.sealing.recipient import Recipient  # noqa: E402
from otelwp_agent.sealing.rotation import new_key  # noqa: E402
from otelwp_agent.sealing.suites import SealingSuite  # noqa: E402
from otelwp_agent.transport.compression import compress  # noqa: E402
from tests.kit.certificates import Authority  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Given = TypeVar("Given")
Result = TypeVar("Result")

SPANS = 100
"""A request."""
GOAL = 0.8e6
"""Spans for each CPU-second, of the sender and of the recipient of sealed envelopes."""
WARM_UP = 0.5
ARRIVAL = 60.0
LIMIT = 2**26

SENDER = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors: {{memory_limiter: {{check_interval: 1s, limit_mib: 1024}}, {processors}}}
exporters: {{{exporter}: {settings}}}
service:
  telemetry: {telemetry}
  pipelines: {{traces: {{receivers: [otlp], processors: [memory_limiter, {names}], exporters: [{exporter}]}}}}
"""
RECIPIENT = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"{tls}}}}}{sealed}}}}}
processors: {{memory_limiter: {{check_interval: 1s, limit_mib: 1024}}, batch: }}
exporters: {{{exporter}: {{endpoint: "{sink}", compression: none}}}}
service:
  telemetry: {telemetry}
  pipelines: {{traces: {{receivers: [otlp], processors: [memory_limiter, batch], exporters: [{exporter}]}}}}
"""
OURS_TELEMETRY = '{{metrics: {{address: "127.0.0.1:{port}"}}}}'
THEIR_TELEMETRY = (
    "{{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]}}}}"
)


@dataclass(frozen=True)
class Road:
    """A way from a sender to a recipient."""

    name: str
    sealed: bool = False
    tls: bool = False
    batched: bool = True
    peer: bool = False
    """Whether both are the OpenTelemetry Collector."""


ROADS = (
    Road("sealed", sealed=True),
    Road("sealed, over TLS", sealed=True, tls=True),
    Road("sealed alone", sealed=True, batched=False),
    Road("ours, zstd and TLS", tls=True),
    Road(f"{OTELCOL}, gzip and TLS", tls=True, peer=True),
)


@dataclass
class Measured:
    """Spans for each CPU-second of both processes in one round."""

    sender: float
    recipient: float
    missing: int
    """Accepted spans that did not arrive."""


class Keys:
    """The files that the processes need: certificates and sealing keys."""

    def __init__(self, folder: Path) -> None:
        """Write them to `folder`."""
        authority = Authority(folder)
        self.ca_file = authority.ca_file
        self.certificate = authority.sign()
        key = new_key(SealingSuite.X25519, 0.0)
        self.opening = folder / "opening-keys.json"
        self.opening.write_bytes(opening_keys_text(1, [key]))
        self.inline = f"[{{key_id: {key.key_id}, public_key: {encode_base64url(key.suite.public_bytes(key.private))}}}]"


def sender_config(road: Road, keys: Keys, port: int, metrics: int, target: int) -> str:
    """Return the configuration of the sender."""
    scheme = "https" if road.tls else "http"
    tls = f", tls: {{ca_file: {keys.ca_file}}}" if road.tls else ""
    stages = {"batch": ""} if road.batched else {}
    if road.sealed:
        stages |= {"compression": "", "encryption": f"{{recipients: {{keys: {keys.inline}}}}}"}
    exporter = "managed" if road.sealed else "otlphttp" if road.peer else "otlp_http"
    compression = ", compression: gzip" if road.peer else "" if road.sealed else ", compression: zstd"
    return SENDER.format(
        port=port,
        processors=", ".join(f"{name}: {settings}" for name, settings in stages.items()),
        names=", ".join(stages),
        exporter=exporter,
        settings=f'{{endpoint: "{scheme}://127.0.0.1:{target}"{compression}{tls}}}',
        telemetry=(THEIR_TELEMETRY if road.peer else OURS_TELEMETRY).format(port=metrics),
    )


def recipient_config(road: Road, keys: Keys, port: int, metrics: int, sink: str) -> str:
    """Return the configuration of the recipient."""
    pair = keys.certificate
    tls = f", tls: {{cert_file: {pair.cert_file}, key_file: {pair.key_file}}}" if road.tls else ""
    sealed = f", sealed: {{mode: open, keys: {keys.opening}}}" if road.sealed else ""
    return RECIPIENT.format(
        port=port,
        tls=tls,
        sealed=sealed,
        sink=sink,
        exporter="otlphttp" if road.peer else "otlp_http",
        telemetry=(THEIR_TELEMETRY if road.peer else OURS_TELEMETRY).format(port=metrics),
    )


def measure(road: Road, keys: Keys, bench: Bench, folder: Path, seconds: float) -> Measured:
    """Start both processes, load the sender, wait until everything has arrived, and stop both."""
    port, metrics, target, target_metrics = free_ports(4)
    configs = {
        "recipient": (recipient_config(road, keys, target, target_metrics, bench.sink), target),
        "sender": (sender_config(road, keys, port, metrics, target), port),
    }
    command = [str(golang.collector())] if road.peer else [str(Path(sys.executable).parent / "otelwp-agent"), "run"]
    processes: dict[str, Process] = {}
    try:
        for name, (config, listens) in configs.items():
            file = folder / f"{name}.yaml"
            file.write_text(config, "utf-8")
            process = Process([*command, f"--config={file}"], os.environ, folder / f"{name}.log", bench.cores)
            processes[name] = process
            process.wait_listening([listens])
        before = bench.counts()["spans"]
        sent = load(bench, port, WARM_UP)
        settle(bench, before + sent)
        cpu = {name: process.cpu_seconds() for name, process in processes.items()}
        spans = load(bench, port, seconds)
        arrived = settle(bench, before + sent + spans)
        cost = {name: process.cpu_seconds() - cpu[name] for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    return Measured(spans / cost["sender"], spans / cost["recipient"], before + sent + spans - arrived)


def load(bench: Bench, port: int, seconds: float) -> int:
    """Send requests for some seconds; return the accepted spans."""
    order = {"protocol": "http", "port": port, "spans": SPANS, "requests": 10**9, "seconds": seconds}
    statuses = bench.send(order)["statuses"]
    accepted: int = statuses.get("200", 0)
    return accepted * SPANS


def settle(bench: Bench, wanted: int) -> int:
    """Wait until `wanted` spans have arrived in all; return those that have."""
    end = time.monotonic() + ARRIVAL
    while (arrived := bench.counts()["spans"]) < wanted and time.monotonic() < end:
        time.sleep(0.05)  # the agents report arrivals without an event
    return int(arrived)


def table(results: dict[Road, list[Measured]]) -> str:
    """Return a Markdown table: medians of the rounds."""
    heads = ("from sender to recipient", "sender: spans per CPU-second", "recipient: spans per CPU-second", "missing")
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|"]
    for road, rounds in results.items():
        sender, recipient = (median(getattr(one, name) for one in rounds) for name in ("sender", "recipient"))
        missing = sum(one.missing for one in rounds)
        lines.append(f"| {road.name} | {sender / 1e6:.2f} M | {recipient / 1e6:.2f} M | {missing} |")
    return "\n".join(lines)


def parts() -> str:
    """Return a table of the cost of each part alone, in µs of CPU for each request."""
    lines = [
        "| spans | suite | zstd | seal | open | inflate | spans per CPU-second: seal | open |",
        "|---:|---|" + "---:|" * 6,
    ]
    for spans, suite in itertools.product((SPANS, 8192), SealingSuite):
        squeeze, sealing, opening, inflate = costs(spans, suite)
        there, back = spans / (squeeze + sealing), spans / (opening + inflate)
        figures = [f"{1e6 * cost:.0f}" for cost in (squeeze, sealing, opening, inflate)]
        lines.append(f"| {spans} | {suite.name} | {' | '.join(figures)} | {there / 1e6:.2f} M | {back / 1e6:.2f} M |")
    return "\n".join(lines)


def costs(spans: int, suite: SealingSuite) -> tuple[float, float, float, float]:
    """Return the CPU seconds to compress, seal, open and inflate a request."""
    key = new_key(suite, 0.0)
    recipient = Recipient(key.key_id, suite, suite.public_bytes(key.private))
    ring = KeyRing([key])
    plain = workload.bodies(spans)[:16]
    now = time.time()
    headers = [
        SealedHeader("acme", int(now * 1000), encodings=("zstd",), items=spans, plain_size=len(one)) for one in plain
    ]
    zipped, squeeze = timed(lambda body: compress("zstd", body), plain)
    sealed, sealing = timed(lambda pair: seal(recipient, *pair), [*zip(headers, zipped, strict=True)])
    opened, opening = timed(lambda data: unseal(parse(data), ring, now), sealed)
    _, inflate = timed(lambda pair: decode(*pair, LIMIT), [*zip(headers, opened, strict=True)])
    return squeeze, sealing, opening, inflate


def timed(function: Callable[[Given], Result], given: Sequence[Given]) -> tuple[list[Result], float]:
    """Return the results for `given`, and the CPU seconds of one call: the median of rounds of about 0.2 s in all."""
    results = [function(one) for one in given]
    rounds: list[float] = []
    while sum(rounds) < 0.2 or len(rounds) < 5:
        started = time.process_time()
        for one in given:
            function(one)
        rounds.append(time.process_time() - started)
    return results, median(rounds) / len(given)


def dictionary() -> str:
    """Return a table of ratios and µs of CPU for each body, with levels, a long window and a trained dictionary."""
    heads = (
        "spans a body",
        "bytes",
        "zstd 1",
        "zstd 3",
        "zstd 9",
        "zstd 1, long window",
        "gzip 1 (isal)",
        "zstd 1, dictionary",
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    for spans in (1, 10, 100, 1000, 8192):
        bodies = workload.bodies(spans)
        tried, learned = bodies[:16], bodies[16:]
        size = sum(map(len, tried)) / len(tried)
        trained = zstandard.train_dictionary(16384, [body[:65536] for body in learned][:400])
        ways: list[Callable[[bytes], bytes]] = [
            *(lambda body, level=level: compress("zstd", body, level) for level in (1, 3, 9)),
            lambda body: compress("zstd", body, 1, long_window=True),
            lambda body: bytes(igzip_lib.compress(body, 1, flag=igzip_lib.COMP_GZIP)),
            zstandard.ZstdCompressor(level=1, dict_data=trained).compress,
        ]
        cells = []
        for way in ways:
            results, cost = timed(way, tried)
            cells.append(f"{size * len(results) / sum(map(len, results)):.2f} / {1e6 * cost:.0f} µs")
        lines.append(f"| {spans} | {size:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, and print tables; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--alone", action="store_true", help="without the Collector")
    parser.add_argument("--parts", action="store_true", help="only the parts, in this process")
    parser.add_argument("--dictionary", action="store_true", help="only compression, in this process")
    options = parser.parse_args()
    if options.parts or options.dictionary:
        print(parts() if options.parts else dictionary())
        return 0
    rounds, seconds = (2, 1.0) if options.quick else (5, 3.0)
    roads = [road for road in ROADS if not (options.alone and road.peer)]
    results: dict[Road, list[Measured]] = {road: [] for road in roads}
    cores = Cores.divide()
    with tempfile.TemporaryDirectory(prefix="otelwp-bench-") as folder:
        keys = Keys(Path(folder))
        bench = Bench(cores, Path(folder))
        try:
            for turn, road in itertools.product(range(rounds), roads):
                print(f"round {turn + 1}/{rounds}, {road.name}", file=sys.stderr)
                results[road].append(measure(road, keys, bench, Path(folder), seconds))
        finally:
            bench.close()
    print("\n".join(f"* {name}: {value}" for name, value in machine([], cores).items()))
    if not options.alone:
        print(f"* {OTELCOL}: {golang.collector_version()}")
    print()
    print(table(results))
    sealed = results[ROADS[0]]
    figures = [median(getattr(one, name) for one in sealed) for name in ("sender", "recipient")]
    missed = [f"{figure / 1e6:.2f} M" for figure in figures if figure < GOAL]
    if missed:
        print(f"\nBelow the goal of {GOAL / 1e6} M spans per CPU-second: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
