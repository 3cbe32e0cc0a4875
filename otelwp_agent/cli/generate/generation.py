"""One run of `otelwp-agent generate`: requests of sample telemetry, paced, sent again when asked to, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.errors import ConsumeError, RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Generator

    from otelwp_agent.cli.generate.sample import Sample

REQUEST_ITEMS = 512
"""Items in one request at most, as an SDK's batch processor sends."""

IN_FLIGHT = 4
"""Requests under way at once."""

TICK = 0.05
"""Seconds between requests at a rate so high that each would hold one trace."""

TRIES = 6
"""How often a request is sent before the run is given up."""

WAITS = (0.5, 8.0)
"""First and longest wait before a request is sent again, when the other side names none; doubled each time."""

NOUNS = {Signal.TRACES: "spans", Signal.METRICS: "data points", Signal.LOGS: "log records"}
"""What is counted."""


class Sender(Protocol):
    """Sends serialized requests somewhere."""

    async def send(self, signal: Signal, body: bytes) -> tuple[int, str]:
        """Send one; return how many items were rejected, and why. Raises `ConsumeError`."""

    async def aclose(self) -> None:
        """Close what is open."""


@dataclass
class Tally:
    """What came of everything so far, in items."""

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    retried: int = 0
    """Requests, not items: a request that is sent twice is retried once."""
    problem: str = ""
    """Why something was rejected, or the run given up."""
    waiting: str = ""
    """Why a request is to be sent again, while it waits for that."""
    started: float = field(default_factory=time.monotonic)

    def line(self, noun: str) -> str:
        """Tell it in one line."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = self.sent - self.accepted - self.rejected
        return (
            f"sent {self.sent:,} {noun}: {self.accepted:,} accepted, {self.rejected:,} rejected, "
            f"{f'{left:,} without an answer, ' if left else ''}"
            f"{self.retried:,} request{'' if self.retried == 1 else 's'} retried; "
            f"{seconds:.1f} s, {self.accepted / seconds:,.0f} {noun}/s"
        )


class Generation:
    """One run: `count` traces, data points or log records of `sample` through `sender`, `rate` a second (0: any)."""

    def __init__(self, sample: Sample, signal: Signal, sender: Sender, *, count: int, rate: float) -> None:
        """Send nothing yet."""
        self.sample = sample
        self.signal = signal
        self.sender = sender
        self.count = count
        self.rate = rate
        self.tally = Tally()
        self.noun = NOUNS[signal]
        self._sizes = self._requests()
        self._begun = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send everything, or as much as can be until `stop` is set."""
        self.tally.started = time.monotonic()
        working = spawn(self._work_together(), name="generate")
        stopped = spawn(stop.wait(), name="wait for Ctrl-C")
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    async def _work_together(self) -> None:
        await asyncio.gather(*[self._work() for _ in range(IN_FLIGHT)])

    def _requests(self) -> Generator[int, None, None]:
        """Yield how many traces, points or records each request holds."""
        most = max(REQUEST_ITEMS // self.sample.items(self.signal, 1), 1)
        if self.rate:
            most = min(most, max(int(self.rate * TICK), 1))
        full, rest = divmod(self.count, most)
        for _ in range(full):
            yield most
        if rest:
            yield rest

    async def _work(self) -> None:
        """Send request after request, each when it is due."""
        for size in self._sizes:
            due = self.tally.started + self._begun / self.rate if self.rate else 0.0
            self._begun += size
            delay = due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            body = self.sample.make(self.signal, size, time.time_ns())
            if not await self._deliver(body, self.sample.items(self.signal, size)):
                self._sizes.close()  # for the other workers too: what one request met, the next would meet
                return

    async def _deliver(self, body: bytes, items: int) -> bool:
        """Send one request until it is taken; return whether it is worth going on."""
        self.tally.sent += items
        wait, longest = WAITS
        for attempt in range(1, TRIES + 1):
            try:
                rejected, message = await self.sender.send(self.signal, body)
            except ConsumeError as error:
                if isinstance(error, RetryableError) and attempt < TRIES:
                    self.tally.retried += 1
                    self.tally.waiting = str(error)
                    await asyncio.sleep(wait if error.retry_after is None else error.retry_after)
                    wait = min(wait * 2, longest)
                    continue
                self.tally.rejected += items
                self.tally.problem = str(error) if attempt == 1 else f"given up after {attempt} tries: {error}"
                return False
            self.tally.waiting = ""
            self.tally.rejected += min(rejected, items)
            self.tally.accepted += items - min(rejected, items)
            self.tally.problem = message if rejected else self.tally.problem
            return True
        return False
