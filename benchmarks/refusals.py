"""Measure the cost of a refusal: CPU microseconds of the agent's process for each refused HTTP request.

The pipeline is `otlp (HTTP) → batch → otlp_http` with a backend that never answers. `batch` keeps the requests of each
tenant apart (`metadata_keys`), so that as many groups wait as there are tenants. When the queue and `batch` are full,
requests of one span are sent on 16 connections, each with the next tenant's header, and answered with 429.

Run: `.venv/bin/python benchmarks/refusals.py`, about half a minute; `--agent COMMAND` for another build of the agent.
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
from collections import Counter
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

import uvloop
import workload
from process import Cores, Process, free_ports

TENANTS = (1, 100, 1000)
CONNECTIONS = 16
REQUESTS = 10_000
"""Refused in a round."""
ROUNDS = 3
FILLING = 30
"""Spans in each of the requests that fill the queue and the groups."""
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:${env:BENCH_HTTP_PORT}"}}}}
processors: {batch: {metadata_keys: [x-tenant], metadata_cardinality_limit: 2000, send_batch_size: 20}}
exporters: {otlp_http: {endpoint: "http://127.0.0.1:${env:BENCH_SINK}", timeout: 1h}}
service: {pipelines: {traces: {receivers: [otlp], processors: [batch], exporters: [otlp_http]}}}
"""


def request(body: bytes, tenant: int) -> bytes:
    """Return an HTTP request."""
    head = f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-tenant: {tenant}\r\ncontent-type: application/x-protobuf\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def send(port: int, requests: list[bytes], number: int) -> Counter[str]:
    """Send `number` of the requests, in turn; return how many were answered with each status."""
    statuses: Counter[str] = Counter()
    left = iter(range(number))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for place in left:
            writer.write(requests[place % len(requests)])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            statuses[answer[9:12].decode()] += 1
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return statuses


def measure(agent: list[str], tenants: int, sink: int, cores: Cores) -> tuple[float, Counter[str]]:
    """Return CPU microseconds a refused request, and the statuses of what was measured."""
    (port,) = free_ports(1)
    env = os.environ | {"BENCH_HTTP_PORT": str(port), "BENCH_SINK": str(sink)}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG, "utf-8")
        process = Process([*agent, "run", f"--config={config}"], env, Path(folder) / "log", cores)
        try:
            process.wait_listening([port])
            large, small = workload.bodies(FILLING)[0], workload.bodies(1)[0]
            for _ in range(3):  # the queue, then each group's blocked batch, then what it collects besides
                uvloop.run(send(port, [request(large, tenant) for tenant in range(tenants)], max(2000, tenants)))
            requests = [request(small, tenant) for tenant in range(tenants)]
            costs = []
            for _ in range(ROUNDS):
                before = process.cpu_seconds()
                statuses = uvloop.run(send(port, requests, REQUESTS))
                costs.append((process.cpu_seconds() - before) / REQUESTS * 1e6)
        finally:
            process.kill()
    return median(costs), statuses


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--agent", default=str(Path(sys.executable).parent / "otelwp-agent"), help="the agent's command"
    )
    parser.add_argument("--tenants", type=int, nargs="+", default=TENANTS)
    options = parser.parse_args()
    overload = Path(__file__).parent / "overload.py"
    sinks = subprocess.Popen([sys.executable, overload, "--sinks", "hung"], stdout=subprocess.PIPE)
    try:
        assert sinks.stdout is not None
        (sink,) = json.loads(sinks.stdout.readline())
        print("| tenants | CPU a refusal | answers |\n|---:|---:|---|")
        for tenants in options.tenants:
            started = time.monotonic()
            cost, statuses = measure(options.agent.split(), tenants, sink, Cores.divide())
            print(f"| {tenants} | {cost:.1f} µs | {dict(statuses)} |", flush=True)
            print(f"{time.monotonic() - started:.1f} s", file=sys.stderr)
    finally:
        sinks.kill()
        sinks.wait()


if __name__ == "__main__":
    main()
