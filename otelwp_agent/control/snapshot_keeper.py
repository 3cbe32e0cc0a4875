"""Write the snapshot file after changes of the directory, and use it at a start without the store."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from otelwp_agent.control.errors import (
    SnapshotError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreMissingError,
    StoreUnreachableError,
)
from otelwp_agent.telemetry.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.control.directory import TenantDirectory
    from otelwp_agent.control.snapshot_file import SnapshotFile
    from otelwp_agent.control.store_thread import StoreThread

UPDATE_EVERY = 5.0
"""Seconds between two comparisons of the file with the directory."""
AWAY = (StoreUnreachableError, StoreLockedError, StoreCorruptError, StoreMissingError)
"""Errors of a store without which an agent can start. With others, such as a newer version, an operator must act."""


class SnapshotKeeper:
    """Keeps the snapshot file of a `TenantDirectory` up to date."""

    def __init__(
        self,
        file: SnapshotFile,
        directory: TenantDirectory,
        thread: StoreThread,
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Write `directory` to `file` in the thread of the store; `clock` is the one of `directory.refreshed_at`."""
        self.failures = 0
        """Number of attempts to write the file that failed."""
        self._file = file
        self._directory = directory
        self._thread = thread
        self._clock = clock
        self._log = log
        self._failures = LogLimit(clock)
        self._error = ""
        self._saved = -1
        """Version of the directory in the file."""
        self._used = -1
        """Version of the directory that was read from the file."""

    @property
    def in_use(self) -> bool:
        """Whether the directory is that of the file, because the store has not been reached yet."""
        return self._directory.version == self._used

    def state(self) -> dict[str, object]:
        """Return what health reports."""
        return {"file": str(self._file.path), "in_use": self.in_use, "error": self._error}

    async def use(self, reason: StoreError) -> None:
        """Fill the directory from the file because of `reason`; raise `SnapshotError` if that is not possible."""
        try:
            loaded, age = await self._thread.run(self._file.load)
        except SnapshotError as error:
            raise SnapshotError(f"{reason}; {error}") from error
        directory = self._directory
        directory.replace(loaded)
        directory.error = str(reason)
        directory.refreshed_at = self._clock() - age
        self._saved = self._used = directory.version
        self._log.warning(
            "control store not available; the snapshot is in use",
            file=str(self._file.path),
            age=round(age),
            error=directory.error,
        )

    async def run(self) -> None:
        """Update the file regularly."""
        while True:
            await self.update()
            await asyncio.sleep(UPDATE_EVERY)

    async def update(self) -> None:
        """Write the directory if it has changed; otherwise note in the file when it was compared with the store."""
        directory = self._directory
        version, current, age = directory.version, directory.current, self._clock() - directory.refreshed_at
        try:
            if version != self._saved:
                await self._thread.run(lambda: self._file.save(current))
                self._saved = version
            if not self.in_use:
                await self._thread.run(lambda: self._file.confirm(time.time() - age))
        except StoreError as error:
            self._saved = -1  # write it again, also if it was removed
            self.failures += 1
            self._error = str(error)
            if times := self._failures.take():
                self._log.warning("snapshot of the control store not written", times=times, error=self._error)
        else:
            self._error = ""
