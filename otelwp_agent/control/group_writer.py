"""Write many small values to the control store: those that arrive during a transaction share the next one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlalchemy.exc import IntegrityError

from otelwp_agent.control.errors import StoreError, StoreLockedError
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from otelwp_agent.control.store_thread import StoreThread

V = TypeVar("V")
R = TypeVar("R")

MAX_WAITING = 10_000
"""Values that may wait; further ones are refused, so that memory is bounded while the store is slow."""
MAX_GROUP = 1000
"""Most values in one transaction, so that other users of the store wait only briefly."""


class GroupWriter(Generic[V, R]):
    """Writes values with `record`, which gets a connection and some values, and returns a result for each."""

    def __init__(
        self, store: Callable[[], StoreThread], record: Callable[[Connection, Sequence[V]], Sequence[R]]
    ) -> None:
        """Write to the store that `store` returns, which may not be open yet."""
        self._store = store
        self._record = record
        self._waiting: list[tuple[V, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, value: V) -> R:
        """Write a value; return its result after the commit; raise `StoreError`."""
        if len(self._waiting) >= MAX_WAITING:
            raise StoreLockedError(f"the control store is slow, and {MAX_WAITING} values are waiting: try again later")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((value, done))
        if self._task is None:
            self._task = spawn(self._write_all(), name="control store: write a group")
        return await done

    async def drain(self) -> None:
        """Wait until everything has been written."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                await self._write_group(group)
        finally:
            self._task = None

    async def _write_group(self, group: Sequence[tuple[V, asyncio.Future[R]]]) -> None:
        values = [value for value, _ in group]
        try:
            results = await self._store().write(lambda connection: self._record(connection, values))
        except IntegrityError as error:
            # Another agent has written the same row at the same time. The values are separated to find out which.
            if len(group) == 1:
                _fail(group, StoreLockedError(f"another agent has written the same rows: try again ({error.orig})"))
                return
            for each in group:
                await self._write_group([each])
        except StoreError as error:
            _fail(group, error)
        except Exception as error:
            _fail(group, StoreError(f"the control store reported {type(error).__name__}"))
            raise
        else:
            for (_, done), result in zip(group, results, strict=True):
                if not done.done():
                    done.set_result(result)


def _fail(group: Sequence[tuple[V, asyncio.Future[R]]], error: StoreError) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error)
