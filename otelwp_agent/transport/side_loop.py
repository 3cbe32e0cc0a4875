"""A second event loop on a thread of its own, for what must go on while the main loop is busy: health, the watchdog.

There is one per process, and it outlives reloads: an `HttpServer` hands its sockets and connections over to the server
that replaces it, which is only possible on one and the same loop. The thread exists while somebody uses it.

The thread shares the interpreter lock with the main loop. While the main loop executes Python code, each system call
of this loop waits for the lock for one switch interval; while a C function holds the lock, this loop waits, too.

asyncio's own loop is used here, also where the main loop is uvloop's: requests are few, and it needs less memory.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

SWITCH_INTERVAL = 0.001
"""Seconds after which a busy main loop gives the interpreter lock to this thread. Python's own value is five times
that, and a request takes about ten system calls, over TLS twice as many."""
CALL_TIMEOUT = 10.0
"""Seconds that a plain call may take: work on this loop is short, so a longer wait means that it is broken."""


class SideLoop:
    """An event loop on a thread named `name`. `acquire` starts it, and the last `release` ends it."""

    def __init__(self, name: str) -> None:
        """Start nothing yet."""
        self._name = name
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Start the thread unless it runs; it runs at least until `release` is called as often as this."""
        with self._lock:
            self._users += 1
            if self._thread is None:
                sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
                self._loop = asyncio.SelectorEventLoop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()

    def release(self) -> None:
        """End the thread if nobody else uses it. Call it from another thread."""
        with self._lock:
            self._users -= 1
            if self._users or self._thread is None or self._loop is None:
                return
            thread, loop = self._thread, self._loop
            self._thread = self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on this loop, and wait for its result on the caller's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._running()))

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` on this loop's thread; return its result or raise its error. Blocks the caller meanwhile."""
        loop = self._running()

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), loop).result(CALL_TIMEOUT)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError(f"the event loop {self._name} is not acquired")
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())  # a last turn, in which closed transports let go
    finally:
        loop.close()


SIDE_LOOP = SideLoop("otelwp-side")
"""The side loop of this process."""
