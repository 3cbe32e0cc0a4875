"""The tasks that send: each does one job after another, and sleeps while there is none.

Who makes a job possible calls `wake`; what only time makes possible, `due` tells. A job that ends needs no call: its
worker looks for the next one by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Foreman(Protocol):
    """Who knows what there is to do."""

    def next_job(self) -> Coroutine[None, None, None] | None:
        """Return what to do now, if anything."""

    def due(self) -> float | None:
        """Return when, on the clock, there may be something to do though nobody calls `wake`; `None` for never.

        Called only if `idle` says no.
        """

    def idle(self) -> bool:
        """Tell whether nothing waits to be done, now or later."""


class Workers:
    """`number` tasks that do what `foreman` has for them."""

    def __init__(self, foreman: Foreman, number: int, clock: Callable[[], float]) -> None:
        """Make none yet."""
        self.stopped = False
        """The time is up."""
        self._foreman = foreman
        self._number = number
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._sleepers: list[asyncio.Future[None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._ending = False

    def start(self, name: str) -> None:
        """Begin to work."""
        self._tasks = [spawn(self._work(), name=f"{name} {number}") for number in range(self._number)]

    def wake(self) -> None:
        """Wake one worker that sleeps, if any does."""
        while self._sleepers:
            sleeper = self._sleepers.pop()
            if not sleeper.done():
                sleeper.set_result(None)
                return

    async def finish(self, deadline: float) -> None:
        """End when nothing is left to do, or at `deadline`; what is being done then is cancelled."""
        self._ending = True
        self._wake_all()
        running = [task for task in self._tasks if not task.done()]
        if running:
            _, late = await asyncio.wait(running, timeout=max(0.0, deadline - self._clock()))
            self.stopped = True
            for task in late:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _work(self) -> None:
        foreman, loop = self._foreman, asyncio.get_running_loop()
        while not self.stopped:
            job = foreman.next_job()
            if job is not None:
                await job
            elif self._ending and foreman.idle():
                break
            else:
                sleeper: asyncio.Future[None] = loop.create_future()
                self._sleepers.append(sleeper)
                if not foreman.idle():
                    self._set_alarm(loop)
                await sleeper
        self._wake_all()  # they can end, too

    def _wake_all(self) -> None:
        while self._sleepers:
            self.wake()

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        at = self._foreman.due()
        if at is None or (self._alarm is not None and self._alarm_at <= at):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = loop.call_later(max(0.0, at - self._clock()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
