"""Keep the tenant directory up to date in the background.

SQLite is polled: the change counter is read every `interval` seconds. PostgreSQL sends notifications; while it cannot,
it is polled as well. While the store is unreachable, the directory stays as it is, and `error` has the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from otelwp_agent.control import snapshot
from otelwp_agent.control.directory import Directory
from otelwp_agent.control.errors import StoreError
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog
    from sqlalchemy import Connection

    from otelwp_agent.control.directory import TenantDirectory
    from otelwp_agent.control.listener import Listener
    from otelwp_agent.control.store_thread import StoreThread

LISTENING_INTERVAL = 5.0
"""Seconds between two polls while PostgreSQL notifies changes."""
CANCEL_AGAIN = 0.1
"""Seconds after which a task that still runs is cancelled again."""
RETRY = 0.5
"""Shortest wait in seconds after a failure."""


class Refresher:
    """Replaces the current directory of a `TenantDirectory` after each change of the store."""

    def __init__(  # noqa: PLR0913 - what is refreshed from where, and how it is checked and reported
        self,
        thread: StoreThread,
        target: TenantDirectory,
        interval: float,
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        check: Callable[[Connection], None] = lambda _connection: None,
    ) -> None:
        """Refresh `target` from the store of `thread`, polling every `interval` seconds.

        `check` is called in the thread of the store after it was opened, and raises `StoreError` if it is the wrong
        one.
        """
        self._thread = thread
        self._target = target
        self._interval = interval
        self._clock = clock
        self._log = log
        self._check = check
        self.failures = 0
        """Number of refreshes that failed."""
        self._opened = 0
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: Listener | None = None
        if not thread.store.is_sqlite:
            from otelwp_agent.control.listener import Listener  # noqa: PLC0415 - needs psycopg

            self._listener = Listener(thread.store.url, self._changed.set, log)

    async def load(self) -> None:
        """Read the directory once; raise `StoreError`."""
        directory = await self._thread.read(self._read)
        if directory is not self._target.current:
            self._target.replace(directory)
        self._target.refreshed_at = self._clock()

    def start(self) -> None:
        """Refresh in the background until `stop`."""
        self._tasks = [spawn(self._run(), name="control store refresh")]
        if self._listener is not None:
            self._tasks.append(spawn(self._listener.run(), name="control store notifications"))

    async def stop(self) -> None:
        """Stop refreshing."""
        waiting, self._tasks = set(self._tasks), []
        while waiting:
            for task in waiting:
                # psycopg uses `asyncio.wait_for`, which before Python 3.12 may lose a cancellation: repeat it.
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait()):
                    await self._changed.wait()
            self._changed.clear()
            await self.refresh()

    async def refresh(self) -> None:
        """Read what has changed; after a failure, keep the directory and its error."""
        try:
            await self.load()
        except StoreError as error:
            self.failures += 1
            if not self._target.error:
                self._log.warning("control store not available; the last state stays in use", error=str(error))
            self._target.error = str(error)
        else:
            if self._target.error:
                self._log.info("control store available again")
            self._target.error = ""

    def _wait(self) -> float:
        if self._target.error:
            return max(self._interval, RETRY)
        if self._listener is not None and self._listener.connected:
            return max(self._interval, LISTENING_INTERVAL)
        return self._interval

    def _read(self, connection: Connection) -> Directory:
        """Return the directory, in the thread of the store. It is read as a whole if the store was opened again."""
        opened, old = self._thread.store.opened, self._target.current
        if opened != self._opened:
            self._check(connection)
            old = Directory()
        new = snapshot.update(connection, old)
        self._opened = opened
        return new
