"""Measure the tenant directory with many API keys: start-up, memory, lookups, key checks and the delay of a change.

    python benchmarks/control/directory.py [--keys 100000] [--tenants 50000] [--url postgresql://…]

The store is filled in another process, so that memory is that of the directory alone. CPU times are of the process; the
event loop is watched with a timer while the directory is loaded and refreshed.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import insert, update

from otelwp_agent.control import api_keys
from otelwp_agent.control.api_keys import Hasher
from otelwp_agent.control.directory import TenantDirectory
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys as key_operations
from otelwp_agent.control.refresh import Refresher
from otelwp_agent.control.store import Store
from otelwp_agent.control.store_thread import StoreThread
from otelwp_agent.control.tables import KEYS, STATE, TENANTS

if TYPE_CHECKING:
    from collections.abc import Callable

PEPPER = b"p" * 32
INTERVAL = 0.25
ROUNDS = 200_000
CHANGES = 20


def fill(url: str, keys: int, tenants: int) -> str:
    """Fill the store, and return one of its keys."""
    store, hasher, now = Store(url), Hasher(PEPPER), datetime.now(UTC)
    store.migrate()
    credential = api_keys.generate(hasher)
    with store.write() as connection:
        for start in range(0, tenants, 5000):
            rows = [
                {
                    "id": f"tenant-{number}",
                    "name": f"Tenant {number}",
                    "plan": "pro",
                    "status": "active",
                    "attributes": {},
                    "created": now,
                    "changed": 2,
                }
                for number in range(start, min(tenants, start + 5000))
            ]
            connection.execute(insert(TENANTS), rows)
        for start in range(0, keys, 5000):
            rows = []
            for number in range(start, min(keys, start + 5000)):
                credential = api_keys.generate(hasher)
                rows.append(
                    {
                        "id": credential.id,
                        "tenant": f"tenant-{number % tenants}",
                        "name": "default",
                        "hash": credential.hash,
                        "scopes": "ingest heartbeat",
                        "created": now,
                        "changed": 2,
                    }
                )
            connection.execute(insert(KEYS), rows)
        connection.execute(update(STATE).values(version=2))
    store.close()
    return credential.text


class LoopWatch:
    """Measures how long the event loop was blocked."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.perf_counter() - began - 0.001)

    def take(self) -> float:
        """Return the longest block in seconds since the last call."""
        worst, self.worst = self.worst, 0.0
        return worst


def resident() -> float:
    """Return the resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 1e6


def cpu(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the CPU time of one call in µs, the best of three runs."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for _ in range(rounds):
            call()
        best = min(best, time.process_time() - began)
    return best / rounds * 1e6


async def measure(url: str, text: str) -> None:
    """Print the measurements."""
    thread, directory = StoreThread(Store(url)), TenantDirectory(Hasher(PEPPER))
    refresher = Refresher(thread, directory, INTERVAL, clock=time.monotonic, log=structlog.get_logger())
    await thread.open()
    watch, before, began = LoopWatch(), resident(), time.perf_counter()
    await asyncio.sleep(0.01)
    watch.take()
    await refresher.load()
    print(f"start-up             {time.perf_counter() - began:8.2f} s")
    print(f"memory               {resident() - before:8.1f} MB for {len(directory.current.keys)} keys")
    print(f"loop blocked, load   {watch.take() * 1e3:8.1f} ms at most")
    refresher.start()
    writer = StoreThread(Store(url))
    delays, old = [], directory.current
    id_ = api_keys.parse(text) or ""
    tenant = old.key(id_).tenant.id  # type: ignore[union-attr]
    for _ in range(CHANGES):
        began = time.perf_counter()
        version = directory.version
        created = await writer.write(
            lambda connection: key_operations.create_key(
                connection, Actor("bench"), directory.hasher, tenant, name="new"
            )
        )
        await writer.write(
            lambda connection, id_=created.key.id: key_operations.revoke_key(connection, Actor("bench"), id_)
        )
        while directory.version == version or created.key.id in directory.current.keys:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.002)
        delays.append(time.perf_counter() - began)
    delays.sort()
    print(f"change visible       {delays[len(delays) // 2]:8.3f} s median, {delays[-1]:.3f} s at most")
    print(f"loop blocked, change {watch.take() * 1e3:8.1f} ms at most")
    await refresher.stop()
    await writer.close()
    await thread.close()

    now = time.time()
    assert directory.check(text, now).entry is not None
    wrong = text[:-9] + "aaaaaaaaa"
    print(f"lookup               {cpu(lambda: directory.current.keys.get(id_)):8.2f} µs CPU")
    print(f"lookup and unpack    {cpu(lambda: directory.current.key(id_)):8.2f} µs CPU")
    print(f"key check            {cpu(lambda: directory.check(text, now)):8.2f} µs CPU")
    print(f"wrong checksum       {cpu(lambda: directory.check(wrong, now)):8.2f} µs CPU")


def main() -> None:
    """Fill a store in another process and measure."""
    parser = argparse.ArgumentParser(description="Measure the tenant directory.")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=50_000)
    parser.add_argument("--url", default="", help="an empty database; default: a temporary SQLite file")
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        print(fill(options.url, options.keys, options.tenants))
        return
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{folder}/control.db"
        command = [sys.executable, __file__, "--fill", "--url", url]
        command += ["--keys", str(options.keys), "--tenants", str(options.tenants)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        asyncio.run(measure(url, text))


if __name__ == "__main__":
    main()
