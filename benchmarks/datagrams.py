"""Measure the cost of receiving one datagram from the kernel: CPU microseconds, best of several rounds.

Run: `.venv/bin/python benchmarks/datagrams.py`. It needs no peer and takes a few seconds.
"""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

import uvloop

from otelwp_agent.config.types import Endpoint
from otelwp_agent.transport.datagram import DatagramSocket

ROUNDS = 200
BURST = 64
"""Number of datagrams in the kernel before they are read; fewer if a unix socket cannot hold so many."""
SIZES = (600, 20_000)


async def measure(endpoint: str, size: int) -> float:
    """Return CPU microseconds per datagram of `size` bytes."""
    taken: list[int] = []
    receiver = DatagramSocket(
        Endpoint(endpoint),
        lambda data: taken.append(len(data)),
        taken.append,
        name="benchmark",
        limit=208 * 1024,
        receive_buffer=4 << 20,
    )
    receiver.start()
    unix, best = receiver.endpoint.unix, float("inf")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)  # noqa: FBT003 - the standard library's signature
        sender.connect(unix or ("127.0.0.1", receiver.port))
        for _ in range(ROUNDS):
            before = len(taken)
            try:
                for _ in range(BURST):
                    sender.send(b"x" * size)
            except BlockingIOError:
                pass
            start = time.process_time()
            receiver.read(1.0)
            best = min(best, (time.process_time() - start) / (len(taken) - before))
    receiver.shutdown()
    return best * 1e6


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        for name, endpoint in (("udp", "127.0.0.1:0"), ("unix", f"unix://{Path(folder) / 'a.dgram'}")):
            for size in SIZES:
                print(f"{name:6}{size:8} bytes {uvloop.run(measure(endpoint, size)):8.2f} us")


if __name__ == "__main__":
    main()
