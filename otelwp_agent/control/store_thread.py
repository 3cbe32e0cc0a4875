"""Run the transactions of the control store in one thread of their own, for code on an event loop.

Writes that wait at the same time share one transaction, each in a savepoint: they are committed to disk once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from otelwp_agent.control.errors import StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from otelwp_agent.control.store import Store

T = TypeVar("T")

MAX_WAITING = 1000
"""Transactions that may wait; further ones are refused, so that memory is bounded while the store is slow."""


class StoreThread:
    """Runs functions on a store. A function gets a connection in a transaction and returns a value."""

    def __init__(self, store: Store) -> None:
        """Use `store`, which no other thread may use from now on."""
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="control-store")
        self._writes: deque[tuple[Callable[[Connection], Any], Future[Any]]] = deque()
        self._waiting = 0

    async def open(self) -> None:
        """Open the store; raise `StoreError`."""
        await self.run(self.store.open)

    async def close(self) -> None:
        """Finish the waiting transactions and close the store."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self.store.close)
        self._executor.shutdown(wait=False)

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run `function` in a transaction that only reads; raise what it raises, or `StoreError`."""

        def work() -> T:
            with self.store.read() as connection:
                return function(connection)

        return await self.run(work)

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run `function` in a transaction; return its result after the commit; raise what it raises, or `StoreError`.

        If `function` raises, only its own changes are rolled back.
        """
        self._check_capacity()
        done: Future[T] = Future()
        self._writes.append((function, done))
        try:
            await self.run(self._write_waiting)
        except BaseException:
            done.cancel()
            raise
        return await asyncio.wrap_future(done)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread of the store, outside of a transaction."""
        self._check_capacity()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1

    def _check_capacity(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise StoreLockedError(
                f"control store {self.store.location}: {MAX_WAITING} transactions are waiting: try again later"
            )

    def _write_waiting(self) -> None:
        """Run all waiting writes in one transaction, unless an earlier call has done so."""
        group = []
        while self._writes:
            function, done = self._writes.popleft()
            if done.set_running_or_notify_cancel():
                group.append((function, done))
        if not group:
            return
        try:
            with self.store.write() as connection:
                results = [_result(connection, function) for function, _ in group]
        except BaseException as error:  # noqa: BLE001 - reported to all whose changes were rolled back
            results = [(None, error)] * len(group)
        for (_, done), (result, failure) in zip(group, results, strict=True):
            if failure is None:
                done.set_result(result)
            else:
                done.set_exception(failure)


def _result(connection: Connection, function: Callable[[Connection], Any]) -> tuple[Any, BaseException | None]:
    """Run `function` in a savepoint; return its result, or its exception after its changes were rolled back.

    Raises errors of the database, which concern the whole transaction.
    """
    try:
        with connection.begin_nested():
            return function(connection), None
    except DBAPIError as error:
        if not isinstance(error, IntegrityError):
            raise
        return None, error
    except Exception as error:  # noqa: BLE001 - reported to its caller
        return None, error
