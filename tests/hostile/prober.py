"""Measure the duration of requests in a separate process, during an attack on the server that answers them.

Each probe sends one request, about every `PAUSE` seconds, on a connection that stays open or on a new one each time.
The separate process is not delayed by the attacker's work. It prints its measurements when its stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOK = 0.05
"""Seconds between two checks of how long the agent's threads have waited for a processor."""
PAUSE = 0.02
"""Seconds between two requests of a probe."""
PATIENCE = 12.0
"""Seconds after which the prober stops waiting for an answer."""


@dataclass(frozen=True)
class Probe:
    """A repeated request: `request` is sent unchanged, on a new connection each time if `fresh` is set."""

    name: str
    port: int
    request: str
    fresh: bool = False


@dataclass(frozen=True)
class Sample:
    """One answer: time of the request, duration (seconds), and status; 0 if there was none."""

    probe: str
    began: float
    took: float
    status: int


@dataclass(frozen=True)
class Wait:
    """Time in seconds, by thread, that the threads of a process have waited for a processor until `at`."""

    at: float
    waited: dict[str, float]


class Prober:
    """Measures from `__enter__` until `stop`, and observes the threads of the process `pid`."""

    def __init__(self, probes: list[Probe], pid: int) -> None:
        self._probes = probes
        self._pid = pid

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process.stdin.write(json.dumps([self._pid, [vars(each) for each in self._probes]]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "measuring\n"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def stop(self) -> tuple[list[Sample], list[Wait]]:
        """Wait for the pending answers; return all measurements."""
        self._process.stdin.close()
        samples, waits = json.loads(self._process.stdout.read())
        return [Sample(*each) for each in samples], [Wait(*each) for each in waits]


async def _measure(probe: Probe, samples: list[Sample], ended: asyncio.Event) -> None:
    streams = None
    while not ended.is_set():
        began, status = time.monotonic(), 0
        try:
            async with asyncio.timeout(PATIENCE):
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", probe.port)
                status, keep = await _ask(*streams, probe.request)
        except (OSError, TimeoutError, EOFError, ValueError):
            keep = False
        samples.append(Sample(probe.name, began, time.monotonic() - began, status))
        if streams is not None and (probe.fresh or not keep):
            streams[1].transport.abort()
            streams = None
        try:
            async with asyncio.timeout(PAUSE):
                await ended.wait()
        except TimeoutError:
            continue
    if streams is not None:
        streams[1].transport.abort()


async def _watch(pid: int, waits: list[Wait]) -> None:
    while True:
        waited = {}
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread that has ended
                waited[path.parent.name] = int(path.read_text("ascii").split()[1]) / 1e9
        waits.append(Wait(time.monotonic(), waited))
        await asyncio.sleep(LOOK)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> tuple[int, bool]:
    """Send one request; return the status and whether the connection stays open."""
    writer.write(request.encode("latin-1"))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), b"connection: close" not in head


async def _main() -> None:
    loop = asyncio.get_running_loop()
    pid, named = json.loads(sys.stdin.readline())
    probes = [Probe(**each) for each in named]
    samples: list[Sample] = []
    waits: list[Wait] = []
    watching = asyncio.create_task(_watch(pid, waits))
    ended = asyncio.Event()
    tasks = [asyncio.create_task(_measure(each, samples, ended)) for each in probes]
    while len({each.probe for each in samples}) < len(probes):
        await asyncio.sleep(PAUSE)
    sys.stdout.write("measuring\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    ended.set()
    await asyncio.gather(*tasks)
    await asyncio.sleep(LOOK)
    watching.cancel()
    sys.stdout.write(json.dumps([[list(vars(each).values()) for each in found] for found in (samples, waits)]))


if __name__ == "__main__":
    asyncio.run(_main())
