"""Detect that the main event loop is blocked, measure for how long, and name the code that blocks it.

The main loop sets a timer twice a second. The delay with which it fires is the time for which callbacks blocked the
loop; it is recorded in a histogram. The side loop's thread checks whether the timer is overdue, and if so reads the
main thread's stack while the loop is still blocked. When idle, this wakes the process about three times a second.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING

from otelwp_agent.component import Component, Stall
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.transport.side_loop import SIDE_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    import structlog

    from otelwp_agent.telemetry.metrics import Registry

LOOP_STALL = Instrument(
    "otelwp_loop_stall_seconds",
    "Delay of a timer on the main event loop, measured twice a second: how long callbacks blocked the loop.",
    InstrumentKind.HISTOGRAM,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LOOP_BLOCKED = "event loop blocked"
"""Log event: the main event loop has been blocked for longer than `service.watchdog.threshold`."""

BEAT = 0.5
"""Seconds between two timers of the main loop. A measured stall is too short by at most this time."""

_AGAIN = 0.1
"""Seconds until the next check if the main thread executes no callback: the process may just have been resumed."""
_SOONEST = 0.01
"""Shortest time between two checks, in seconds."""
_DEEPEST = 12
"""Number of stack frames that are logged, innermost first."""
_PACKAGE = "otelwp_agent."
_LOOP_MODULES = frozenset({"asyncio.base_events", "asyncio.events", "asyncio.runners", "selectors"})
"""Modules that call callbacks and wait between them; frames of these modules are not part of a callback's stack."""


class Watchdog:
    """Watches the event loop on which it is started. `threshold` (seconds) may be changed at any time."""

    def __init__(
        self,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        *,
        threshold: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the watchdog; `start` starts it."""
        self.threshold = threshold
        self._delays = registry.histogram(LOOP_STALL)
        self._log = log
        self._clock = clock
        self._limit = LogLimit(clock)
        self._thread = 0
        self._due = float("inf")
        """Time at which the main loop's timer is due. Written by the main thread, read by any thread."""
        self._beating: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._reported = self._doubted = float("-inf")

    def start(self) -> None:
        """Start to watch the running loop from the side loop."""
        if self._beating is None:
            self._thread = threading.get_ident()
            self._schedule()
            SIDE_LOOP.acquire()
            SIDE_LOOP.call(self._look)

    def stop(self) -> None:
        """Stop watching. May be called before `start` and more than once."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating, self._due = None, float("inf")
            SIDE_LOOP.call(self._stop_looking)
            SIDE_LOOP.release()

    def stall(self) -> Stall | None:
        """Return how long the main loop has been blocked and by what, if that is above the threshold. Thread-safe."""
        delay = self._clock() - self._due
        return None if delay < self.threshold else Stall(delay, self._stage())

    # -- on the main loop

    def _beat(self) -> None:
        self._delays.observe(max(0.0, self._clock() - self._due))
        self._schedule()

    def _schedule(self) -> None:
        self._due = self._clock() + BEAT
        self._beating = asyncio.get_running_loop().call_later(BEAT, self._beat)

    # -- on the side loop

    def _look(self) -> None:
        """Report an overdue timer once; schedule the next check."""
        due = self._due
        wait = due + self.threshold - self._clock()
        if wait <= 0:
            wait = BEAT
            if due != self._reported:
                wait = self._suspect(due)
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(min(max(wait, _SOONEST), self.threshold + BEAT), self._look)

    def _suspect(self, due: float) -> float:
        """Report the code that the main thread executes; return the seconds until the next check.

        In a process that was suspended or got no CPU time, the timer is overdue although no callback runs. This is
        reported only if a second check after `_AGAIN` finds the same timer still overdue.
        """
        stack = _callback_stack(self._thread)
        if not stack and due != self._doubted:
            self._doubted = due
            return _AGAIN
        self._reported = due
        delay, stage = self._clock() - due, stage_of(stack)
        if stalls := self._limit.take():
            text = "\n".join(f"  {_where(frame)}" for frame in stack[:_DEEPEST])
            self._log.warning(LOOP_BLOCKED, seconds=round(delay, 3), stage=stage, stalls=stalls, text=text)
        return BEAT

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _stage(self) -> str:
        return stage_of(_callback_stack(self._thread))


def stage_of(stack: Sequence[FrameType]) -> str:
    """Describe what a stack (innermost frame first) executes: the component, the agent's function and its callee."""
    if not stack:
        return ""
    names = [_component(frame) for frame in stack]
    named = next(filter(None, names), "")
    own = (frame for frame, name in zip(stack, names, strict=True) if name or _module(frame).startswith(_PACKAGE))
    ours = next(own, stack[0])
    where = _where(ours)
    if ours is not stack[0]:
        where += f", calling {_function(stack[0])}"
    return f"{named}: {where}" if named else where


def _callback_stack(thread: int) -> list[FrameType]:
    """Return the frames of the callback that a loop's thread executes, innermost first; empty if the loop waits."""
    stack: list[FrameType] = []
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, and the only access to another thread's stack
    while frame is not None and _module(frame) not in _LOOP_MODULES:
        stack.append(frame)
        frame = frame.f_back
    return stack if frame is None or _module(frame) != "selectors" else []


def _component(frame: FrameType) -> str:
    """Return the component whose method a frame executes, such as `receiver otlp`, or ""."""
    if frame.f_code.co_varnames[:1] != ("self",):
        return ""
    owner = frame.f_locals.get("self")
    if not isinstance(owner, Component):
        return ""
    return f"{owner.context.kind.label} {owner.context.id}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _function(frame: FrameType) -> str:
    return f"{_module(frame)}.{frame.f_code.co_qualname}"


def _where(frame: FrameType) -> str:
    return f"{_function(frame)} (line {frame.f_lineno})"
