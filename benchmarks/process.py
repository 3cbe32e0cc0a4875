"""A measured process: started on a separate core, with figures from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TICKS = os.sysconf("SC_CLK_TCK")

START_SECONDS = 20.0
"""Seconds that a collector may take until it listens."""


@dataclass(frozen=True)
class Cores:
    """Cores for the collector, and cores for everything else."""

    collector: frozenset[int]
    others: frozenset[int]

    @classmethod
    def divide(cls) -> Cores:
        """Use the last core for the collector, the others for load and sink; if there is only one core, share it."""
        available = sorted(os.sched_getaffinity(0))
        return cls(frozenset(available[-1:]), frozenset(available[:-1] or available))


class Process:
    """A child process and its descendants."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path, cores: Cores) -> None:
        """Start `command` on the collector's core, with its output in `log`."""
        os.sched_setaffinity(0, cores.collector)  # a child inherits it before it can make a thread
        try:
            with log.open("wb") as output:
                self.started = time.monotonic()
                self._child = subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        finally:
            os.sched_setaffinity(0, cores.others)
        self.log = log

    def wait_listening(self, ports: Sequence[int]) -> float:
        """Wait until all `ports` accept connections; return seconds since the start."""
        for port in ports:
            while not _connects(port):
                if self._child.poll() is not None:
                    message = f"the collector ended with status {self._child.returncode}:\n{self.log.read_text()}"
                    raise RuntimeError(message)
                if time.monotonic() - self.started > START_SECONDS:
                    message = f"nothing listens on port {port} after {START_SECONDS} s:\n{self.log.read_text()}"
                    raise RuntimeError(message)
                time.sleep(0.002)
        return time.monotonic() - self.started

    def cpu_seconds(self) -> float:
        """Return user and system CPU time of the process and its descendants, running or ended."""
        total = 0
        for pid in self._pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            total += sum(int(field) for field in fields[11:15])
        return total / TICKS

    def rss_mb(self) -> float:
        """Return the resident memory of the process and its descendants, in MB (10⁶ bytes)."""
        return self._memory("VmRSS:")

    def pss_mb(self) -> float:
        """Return the resident memory in MB, with shared memory divided among the processes that share it (PSS)."""
        kib = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
        return kib * 1024 / 1e6

    def peak_rss_mb(self) -> float:
        """Return the peak of resident memory, in MB (10⁶ bytes)."""
        return self._memory("VmHWM:")

    def stop(self) -> None:
        """Stop the process with SIGTERM, and with SIGKILL if it does not stop."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def kill(self) -> None:
        """Kill the process."""
        self._child.kill()
        self._child.wait()

    def _memory(self, field: str) -> float:
        kib = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith(field):
                    kib += int(line.split()[1])
        return kib * 1024 / 1e6

    def _pids(self) -> Iterator[int]:
        pids = [self._child.pid]
        while pids:
            pid = pids.pop()
            yield pid
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text(encoding="ascii").split())


def free_ports(count: int) -> list[int]:
    """Return unused ports of loopback."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _connects(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
