"""A timeout of the same length for many short tasks, at a fraction of the cost of `asyncio.timeout`.

All have the same length, so the first to start is the first to time out: one timer for the oldest is enough. Work that
ends in time sets and cancels no timer.

Use it as::

    task = watch.begin()
    try:
        await work()
    except asyncio.CancelledError:
        if not watch.is_late(task) or task.cancelling() > 1: raise   # another cancellation
        ...
    finally:
        watch.end(task)
"""

from __future__ import annotations

import asyncio


class Timeouts:
    """Cancels tasks that take longer than `seconds` (0: no limit) between `begin` and `end`."""

    __slots__ = ("_late", "_loop", "_running", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        """Start without tasks."""
        self._seconds = seconds
        self._running: dict[asyncio.Task[object], float] = {}
        """Deadline of each task on the loop's clock, soonest first."""
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> asyncio.Task[object]:
        """Start the timeout of the current task; return the task."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        if self._seconds:
            loop = self._loop = self._loop or asyncio.get_running_loop()
            late_at = self._running[task] = loop.time() + self._seconds
            if self._timer is None:
                self._timer = loop.call_at(late_at, self._cancel_late)
        return task

    def end(self, task: asyncio.Task[object]) -> None:
        """End the timeout of the task."""
        self._running.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            task.uncancel()

    def is_late(self, task: asyncio.Task[object]) -> bool:
        """Return whether the timeout cancelled the task."""
        return task in self._late

    def close(self) -> None:
        """End all timeouts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._running.clear()

    def _cancel_late(self) -> None:
        self._timer = None
        assert self._loop is not None  # noqa: S101 - the timer was set on it
        now = self._loop.time()
        while self._running:
            task, late_at = next(iter(self._running.items()))
            if late_at > now:
                self._timer = self._loop.call_at(late_at, self._cancel_late)
                return
            del self._running[task]
            self._late.add(task)
            task.cancel()
