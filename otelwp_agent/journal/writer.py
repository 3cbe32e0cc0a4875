"""A thread that writes to disk, so that the event loop continues meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], None]
    Done = Callable[[BaseException | None], None]


SWITCH_INTERVAL = 0.001
"""Seconds after which a busy event loop lets the thread run: to start a write, and to report its end. Python's default
is five times as long, and each response would wait for it twice."""


class Writer:
    """Runs one job after another in a thread, and calls back on the event loop."""

    def __init__(self, name: str = "journal") -> None:
        """Prepare; the first job starts the thread, with this name."""
        self._name = name
        self._work: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Work, done: Done) -> None:
        """Run `work` in the thread; `done(error or None)` is then called on the current event loop."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            sys.setswitchinterval(SWITCH_INTERVAL)
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.put((work, done))

    def close(self) -> None:
        """End the thread after the submitted jobs."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, done = item
            failure: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - every error is passed to `done`
                failure = error
            assert self._loop is not None  # noqa: S101 - set before the thread was started
            with contextlib.suppress(RuntimeError):  # the loop may have ended
                self._loop.call_soon_threadsafe(done, failure)
            del item, work, done  # or the last body would stay in memory until the next job
