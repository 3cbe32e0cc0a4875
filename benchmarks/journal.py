"""Measure the cost of the journal, and its behaviour while the backend is unreachable: `python benchmarks/journal.py`.

Under load, each kind of `sync` is measured in turn with no journal, round by round, in one run: CPU time per request
and time to the answer. Then the backend is unreachable while a million spans arrive, and becomes reachable again:
memory, disk, and how fast the backlog is sent while more spans arrive. Cores are divided as in `run.py`.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import workload
from collectors import Otelwp
from process import Cores, free_ports
from run import HERE, Bench

if TYPE_CHECKING:
    from collectors import Running
    from results import Sample

OFF = "none at all"
ENCRYPTED = "encrypted"
SYNCS = ("group", ENCRYPTED, "none", "always")
"""`encrypted` is `group` with encryption."""
BASES = {ENCRYPTED: "group"}
"""The kind that another kind is compared with; the others are compared with no journal."""
SPANS = (100, 1)
OUTAGE_SPANS = 1_000_000
OUTAGE_REQUEST = 100
OUTAGE_SECONDS = 120.0
NOTICE_SECONDS = 10.0
"""Seconds that an agent may take to detect that its backend is reachable again, because of its circuit breaker."""
MEANWHILE_REST = 0.64
"""Seconds that each of 64 connections waits between requests while the backlog is sent: 10 000 new spans per second."""
PROBE_SECONDS = 0.05


def collector(sync: str, directory: Path) -> Otelwp:
    """Return the agent with a journal with this `sync`."""
    if sync == OFF:
        return Otelwp("none", name=OFF)
    env = {"BENCH_DIRECTORY": str(directory), "BENCH_SYNC": BASES.get(sync, sync)}
    if sync == ENCRYPTED:
        env["BENCH_KEY"] = base64.b64encode(bytes(range(32))).decode()
        return Otelwp("none", name=sync, configs=("bench_journal.yaml", "bench_encryption.yaml"), env=env)
    return Otelwp("none", name=f"sync: {sync}", configs=("bench_journal.yaml",), env=env)


def under_load(
    bench: Bench, disk: Path, rounds: int, seconds: float, kinds: tuple[str, ...] = ()
) -> dict[int, dict[str, list[Sample]]]:
    """Measure every kind of journal (or these `kinds`) and no journal in turn."""
    kinds = kinds or (OFF, *SYNCS)
    found: dict[int, dict[str, list[Sample]]] = {spans: {kind: [] for kind in kinds} for spans in SPANS}
    for turn in range(rounds):
        for spans in SPANS:
            for kind in kinds:
                print(f"round {turn + 1}/{rounds}, {spans} spans a request, {kind}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=disk) as directory:
                    agent = collector(kind, Path(directory) / "journal")
                    found[spans][kind].append(bench.cell(agent, "http", spans, seconds))
    return found


def table(found: dict[int, dict[str, list[Sample]]]) -> str:
    """Return a Markdown table; each ratio is the median of the rounds' ratios."""
    heads = (
        "spans a request",
        "journal",
        "CPU a request",
        "spans a CPU-second",
        "of those without",
        "of those unencrypted",
        "answer",
        "arrived",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for spans, kinds in found.items():
        for kind, samples in kinds.items():
            pairs = zip(kinds[OFF], samples, strict=True)
            ratio = median(off.cpu_us_per_request / each.cpu_us_per_request for off, each in pairs)
            same = zip(kinds[BASES.get(kind, kind)], samples, strict=True)
            base = median(other.cpu_us_per_request / each.cpu_us_per_request for other, each in same)
            p50, p99 = (median(getattr(each, name) for each in samples) for name in ("p50_ms", "p99_ms"))
            cells = [
                f"{median(each.cpu_us_per_request for each in samples):.1f} µs",
                f"{median(each.spans_per_cpu_second for each in samples):,.0f}",
                f"{ratio:.0%}",
                f"{base:.0%} of {BASES[kind]}" if kind in BASES else "",
                f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                "all" if all(each.sent_spans == each.arrived_spans for each in samples) else "not all",
            ]
            lines.append(f"| {spans} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass
class Outage:
    """Figures of a run with an unreachable backend."""

    accepted: int = 0
    refused: int = 0
    arriving_seconds: float = 0.0
    peak_mb: float = 0.0
    pss_mb: float = 0.0
    disk_mb: float = 0.0
    received_mb: float = 0.0
    noticed_seconds: float = 0.0
    """Time from the return of the backend to the first spans."""
    drained_seconds: float = 0.0
    """Time from the first spans until as many had arrived as the backlog had."""
    drained_spans: int = 0
    drained_cpu: float = 0.0
    peak_after_mb: float = 0.0
    left_on_disk_mb: float = 0.0
    meanwhile: dict[str, Any] = field(default_factory=dict)
    probes: list[float] = field(default_factory=list)
    """Seconds from sender to backend of probes sent while the backlog was sent."""
    lost: int = 0

    def __str__(self) -> str:
        """Return the figures as Markdown."""
        probes = sorted(self.probes) or [float("nan")]
        per_second = self.drained_spans / max(self.drained_seconds, 1e-9)
        per_cpu_second = self.drained_spans / max(self.drained_cpu, 1e-9)
        answers = f"p50 {self.meanwhile['p50_ms']:.1f} ms, p99 {self.meanwhile['p99_ms']:.1f} ms"
        rows = {
            "backend away": "",
            "---": "---",
            "spans accepted, requests refused": f"{self.accepted:,} in {self.arriving_seconds:.1f} s, {self.refused}",
            "most memory (RSS), and PSS at the end": f"{self.peak_mb:.0f} MB, {self.pss_mb:.0f} MB",
            "on disk": f"{self.disk_mb:.0f} MB for {self.received_mb:.0f} MB received",
            "first spans after the backend's return": f"{self.noticed_seconds:.1f} s",
            "drained": f"{self.drained_spans:,} spans in {self.drained_seconds:.2f} s: {per_second:,.0f} a second, "
            f"{per_cpu_second:,.0f} a CPU-second",
            "meanwhile: answers to new requests": f"{self.meanwhile['statuses']}, {answers}",
            "meanwhile: new spans reach the backend": f"p50 {probes[len(probes) // 2]:.2f} s, longest "
            f"{probes[-1]:.2f} s ({len(self.probes)} probes)",
            "most memory (RSS) over all": f"{self.peak_after_mb:.0f} MB",
            "left on disk": f"{self.left_on_disk_mb:.1f} MB",
            "accepted and not arrived": str(self.lost),
        }
        return "\n".join(f"| {what} | {figure} |" for what, figure in rows.items())


class Backend:
    """A sink that is started on request, on a port that is known before."""

    def __init__(self) -> None:
        """Choose the port."""
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Listen."""
        self._process = subprocess.Popen(
            [sys.executable, HERE / "sink.py", str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def counts(self) -> dict[str, Any]:
        """Return the counts of the sink."""
        with urllib.request.urlopen(f"{self.url}/counts", timeout=30) as response:
            counts: dict[str, Any] = json.load(response)
        return counts

    def close(self) -> None:
        """End."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Probes(threading.Thread):
    """Sends spans regularly whose names contain the time of sending."""

    def __init__(self, port: int) -> None:
        """Send to `port` between `start` and `end`."""
        super().__init__(daemon=True)
        self.port = port
        self.sent = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Send."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        message = workload.ExportTraceServiceRequest.FromString(workload.bodies(1)[0])
        while not self._over.wait(PROBE_SECONDS):
            message.resource_spans[0].scope_spans[0].spans[0].name = f"probe {time.time_ns()}"
            body = message.SerializeToString()
            connection.request("POST", "/v1/traces", body, {"content-type": "application/x-protobuf"})
            response = connection.getresponse()
            response.read()
            self.sent += response.status == 200
        connection.close()

    def end(self) -> None:
        """Stop sending."""
        self._over.set()
        self.join()


def outage(bench: Bench, disk: Path) -> Outage:
    """Send a million spans while the backend is unreachable, then start it."""
    backend = Backend()
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        directory = Path(folder) / "journal"
        running = collector("group", directory).start(backend.url, bench.logs, bench.cores, grpc=False)
        try:
            return _outage(bench, backend, running, directory)
        finally:
            running.process.stop()
            backend.close()


def _outage(bench: Bench, backend: Backend, running: Running, directory: Path) -> Outage:
    found = Outage()
    order = {"protocol": "http", "port": running.http_port, "spans": OUTAGE_REQUEST}
    requests = OUTAGE_SPANS // OUTAGE_REQUEST
    arrived = bench.send(order | {"requests": requests, "seconds": OUTAGE_SECONDS})
    accepted = arrived["statuses"].get("200", 0)
    found.accepted = accepted * OUTAGE_REQUEST
    found.refused = sum(arrived["statuses"].values()) - accepted
    found.arriving_seconds = arrived["seconds"]
    bodies = workload.bodies(OUTAGE_REQUEST)
    found.received_mb = accepted * sum(map(len, bodies)) / len(bodies) / 1e6
    found.disk_mb = _size(directory) / 1e6
    found.peak_mb = running.process.peak_rss_mb()
    found.pss_mb = running.process.pss_mb()

    probes = Probes(running.http_port)
    seconds = found.accepted / 250_000 + NOTICE_SECONDS
    meanwhile = order | {"requests": 10**9, "seconds": seconds, "rest": MEANWHILE_REST}
    load = threading.Thread(target=lambda: found.meanwhile.update(bench.send(meanwhile)))
    load.start()
    backend.start()
    _drain(found, backend, running, probes)
    load.join()
    probes.end()
    total = found.accepted + found.meanwhile["statuses"].get("200", 0) * OUTAGE_REQUEST + probes.sent
    end = time.monotonic() + 60
    while (counts := backend.counts())["spans"] < total and time.monotonic() < end:
        time.sleep(0.05)
    found.lost = total - counts["spans"]
    found.probes = counts["probes"]
    found.peak_after_mb = running.process.peak_rss_mb()
    time.sleep(2)  # delivered requests are released on disk
    found.left_on_disk_mb = _size(directory) / 1e6
    return found


def _drain(found: Outage, backend: Backend, running: Running, probes: Probes) -> None:
    """Wait until the backlog has arrived; send probes from the moment at which the agent sends again."""
    began = time.monotonic()
    while not backend.counts()["spans"]:
        time.sleep(0.01)
    first, first_spans, cpu = time.monotonic(), backend.counts()["spans"], running.process.cpu_seconds()
    found.noticed_seconds = first - began
    probes.start()
    while (spans := backend.counts()["spans"]) < found.accepted:
        if time.monotonic() - first > OUTAGE_SECONDS:
            break
        time.sleep(0.01)
    found.drained_spans = spans - first_spans
    found.drained_seconds = time.monotonic() - first
    found.drained_cpu = running.process.cpu_seconds() - cpu


def _size(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.glob("*.journal"))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each cell (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="load of one cell (2)")
    parser.add_argument("--only", choices=["load", "outage", "encryption"], help="measure only this")
    parser.add_argument("--disk", type=Path, help="directory for the journal, on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="otelwp-bench-", dir=options.disk) as folder:
        disk = Path(folder)
        filesystem = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True)
        print(f"The journal is on {filesystem.stdout.strip()} ({disk.parent}).\n")
        bench = Bench(Cores.divide(), disk)
        try:
            if options.only != "outage":
                kinds = (OFF, "group", ENCRYPTED) if options.only == "encryption" else ()
                print(table(under_load(bench, disk, options.rounds, options.seconds, kinds)), "\n", sep="")
            if options.only not in {"load", "encryption"}:
                print(outage(bench, disk))
        finally:
            bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
