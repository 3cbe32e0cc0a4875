"""A second event loop on its own thread, for work that must continue while the main loop is busy: health, watchdog.

There is one per process, and it survives reloads: an `HttpServer` passes its sockets and connections to the server that
replaces it, which is only possible on the same loop. The thread runs while at least one user needs it.

The thread shares the interpreter lock with the main loop. While the main loop executes Python code, each system call of
this loop waits for the lock for one switch interval. While a C function holds the lock, this loop waits too.

This loop is asyncio's own, even if the main loop is uvloop's: requests are few, and it needs less memory.
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
"""Seconds after which a busy main loop gives the interpreter lock to this thread.

Python's default is five times as long, and a request needs about ten system calls, over TLS twice as many.
"""
CALL_TIMEOUT = 10.0
"""Maximum number of seconds of a `call`. Work on this loop is short; a longer wait means that it is broken."""


class SideLoop:
    """An event loop on a thread named `name`. `acquire` starts it, and the last `release` ends it."""

    def __init__(self, name: str) -> None:
        """Keep the name; `acquire` starts the thread."""
        self._name = name
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Start the thread unless it is running. It runs until `release` is called as often as this method."""
        with self._lock:
            self._users += 1
            if self._thread is None:
                sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
                self._loop = asyncio.SelectorEventLoop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()

    def release(self) -> None:
        """End the thread if it has no other users. Call it from another thread."""
        with self._lock:
            self._users -= 1
            if self._users or self._thread is None or self._loop is None:
                return
            thread, loop = self._thread, self._loop
            self._thread = self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on this loop; wait for its result on the caller's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._running()))

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` on this loop's thread; return its result or raise its error. The caller blocks meanwhile."""
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
        # one last iteration, in which closed transports are released
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


SIDE_LOOP = SideLoop("otelwp-side")
"""The side loop of this process."""
