"""Decide when the next queued batch is sent, and by which task.

A `Dispatcher` runs one task for each consumer. A task takes a batch from the queue when three conditions hold: a batch
is ready, fewer sends are under way than the concurrency limit allows (of all, and of the tenant of the batch), and the
circuit breaker gives a permit. Otherwise it sleeps until `wake` is called, which everything does that makes a send
possible, or until a timer fires: the next retry is due, or the breaker lets a probe through. A task that has finished a
send looks for the next batch by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.sending.breaker import Permit, State
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from otelwp_agent.sending.breaker import Breaker
    from otelwp_agent.sending.concurrency import Concurrency
    from otelwp_agent.sending.queue import SendingQueue
    from otelwp_agent.sending.queued_batch import QueuedBatch

    Send = Callable[[QueuedBatch, Permit], Coroutine[None, None, None]]
    """Sends a batch once and handles the outcome; raises nothing but `CancelledError`."""

GRAIN = 1e-6
"""Seconds by which a timer may fire early."""
_TRY = Permit.TRY


class Dispatcher:
    """Sends what `queue` holds with `number` tasks, as `concurrency` and `breaker` allow."""

    def __init__(
        self,
        queue: SendingQueue,
        breaker: Breaker,
        concurrency: Concurrency,
        number: int,
        clock: Callable[[], float],
    ) -> None:
        """Register with the breaker; start no task."""
        self.draining = False
        """Whether everything is tried at once: retries are not delayed."""
        self.stopped = False
        """Whether the deadline of `drain` has passed."""
        self._queue = queue
        self._breaker = breaker
        self._concurrency = concurrency
        self._number = number
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._sleepers: list[asyncio.Future[None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._ending = False
        queue.limit_sends(concurrency)
        breaker.listeners.append(self.wake)

    def start(self, name: str, send: Send) -> None:
        """Start the tasks, called `name` and a number; they call `send` for each batch."""
        self._tasks = [spawn(self._run(send), name=f"{name} {number}") for number in range(self._number)]

    def wake(self) -> None:
        """Wake one task that sleeps, if there is one: a send may be possible."""
        while self._sleepers:
            sleeper = self._sleepers.pop()
            if not sleeper.done():
                sleeper.set_result(None)
                return

    def hurry(self) -> None:
        """Try again at once what waits for a retry, and from now on everything that fails."""
        self.draining = True
        self._queue.recall(float("inf"))
        self.wake()

    async def finish(self, deadline: float) -> None:
        """Return when the queue is empty, or at `deadline` (on the clock), which cancels the sends under way."""
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

    def close(self) -> None:
        """Unregister from the breaker. A second call changes nothing."""
        if self.wake in self._breaker.listeners:
            self._breaker.listeners.remove(self.wake)

    async def _run(self, send: Send) -> None:
        queue, concurrency, loop = self._queue, self._concurrency, asyncio.get_running_loop()
        while not self.stopped:
            permit = self._permit()
            if permit:
                entry = queue.take()
                concurrency.sending += 1
                if queue.ready:
                    self.wake()
                try:
                    await send(entry, permit)
                finally:
                    concurrency.sending -= 1
                    queue.finished(entry)
                continue
            empty = not (queue.ready or queue.later or queue.resting)
            if empty and self._ending:
                break
            sleeper: asyncio.Future[None] = loop.create_future()
            self._sleepers.append(sleeper)
            if not empty:
                self._set_alarm(loop)
            await sleeper
        self._wake_all()  # the other tasks can end, too

    def _permit(self) -> Permit:
        """Return the permit to send the next batch now, or `Permit.NONE`."""
        queue, breaker, concurrency = self._queue, self._breaker, self._concurrency
        if concurrency.sending >= concurrency.limit or not (queue.may_send() or queue.later):
            return Permit.NONE
        if not queue.later and breaker.calm:
            return _TRY
        now = self._clock() + GRAIN
        # Prefer a batch that was never tried as the probe: the failed one may be what the backend cannot process.
        if not queue.ready or self.draining or breaker.state is State.CLOSED:
            queue.recall(now)
        return breaker.acquire(now, self, hurry=self.draining) if queue.may_send() else Permit.NONE

    def _due(self) -> float | None:
        """Return when, on the clock, a send may be possible without a call of `wake`; `None` for never."""
        queue = self._queue
        if self._concurrency.sending >= self._concurrency.limit or not (queue.ready or queue.later):
            return None
        at = max(0.0 if queue.ready else queue.due, self._breaker.ask_again(self))
        return None if at == float("inf") else at

    def _wake_all(self) -> None:
        while self._sleepers:
            self.wake()

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        at = self._due()
        if at is None or (self._alarm is not None and self._alarm_at <= at):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = loop.call_later(max(0.0, at - self._clock()), self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self.wake()
