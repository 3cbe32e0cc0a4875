"""An event loop with simulated time, which skips all waiting: an hour of timers runs in a second.

Code that reads the loop's time, sleeps or sets timers (`call_later`) runs unchanged and in the same order. The loop
really waits only for work in threads.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at 0 seconds, and skips to the next timer when nothing is ready."""

    def __init__(self) -> None:
        """Set the time to 0."""
        self._simulated = 0.0
        super().__init__(_Skipping(self._skip, self.wait_for_events))

    def time(self) -> float:
        """Return the simulated time, in seconds."""
        return self._simulated

    def wait_for_events(self) -> None:
        """Prepare to wait in real time because no timer is set: only threads can make progress."""

    def _skip(self, seconds: float) -> None:
        self._simulated += seconds


class _Skipping(selectors.DefaultSelector):
    """A selector that skips the time instead of waiting."""

    def __init__(self, skip: Callable[[float], None], wait: Callable[[], None]) -> None:
        super().__init__()
        self._skip = skip
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; wait only if there is no timer."""
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            self._wait()
            return super().select(None)
        self._skip(max(0.0, timeout))
        return ready
