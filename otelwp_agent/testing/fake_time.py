"""An event loop with a simulated clock that skips to the next timer, so that tests of timeouts do not wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from otelwp_agent.replay.simulated_time import SimulatedLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class FakeTimeLoop(SimulatedLoop):
    """Starts at 0 seconds and skips to the next timer when nothing is ready; fails when no timer is left."""

    def wait_for_events(self) -> None:
        """Raise `AssertionError`: no timer is set, so the test would wait for ever."""
        raise AssertionError("every task waits and no timer is set: the test would wait for ever")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a `FakeTimeLoop` and return its result."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(coroutine)
