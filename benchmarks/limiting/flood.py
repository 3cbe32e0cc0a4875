"""Flood an agent with one tenant at 100 times its limit, and measure the response times of 999 others and the CPU.

The agent has `bearertokenauth` with 1 000 tokens and a `rate_limiter` with a rate for each. The tokens stand for
tenants. Quiet and flooded periods alternate in one run, so that other load on the machine affects both. Response times
are measured from the time at which a request was due (Poisson arrivals), so a late sender does not hide a slow server.
The flood comes from another process. All processes have a real-time priority if the user may give it (root), so that
other work on the machine delays none of them.

At the end, the CPU of refused requests is measured separately, in rounds that alternate with accepted requests and with
a server that answers at once (bare_server.py): the difference is what the agent adds to the kernel and uvloop.

Run: `sudo .venv/bin/python benchmarks/limiting/flood.py`, about two minutes. `--baseline DIR` measures the CPU of the
agent of another checkout, which has a .venv, in the same rounds. With `--plot` it draws
docs/images/rate-limiting-flood.png, for which matplotlib must be installed (`pip install matplotlib`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop
import workload
from process import Cores, Process, free_ports

Results = multiprocessing.SimpleQueue  # of one dictionary
HERE = Path(__file__).parent
PICTURE = HERE.parents[1] / "docs/images/rate-limiting-flood.png"
TENANTS = 1000
LIMIT = 5
"""Requests per second of each tenant."""
FLOOD = 100 * LIMIT
"""Requests per second of the flooding tenant."""
OTHERS = 400
"""Requests per second of all other tenants together."""
CONNECTIONS = 16
"""Connections of the flooding tenant."""
PERIOD = 6.0
"""Seconds of a quiet or flooded period."""
SETTLE = 0.5
"""Seconds at the beginning of a period that are not measured."""
COSTS = 10_000
"""Requests whose CPU is measured in a round."""
ROUNDS = 9
"""Rounds of this measurement."""
PRIORITY = 20
"""Real-time priority of all processes (SCHED_FIFO)."""
CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: "127.0.0.1:${env:BENCH_HTTP_PORT}"
        auth: {authenticator: bearertokenauth}
        middlewares: [{id: rate_limiter}]
extensions:
  bearertokenauth: {filename: "${env:BENCH_TOKENS}"}
  rate_limiter: {limits: [{key: credential, requests_per_second: "${env:BENCH_LIMIT}", burst: 20}]}
processors: {batch: }
exporters: {otlp_http: {endpoint: "http://127.0.0.1:${env:BENCH_SINK}"}}
service:
  extensions: [bearertokenauth, rate_limiter]
  tier: enterprise
  telemetry: {metrics: {address: none}}
  scheduling: normal # the shared machine of a benchmark has other work, which must not delay the agent
  pipelines: {traces: {receivers: [otlp], processors: [batch], exporters: [otlp_http]}}
"""


def request(tenant: int, body: bytes) -> bytes:
    """Return an HTTP request of a tenant."""
    head = f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token-{tenant:04}\r\n"
    return f"{head}content-type: application/x-protobuf\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A connection that may send requests before earlier ones are answered; `answered` gets (due, status)."""

    def __init__(self, answered: list[tuple[float, float, int]]) -> None:
        """Append (time when it was due, seconds, status) to `answered` for each response."""
        self._answered = answered
        self._due: deque[float] = deque()
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def send(self, data: bytes, due: float) -> None:
        """Send a request that was due at `due`."""
        assert self._transport is not None
        self._due.append(due)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Read the responses."""
        self._data += data
        now = time.perf_counter()
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.index(b"content-length:") + 15
            length = int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else end])
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            due = self._due.popleft()
            self._answered.append((due, now - due, int(head[9:12])))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


async def connect(port: int, number: int, answered: list[tuple[float, float, int]]) -> list[Connection]:
    """Open so many connections."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port))[1] for _ in range(number)]


async def send_due(times: list[tuple[float, int]], connections: list[Connection], requests: list[bytes]) -> None:
    """Send request `n` on connection `n` at each (time, n)."""
    for due, number in times:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        connections[number].send(requests[number], due)


async def others(port: int, began: float, seconds: float) -> list[tuple[float, float, int]]:
    """Send the requests of the tenants that keep to their limits; return (due, seconds, status) of each."""
    answered: list[tuple[float, float, int]] = []
    body, dice = workload.bodies(1)[0], random.Random(3)
    requests = [request(tenant, body) for tenant in range(1, TENANTS)]
    connections = await connect(port, len(requests), answered)
    times: list[tuple[float, int]] = []
    rate = OTHERS / len(requests)
    for number in range(len(requests)):
        due = began + dice.expovariate(rate)
        while due < began + seconds:
            times.append((due, number))
            due += dice.expovariate(rate)
    times.sort()
    await send_due(times, connections, requests)
    await asyncio.sleep(1)  # the last responses
    for each in connections:
        each.close()
    return answered


async def flood(port: int, began: float, periods: list[tuple[float, float]], rate: int) -> dict[int, int]:
    """Send the requests of the flooding tenant in each of the periods; return the number of answers by status."""
    answered: list[tuple[float, float, int]] = []
    connections = await connect(port, CONNECTIONS, answered)
    requests = [request(0, workload.bodies(1)[0])] * CONNECTIONS
    times = [
        (began + begin + number / rate, number % CONNECTIONS)
        for begin, end in periods
        for number in range(int((end - begin) * rate))
    ]
    await send_due(times, connections, requests)
    await asyncio.sleep(1)  # the last responses
    for each in connections:
        each.close()
    statuses: dict[int, int] = {}
    for _, _, status in answered:
        statuses[status] = statuses.get(status, 0) + 1
    return statuses


async def as_fast_as_possible(port: int, requests: list[bytes]) -> dict[bytes, int]:
    """Send the requests, one at a time on each connection; return the number of answers by status."""
    left, statuses = iter(requests), dict.fromkeys((b"200", b"429"), 0)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for data in left:
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.index(b"content-length:") + 15
            await reader.readexactly(int(head[at : head.index(b"\r", at)]))
            statuses[head[9:12]] += 1
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return statuses


def cost(server: Process, port: int, requests: list[bytes], status: bytes) -> float:
    """Return the CPU time of the server for each request in microseconds.

    Raises `RuntimeError` if less than 95 % of the requests have the answer `status`.
    """
    before = server.cpu_seconds()
    statuses = uvloop.run(as_fast_as_possible(port, requests))
    if statuses[status] < 0.95 * len(requests):
        message = f"not {status.decode()}, but {statuses}"
        raise RuntimeError(message)
    return (server.cpu_seconds() - before) / len(requests) * 1e6


def costs(servers: dict[str, tuple[Process, int]]) -> None:
    """Measure the CPU of refused and accepted requests in alternating rounds, and print a table."""
    body = workload.bodies(1)[0]
    refused, accepted = [request(0, body)] * COSTS, [request(1 + n % (TENANTS - 1), body) for n in range(COSTS)]
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, (server, port) in servers.items():
            found.setdefault(f"{name}, refused", []).append(cost(server, port, refused, b"429"))
            if name != BARE:
                found.setdefault(f"{name}, accepted", []).append(cost(server, port, accepted, b"200"))
    print("\n| CPU of a request, one span | lowest | median |\n|---|---:|---:|")
    for name, values in found.items():
        print(f"| {name} | {min(values):.1f} µs | {median(values):.1f} µs |")


BARE = "server that answers at once"


def _flood(port: int, began: float, periods: list[tuple[float, float]], results: Results) -> None:
    os.nice(5)  # the flood must not delay the process that measures
    results.put(uvloop.run(flood(port, began, periods, FLOOD)))


def percentile(values: list[float], part: float) -> float:
    """Return a percentile in milliseconds."""
    ordered = sorted(values)
    return 1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def main() -> None:
    """Print the figures, and draw them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--periods", type=int, default=5, help="quiet and flooded periods, of each so many")
    parser.add_argument("--plot", action="store_true", help="draw docs/images/rate-limiting-flood.png")
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="also measure the CPU of another checkout's agent")
    options = parser.parse_args()
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    cores = Cores.divide()
    sink = subprocess.Popen([sys.executable, HERE.parent / "sink.py"], stdout=subprocess.PIPE)
    try:
        assert sink.stdout is not None
        sink_port = int(sink.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), sink_port, cores, options)
    finally:
        sink.kill()
        sink.wait()


def start(checkout: Path, folder: Path, sink_port: int, cores: Cores) -> tuple[Process, int]:
    """Start the agent of a checkout; return it and its port."""
    (port,) = free_ports(1)
    (folder / "tokens").write_text("".join(f"token-{tenant:04}\n" for tenant in range(TENANTS)))
    (folder / "config.yaml").write_text(CONFIG)
    env = os.environ | {
        "BENCH_HTTP_PORT": str(port),
        "BENCH_SINK": str(sink_port),
        "BENCH_LIMIT": str(LIMIT),
        "BENCH_TOKENS": str(folder / "tokens"),
    }
    command = [str(checkout / ".venv/bin/otelwp-agent"), "run", f"--config={folder / 'config.yaml'}"]
    return Process(command, env, folder / f"log-{port}", cores), port


def run(folder: Path, sink_port: int, cores: Cores, options: argparse.Namespace) -> None:
    """Measure the response times with one agent, then the CPU of all servers."""
    servers = {"this checkout": start(HERE.parents[1], folder, sink_port, cores)}
    try:
        agent, port = servers["this checkout"]
        agent.wait_listening([port])
        flooded = [((2 * number + 1) * PERIOD, (2 * number + 2) * PERIOD) for number in range(options.periods)]
        answered, statuses, began = response_times(port, flooded)
        report(answered, began, statuses)
        if options.plot:
            plot(answered, began, flooded)
        if options.baseline is not None:
            servers["baseline"] = start(options.baseline, folder, sink_port, cores)
        (bare,) = free_ports(1)
        command = [sys.executable, str(HERE / "bare_server.py"), str(bare)]
        servers[BARE] = Process(command, os.environ, folder / "bare", cores), bare
        for server, at in servers.values():
            server.wait_listening([at])
        costs(servers)
    finally:
        for server, _ in servers.values():
            server.kill()


def response_times(
    port: int, flooded: list[tuple[float, float]]
) -> tuple[list[tuple[float, float, int]], dict[int, int], float]:
    """Return the answers to the other tenants, the number of answers to the flood by status, and the start time."""
    results: Results = multiprocessing.SimpleQueue()
    began = time.perf_counter() + 3  # the senders connect first
    process = multiprocessing.Process(target=_flood, args=(port, began, flooded, results))
    process.start()
    answered = uvloop.run(others(port, began, flooded[-1][1]))
    statuses = results.get()
    process.join()
    return answered, statuses, began


def report(answered: list[tuple[float, float, int]], began: float, statuses: object) -> None:
    """Print a table with the percentiles, and the ratios of each quiet period and the flooded one after it."""
    by_period: dict[int, list[float]] = {}
    for due, took, _ in answered:
        at = due - began
        if at % PERIOD >= SETTLE:
            by_period.setdefault(int(at // PERIOD), []).append(took)
    pairs = [(by_period[each], by_period[each + 1]) for each in sorted(by_period)[:-1:2]]
    print("| the other tenants | p50 | p90 | p99 |\n|---|---:|---:|---:|")
    parts = (0.5, 0.9, 0.99)
    for place, name in enumerate(("quiet", "flooded")):
        values = [took for pair in pairs for took in pair[place]]
        print(f"| {name} | " + " | ".join(f"{percentile(values, part):.2f} ms" for part in parts) + " |")
    cells = []
    for part in parts:
        ratios = [percentile(flooded, part) / percentile(quiet, part) for quiet, flooded in pairs]
        cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"| ratio: median of {len(pairs)} pairs of periods (lowest to highest) | " + " | ".join(cells) + " |\n")
    refusals = sum(status != 200 for _, _, status in answered)
    print(f"other tenants: {len(answered)} requests, {refusals} refused; flooding tenant, by status: {statuses}")


def plot(answered: list[tuple[float, float, int]], began: float, flooded: list[tuple[float, float]]) -> None:
    """Draw the response times of the other tenants, by second."""
    import matplotlib as mpl  # noqa: PLC0415 - not a dependency

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    by_second: dict[int, list[float]] = {}
    for due, took, _ in answered:
        by_second.setdefault(int(due - began), []).append(took)
    figure, axes = plt.subplots(figsize=(10, 4), constrained_layout=True)
    axes.set_title(f"{TENANTS - 1} tenants within their limits while one sends {FLOOD // LIMIT} times its limit")
    seconds = sorted(by_second)
    for part, color, name in ((0.99, "tab:red", "99th percentile"), (0.5, "tab:blue", "median")):
        axes.plot(
            [at + 0.5 for at in seconds], [percentile(by_second[at], part) for at in seconds], color=color, label=name
        )
    for begin, end in flooded:
        label = "flood" if begin == flooded[0][0] else None
        axes.axvspan(begin, end, color="0.85", zorder=0, label=label)
    axes.set_ylim(0, 1.25 * max(percentile(values, 0.99) for values in by_second.values()))
    axes.set_ylabel("response time in each second, ms")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, seconds[-1] + 1)
    axes.legend(loc="upper right", frameon=False, ncols=3)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    print(f"drawn: {PICTURE}")


if __name__ == "__main__":
    main()
