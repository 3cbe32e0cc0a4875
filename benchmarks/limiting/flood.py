"""Flood an agent with one tenant at 100 times its limit, and measure the response times of 999 others and the CPU.

The agent has `bearertokenauth` with 1 000 tokens and a `rate_limiter` with a rate for each. The tokens stand for
tenants. Quiet and flooded periods alternate in one run, so that other load on the machine affects both. Response times
are measured from the time at which a request was due (Poisson arrivals), so a late sender does not hide a slow server.
The flood comes from another process. At the end, the CPU of refused requests is measured separately, and for comparison
that of accepted ones.

Run: `.venv/bin/python benchmarks/limiting/flood.py`, about two minutes. With `--plot` it draws
docs/images/rate-limiting-flood.png, for which matplotlib must be installed (`pip install matplotlib`).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

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
"""Requests whose CPU is measured, in each of three rounds; the lowest counts, because other work only adds to it."""
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


def cost(agent: Process, port: int, requests: list[bytes], status: bytes) -> float:
    """Return the CPU microseconds of the agent for each request; nearly all of them must be answered with `status`."""
    before = agent.cpu_seconds()
    statuses = uvloop.run(as_fast_as_possible(port, requests))
    if statuses[status] < 0.95 * len(requests):
        message = f"not {status.decode()}, but {statuses}"
        raise RuntimeError(message)
    return (agent.cpu_seconds() - before) / len(requests) * 1e6


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
    options = parser.parse_args()
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


def run(folder: Path, sink_port: int, cores: Cores, options: argparse.Namespace) -> None:
    """Measure one agent."""
    (port,) = free_ports(1)
    (folder / "tokens").write_text("".join(f"token-{tenant:04}\n" for tenant in range(TENANTS)))
    (folder / "config.yaml").write_text(CONFIG)
    env = os.environ | {
        "BENCH_HTTP_PORT": str(port),
        "BENCH_SINK": str(sink_port),
        "BENCH_LIMIT": str(LIMIT),
        "BENCH_TOKENS": str(folder / "tokens"),
    }
    command = [str(Path(sys.executable).parent / "otelwp-agent"), "run", f"--config={folder / 'config.yaml'}"]
    agent = Process(command, env, folder / "log", cores)
    try:
        agent.wait_listening([port])
        seconds = 2 * options.periods * PERIOD
        flooded = [((2 * number + 1) * PERIOD, (2 * number + 2) * PERIOD) for number in range(options.periods)]
        results: Results = multiprocessing.SimpleQueue()
        began = time.perf_counter() + 3  # the senders connect first
        process = multiprocessing.Process(target=_flood, args=(port, began, flooded, results))
        process.start()
        answered = uvloop.run(others(port, began, seconds))
        statuses = results.get()
        process.join()
        body = workload.bodies(1)[0]
        refused, accepted = [], []
        for _ in range(3):
            accepted.append(cost(agent, port, [request(1 + n % (TENANTS - 1), body) for n in range(COSTS)], b"200"))
            refused.append(cost(agent, port, [request(0, body)] * COSTS, b"429"))
    finally:
        agent.kill()
    report(answered, began, statuses)
    print(f"CPU of a request, one span: refused {min(refused):.1f} µs, accepted {min(accepted):.1f} µs")
    if options.plot:
        plot(answered, began, flooded)


def report(answered: list[tuple[float, float, int]], began: float, statuses: object) -> None:
    """Print a table."""
    by_period: dict[bool, list[float]] = {False: [], True: []}
    for due, took, _ in answered:
        at = due - began
        if at % PERIOD >= SETTLE:
            by_period[int(at // PERIOD) % 2 == 1].append(took)
    quiet, flooded = by_period[False], by_period[True]
    print("| the other tenants | p50 | p90 | p99 |\n|---|---:|---:|---:|")
    for name, values in (("quiet", quiet), ("flooded", flooded)):
        print(f"| {name} | " + " | ".join(f"{percentile(values, part):.2f} ms" for part in (0.5, 0.9, 0.99)) + " |")
    ratios = [percentile(flooded, part) / percentile(quiet, part) for part in (0.5, 0.9, 0.99)]
    print("| ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |\n")
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
