"""Measure the loss of accepted spans under overload, with 1, 3 and 6 exporters, and one sink slow, hung or refusing.

Our agent and the OpenTelemetry Collector, in turns, have the pipeline `otlp (HTTP) → memory_limiter → batch → n
otlp_http` and get the same load: requests of 100 spans on 16 connections, twice as many spans as a sink takes. Sinks
are in one process of their own and take `CAPACITY` spans a second each. One of them may be

* `slow`: it takes a third of that, and answers 0.3 s later;
* `hung`: it reads requests and never answers;
* `refusing`: it answers each request with 503.

Counted are the spans that were answered with 200, those that arrived at each sink until nothing more came, and what the
collector itself counted as lost because a queue was full (`otelcol_exporter_enqueue_failed_spans`).

Run: `.venv/bin/python benchmarks/overload.py`, about eight minutes; `--exporters 3 --states slow` for some of it,
`--agent COMMAND` for another build of the agent. The Collector is built from its Go modules (tools/peers/collector) if
it is not there yet; `--alone` does without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]

import httptools  # noqa: E402 - found only now
import uvloop  # noqa: E402
import workload  # noqa: E402
from peers import golang  # noqa: E402
from process import Cores, Process, free_ports  # noqa: E402
from results import OTELCOL, OURS  # noqa: E402

from otelwp_agent.model.projections import count  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

SPANS = 100
"""A request."""
CAPACITY = 20_000
"""Spans a second that a sink takes."""
RATE = 2 * CAPACITY
"""Spans a second that are offered."""
CONNECTIONS = 16
SECONDS = 6.0
"""Of load."""
BACK_OFF = 0.05
"""Seconds before a connection that was refused sends again; real senders wait for `Retry-After`, a second at least."""
SLOWNESS = 3
"""A slow sink takes this part of `CAPACITY`, and answers"""
DELAY = 0.3
"""… so many seconds later."""
QUIET = 4.0
"""Seconds without anything new at any sink after which everything has arrived; a batch may take 1.2 s in a slow one."""
LONGEST = 60.0
"""Seconds until then at most."""
ISOLATE_AFTER = "2s"
"""In our agent's configuration, so that six seconds show what isolation does; the default is 5s."""
STATES = ("equal", "slow", "hung", "refusing")
EXPORTERS = (1, 3, 6)

_HEAD = b"HTTP/1.1 %s\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
OK, UNAVAILABLE = _HEAD % b"200 OK", _HEAD % b"503 Service Unavailable"


class Sink:
    """One backend: when it answers, and what came to it."""

    def __init__(self, state: str) -> None:
        """Be in one of `STATES`."""
        self.state = state
        self.rate = CAPACITY / (SLOWNESS if state == "slow" else 1)
        self.delay = DELAY if state == "slow" else 0.0
        self.free_at = 0.0
        self.spans = 0

    def take(self, body: bytes, transport: asyncio.Transport) -> None:
        """Answer a request when its turn has come, and count what it held."""
        if self.state == "hung":
            return
        if self.state == "refusing":
            transport.write(UNAVAILABLE)
            return
        spans = count(Signal.TRACES, body)
        loop = asyncio.get_running_loop()
        self.free_at = max(loop.time(), self.free_at) + spans / self.rate
        loop.call_at(self.free_at + self.delay, self._answer, spans, transport)

    def _answer(self, spans: int, transport: asyncio.Transport) -> None:
        if not transport.is_closing():
            self.spans += spans
            transport.write(OK)


class SinkProtocol(asyncio.Protocol):
    """One connection to a sink."""

    def __init__(self, sink: Sink, sinks: Sequence[Sink]) -> None:
        """Hand requests to `sink`; `GET` returns the counts of all of them."""
        self.sink = sink
        self.sinks = sinks
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Read a part of the body."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """Answer."""
        body, self.body = b"".join(self.body), []
        if self.parser.get_method() == b"GET":
            text = json.dumps([sink.spans for sink in self.sinks]).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
        else:
            self.sink.take(body, self.transport)


async def serve(states: Sequence[str]) -> None:
    """Serve a sink for each of `states` until the process is ended; print their ports."""
    sinks = [Sink(state) for state in states]
    loop = asyncio.get_running_loop()
    ports = []
    for sink in sinks:
        server = await loop.create_server(lambda sink=sink: SinkProtocol(sink, sinks), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


async def load(port: int) -> Counter[str]:
    """Send requests at `RATE` for `SECONDS`; return how many were answered with each status."""
    bodies = workload.bodies(SPANS)
    head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n"
    requests = [head.format(len(body)).encode() + body for body in bodies]
    statuses: Counter[str] = Counter()
    pause = CONNECTIONS * SPANS / RATE
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS

    async def sender(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = loop.time() + pause * number / CONNECTIONS
        place = number
        while due < end:
            await asyncio.sleep(due - loop.time())
            writer.write(requests[place % len(requests)])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            status = answer[9:12].decode()
            statuses[status] += 1
            due += pause
            if status != "200":
                due = max(due, loop.time() + BACK_OFF)
            place += CONNECTIONS
        writer.close()

    await asyncio.gather(*(sender(number) for number in range(CONNECTIONS)))
    return statuses


def exporters(sinks: Sequence[int], extra: str) -> str:
    """Return the exporters' part of a configuration, in YAML."""
    lines = [f"  otlp_http/{n}: {{endpoint: 'http://127.0.0.1:{port}'{extra}}}" for n, port in enumerate(sinks)]
    return "exporters:\n" + "\n".join(lines)


def pipeline(exporters: int) -> str:
    """Return the pipeline, in YAML."""
    names = ", ".join(f"otlp_http/{n}" for n in range(exporters))
    return f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:${{env:BENCH_HTTP_PORT}}"}}}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 1024}}
  batch:
service:
  pipelines: {{traces: {{receivers: [otlp], processors: [memory_limiter, batch], exporters: [{names}]}}}}
"""


def ours(sinks: Sequence[int]) -> str:
    """Return our agent's configuration."""
    queue = f", compression: none, sending_queue: {{isolate_after: {ISOLATE_AFTER}}}"
    metrics = "  telemetry: {metrics: {address: '127.0.0.1:${env:BENCH_METRICS_PORT}'}}\n"
    return exporters(sinks, queue) + pipeline(len(sinks)) + metrics


def theirs(sinks: Sequence[int]) -> str:
    """Return the Collector's configuration."""
    reader = "{pull: {exporter: {prometheus: {host: 127.0.0.1, port: '${env:BENCH_METRICS_PORT}'}}}}"
    metrics = f"  telemetry: {{metrics: {{readers: [{reader}]}}}}\n"
    text = exporters(sinks, ", compression: none") + pipeline(len(sinks)) + metrics
    return text.replace("otlp_http", "otlphttp")


@dataclass
class Outcome:
    """Result of one load."""

    collector: str
    exporters: int
    state: str
    statuses: Counter[str]
    arrived: list[int]
    """Spans, by sink; the first is the one in the state."""
    lost: int
    """Spans that the collector counted as lost because a queue was full."""
    peak_mb: float

    @property
    def accepted(self) -> int:
        """Spans that were answered with 200."""
        return self.statuses["200"] * SPANS

    def cells(self) -> list[str]:
        """Return a row of the table."""
        refused = sum(requests for status, requests in self.statuses.items() if status != "200")
        well = self.arrived if self.state == "equal" else self.arrived[1:]
        missing = [f"{100 * (1 - min(self.accepted, spans) / self.accepted):.1f} %" for spans in well]
        odd = "" if self.state == "equal" else f"{self.arrived[0]:,}"
        return [
            str(self.exporters),
            self.state,
            self.collector,
            f"{self.accepted:,}",
            f"{refused:,}",
            max(missing, default=""),
            odd,
            f"{self.lost:,}",
            f"{self.peak_mb:.0f} MB",
        ]


def measure(collector: str, command: list[str], config: str, ports: list[int], state: str) -> Outcome:
    """Start a collector, load it, wait until everything has arrived, and stop it."""
    http_port, metrics_port = free_ports(2)
    cores = Cores.divide()
    env = os.environ | {"BENCH_HTTP_PORT": str(http_port), "BENCH_METRICS_PORT": str(metrics_port)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(config, "utf-8")
        process = Process([*command, f"--config={file}"], env, Path(folder) / "log", cores)
        try:
            process.wait_listening([http_port])
            statuses = uvloop.run(load(http_port))
            arrived = settle(ports)
            lost = metric(metrics_port, "otelcol_exporter_enqueue_failed_spans")
            peak = process.peak_rss_mb()
        finally:
            process.kill()
    return Outcome(collector, len(ports), state, statuses, arrived, lost, peak)


def settle(ports: list[int]) -> list[int]:
    """Wait until nothing more comes; return what came to each sink."""
    last, since, end = counts(ports), time.monotonic(), time.monotonic() + LONGEST
    while time.monotonic() < min(end, since + QUIET):
        time.sleep(0.2)
        now = counts(ports)
        if now != last:
            last, since = now, time.monotonic()
    return last


def counts(ports: list[int]) -> list[int]:
    """Return the spans that came to each sink."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/", timeout=10) as response:
        return cast("list[int]", json.load(response))


def metric(port: int, name: str) -> int:
    """Return the sum of a counter over all its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    values = re.findall(rf"^{name}(?:_total)?(?:{{.*}})? (\S+)", text, re.MULTILINE)
    return int(sum(map(float, values)))


def table(outcomes: Sequence[Outcome]) -> str:
    """Return it as Markdown."""
    heads = (
        *("exporters", "one sink is", "", "spans answered 200", "requests refused", "missing at the other sinks"),
        *("arrived at that sink", "counted as lost", "peak memory"),
    )
    lines = [f"| {' | '.join(heads)} |", "|---:|---|---|---:|---:|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(outcome.cells())} |" for outcome in outcomes]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--exporters", type=int, nargs="+", default=EXPORTERS)
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES)
    parser.add_argument("--alone", action="store_true", help="without the Collector")
    parser.add_argument(
        "--agent", default=str(Path(sys.executable).parent / "otelwp-agent"), help="the agent's command"
    )
    parser.add_argument("--sinks", nargs="+", choices=STATES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sinks:
        uvloop.run(serve(options.sinks))
        return
    outcomes: list[Outcome] = []
    for number in options.exporters:
        for state in options.states:
            for collector in (OURS,) if options.alone else (OURS, OTELCOL):
                print(f"{number} exporters, {state}, {collector}", file=sys.stderr, flush=True)
                command = [*options.agent.split(), "run"] if collector == OURS else [str(golang.collector())]
                states = [state, *["equal"] * (number - 1)]
                sinks = subprocess.Popen([sys.executable, __file__, "--sinks", *states], stdout=subprocess.PIPE)
                try:
                    assert sinks.stdout is not None
                    ports = json.loads(sinks.stdout.readline())
                    config = ours(ports) if collector == OURS else theirs(ports)
                    outcomes.append(measure(collector, command, config, ports, state))
                finally:
                    sinks.kill()
                    sinks.wait()
                print(outcomes[-1], file=sys.stderr, flush=True)
    print(table(outcomes))


if __name__ == "__main__":
    main()
