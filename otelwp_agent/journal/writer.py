"""A thread that writes to disk, so that the loop goes on meanwhile."""

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
"""Seconds after which a busy loop lets the thread go on: to begin a write, and to tell that it has ended. Python's own
value is five times that, which every answer would wait for twice."""


class Writer:
    """Does one piece of work after another, and calls back on the loop."""

    def __init__(self, name: str = "journal") -> None:
        """Start nothing yet; the thread will have this name."""
        self._name = name
        self._work: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Work, done: Done) -> None:
        """Have `work` done; `done(error or None)` is called on the loop that runs now."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            sys.setswitchinterval(SWITCH_INTERVAL)
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.put((work, done))

    def close(self) -> None:
        """End the thread when what was submitted is done."""
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
            except BaseException as error:  # noqa: BLE001 - the loop is told, whatever it is
                failure = error
            assert self._loop is not None  # noqa: S101 - set before the thread was started
            with contextlib.suppress(RuntimeError):  # a loop that has ended hears nothing
                self._loop.call_soon_threadsafe(done, failure)
            del item, work, done  # else the last body would stay in memory until the next one comes
