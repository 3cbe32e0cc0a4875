"""`make bench`: measure the agent and Rotel under the same load, and print one table.

CPU time is that of the collector process from /proc; the collector has a separate core, load and sink share the others.
The collectors take turns for each cell, and each cell is repeated: the table shows medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from collectors import Collector, Otelwp, Rotel
from process import Cores
from results import ACCEPTED, BASELINE, OURS, OURS_GZIP, PEER, PEER_UNSENT, Idle, Results, Sample, Stalled
from rotel_binary import NotAvailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
PROTOCOLS = ("http", "grpc")
SPANS = (1, 10, 100, 512)
WARM_UP_SECONDS = 0.5
ARRIVAL_SECONDS = 10.0
"""Seconds to wait for spans that a collector still holds."""
IDLE_SECONDS = 3.0
STALLED_SPANS = 100


class Bench:
    """Sink and load, which run for the whole benchmark."""

    def __init__(self, cores: Cores, logs: Path, text: str = "") -> None:
        """Start sink and load; the sink counts occurrences of `text`."""
        self.cores = cores
        self.logs = logs
        os.sched_setaffinity(0, cores.others)
        self._sink = subprocess.Popen([sys.executable, HERE / "sink.py", "0", text], stdout=subprocess.PIPE, text=True)
        self._load = subprocess.Popen(
            [sys.executable, HERE / "load.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._sink.stdout is not None
        self.sink = f"http://127.0.0.1:{int(self._sink.stdout.readline())}"

    def close(self) -> None:
        """End both."""
        for process in (self._load, self._sink):
            process.kill()
            process.wait()

    def cell(self, collector: Collector, protocol: str, spans: int, seconds: float, token: str = "") -> Sample:
        """Start the collector, load it, wait until everything has arrived, and stop it.

        Requests have the bearer `token` if there is one.
        """
        before, bytes_before = self._arrived()
        running = collector.start(self.sink, self.logs, self.cores)
        try:
            order = {"protocol": protocol, "port": running.port(protocol), "spans": spans, "requests": 10**9}
            order["token"] = token
            warm_up = self.send(order | {"seconds": WARM_UP_SECONDS})
            sent = spans * _accepted(warm_up["statuses"])
            if collector.sends:
                self._wait_arrived(before + sent)
            cpu = running.process.cpu_seconds()
            result = self.send(order | {"seconds": seconds})
            sent += spans * _accepted(result["statuses"])
            if collector.sends:
                self._wait_arrived(before + sent)
            cpu = running.process.cpu_seconds() - cpu
            peak = running.process.peak_rss_mb()
        finally:
            running.process.stop()
        arrived, arrived_bytes = self._arrived()
        return Sample(
            collector=collector.name,
            protocol=protocol,
            spans=spans,
            statuses=result["statuses"],
            cpu_seconds=cpu,
            seconds=result["seconds"],
            sent_spans=sent,
            arrived_spans=arrived - before,
            peak_mb=peak,
            sent_bytes=arrived_bytes - bytes_before,
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
        )

    def idle(self, collector: Collector, *, grpc: bool) -> Idle:
        """Start the collector without load."""
        running = collector.start(self.sink, self.logs, self.cores, grpc=grpc)
        try:
            time.sleep(IDLE_SECONDS)
            return Idle(
                collector.name, running.grpc_port is not None, running.listening_seconds, running.process.rss_mb()
            )
        finally:
            running.process.stop()

    def stalled(self, collector: Collector, protocol: str, seconds: float) -> Stalled:
        """Load the collector while its backend accepts requests and never answers."""
        running = collector.start(f"{self.sink}/stalled", self.logs, self.cores)
        try:
            order = {"protocol": protocol, "port": running.port(protocol), "spans": STALLED_SPANS, "requests": 10**9}
            result = self.send(order | {"seconds": seconds, "patience": 2})
            peak = running.process.peak_rss_mb()
        finally:
            running.process.kill()
        return Stalled(collector.name, protocol, result["statuses"], seconds, peak)

    def send(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order to the load process; return the result."""
        assert self._load.stdin is not None
        assert self._load.stdout is not None
        self._load.stdin.write(json.dumps(order) + "\n")
        self._load.stdin.flush()
        line = self._load.stdout.readline()
        if not line:
            message = "the load process ended"
            raise RuntimeError(message)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def counts(self) -> dict[str, Any]:
        """Return the counts of the sink: `spans`, `bytes`, and how often the text was `found`."""
        with urllib.request.urlopen(f"{self.sink}/counts", timeout=10) as response:
            counts: dict[str, Any] = json.load(response)
        return counts

    def _arrived(self) -> tuple[int, int]:
        counts = self.counts()
        return counts["spans"], counts["bytes"]

    def _wait_arrived(self, spans: int) -> None:
        end = time.monotonic() + ARRIVAL_SECONDS
        while self._arrived()[0] < spans and time.monotonic() < end:
            time.sleep(0.02)


def _accepted(statuses: dict[str, int]) -> int:
    return sum(statuses.get(status, 0) for status in ACCEPTED)


def machine(collectors: Sequence[Collector], cores: Cores) -> dict[str, str]:
    """Return the machine and versions for a report."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    alone = "a core of its own" if cores.collector.isdisjoint(cores.others) else "one core shared with load and sink"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cpu}, {os.cpu_count()} cores, the collector on {alone}",
        "Python": platform.python_version(),
        **{collector.name: collector.version for collector in collectors},
    }


def _collectors(results: Results, baseline: Path | None) -> list[Collector]:
    collectors: list[Collector] = [Otelwp("none"), Otelwp("gzip")]
    try:
        collectors += [Rotel(), Rotel("blackhole")]
    except NotAvailableError as error:
        results.notes.append(f"Rotel is not available, so its rows are missing: {error}")
    if baseline is not None:
        collectors.insert(0, Otelwp("none", name=BASELINE, bin_folder=baseline / ".venv/bin"))
    return collectors


@contextmanager
def _attempt(what: str, results: Results) -> Iterator[None]:
    """Run one measurement; if it fails, note the reason and continue with the others."""
    print(what, file=sys.stderr, flush=True)
    try:
        yield
    except (RuntimeError, OSError) as error:
        results.notes.append(f"{what}: failed: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds, not for the README")
    parser.add_argument("--rounds", type=int, help="repetitions of each cell (5; 2 with --quick)")
    parser.add_argument("--seconds", type=float, help="load of one cell (2; 1 with --quick)")
    parser.add_argument("--only", choices=[*PROTOCOLS, "idle", "stalled"], action="append", help="measure only this")
    parser.add_argument("--spans", type=int, action="append", help="spans a request (1, 10, 100 and 512)")
    parser.add_argument(
        "--collector", choices=[OURS, OURS_GZIP, PEER, PEER_UNSENT], action="append", help="measure only this"
    )
    parser.add_argument(
        "--baseline", type=Path, metavar="DIR", help="also measure the agent of another checkout, which has a .venv"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    return parser.parse_args()


def measure(options: argparse.Namespace, bench: Bench, collectors: Sequence[Collector], results: Results) -> None:
    """Run all selected measurements."""
    only = options.only or [*PROTOCOLS, "idle", "stalled"]
    _measure_load(options, [protocol for protocol in PROTOCOLS if protocol in only], bench, collectors, results)
    once = [collector for collector in collectors if collector.name in (OURS, PEER)]
    if "idle" in only:
        for collector in once * (2 if options.quick else 3):
            for grpc in (True,) if collector.name == PEER else (False, True):
                with _attempt(f"idle, {collector.name}", results):
                    results.idle.append(bench.idle(collector, grpc=grpc))
    if "stalled" in only:
        for protocol in PROTOCOLS:
            for collector in once:
                with _attempt(f"backend stalled, {protocol}, {collector.name}", results):
                    results.stalled.append(bench.stalled(collector, protocol, 5.0 if options.quick else 20.0))


def _measure_load(
    options: argparse.Namespace,
    protocols: Sequence[str],
    bench: Bench,
    collectors: Sequence[Collector],
    results: Results,
) -> None:
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (1.0 if options.quick else 2.0)
    for turn, protocol, spans in itertools.product(range(rounds), protocols, options.spans or SPANS):
        for collector in collectors:
            what = f"round {turn + 1}/{rounds}, {protocol}, {spans} spans a request, {collector.name}"
            with _attempt(what, results):
                results.samples.append(bench.cell(collector, protocol, spans, seconds))


def main() -> int:
    """Measure, print the report; return 1 if a goal was missed."""
    options = _options()
    cores = Cores.divide()
    results = Results({})
    collectors = [
        each
        for each in _collectors(results, options.baseline)
        if each.name in (*(options.collector or [OURS, OURS_GZIP, PEER]), BASELINE)
    ]
    results.machine = machine(collectors, cores)
    with tempfile.TemporaryDirectory(prefix="otelwp-bench-") as logs:
        bench = Bench(cores, Path(logs))
        try:
            measure(options, bench, collectors, results)
        except KeyboardInterrupt:
            results.notes.append("Interrupted: some rounds are missing.")
        finally:
            bench.close()
    print(report.markdown(results))
    if options.json:
        options.json.write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
    return 1 if any(goal.met is False for goal in results.goals()) else 0


if __name__ == "__main__":
    sys.exit(main())
