"""One run of `otelwp-agent generate`: send sample telemetry at a rate, with retries, and count the outcome."""

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
"""Largest number of items in one request, as in the batch processors of SDKs."""

IN_FLIGHT = 4
"""Number of concurrent requests."""

TICK = 0.05
"""Shortest time between requests at a fixed rate, in seconds; at high rates a request has several traces."""

TRIES = 6
"""Number of attempts for one request before the run is given up."""

WAITS = (0.5, 8.0)
"""First and longest wait before a retry, in seconds, if the server names none; the wait doubles each time."""

NOUNS = {Signal.TRACES: "spans", Signal.METRICS: "data points", Signal.LOGS: "log records"}
"""Name of a signal's items."""


class RequestSender(Protocol):
    """Sends serialized OTLP requests."""

    async def send(self, signal: Signal, body: bytes) -> tuple[int, str]:
        """Send one request; return the number of rejected items and the reason. Raises `ConsumeError`."""

    async def aclose(self) -> None:
        """Close the connections."""


@dataclass
class RequestTally:
    """Outcome of a run so far, in items."""

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    retried: int = 0
    """Number of retries, in requests: a request that is sent twice is retried once."""
    problem: str = ""
    """Why items were rejected or the run was given up."""
    waiting: str = ""
    """Why a request waits for a retry."""
    started: float = field(default_factory=time.monotonic)

    def line(self, noun: str) -> str:
        """Return the outcome as one line of text; `noun` names the items."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = self.sent - self.accepted - self.rejected
        return (
            f"sent {self.sent:,} {noun}: {self.accepted:,} accepted, {self.rejected:,} rejected, "
            f"{f'{left:,} without an answer, ' if left else ''}"
            f"{self.retried:,} request{'' if self.retried == 1 else 's'} retried; "
            f"{seconds:.1f} s, {self.accepted / seconds:,.0f} {noun}/s"
        )


class Generation:
    """One run that sends `count` traces, data points or log records of `sample`, `rate` per second (0: no limit)."""

    def __init__(self, sample: Sample, signal: Signal, sender: RequestSender, *, count: int, rate: float) -> None:
        """Prepare a run; `run` starts it."""
        self.sample = sample
        self.signal = signal
        self.sender = sender
        self.count = count
        self.rate = rate
        self.tally = RequestTally()
        self.noun = NOUNS[signal]
        self._sizes = self._requests()
        self._begun = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send all requests, or stop earlier when `stop` is set."""
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
        """Yield the number of traces, data points or log records of each request."""
        most = max(REQUEST_ITEMS // self.sample.items(self.signal, 1), 1)
        if self.rate:
            most = min(most, max(int(self.rate * TICK), 1))
        full, rest = divmod(self.count, most)
        for _ in range(full):
            yield most
        if rest:
            yield rest

    async def _work(self) -> None:
        """Send requests one after the other, each at its time, until none is left."""
        for size in self._sizes:
            due = self.tally.started + self._begun / self.rate if self.rate else 0.0
            self._begun += size
            delay = due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            body = self.sample.make(self.signal, size, time.time_ns())
            if not await self._deliver(body, self.sample.items(self.signal, size)):
                self._sizes.close()  # stops the other workers too: their requests would fail in the same way
                return

    async def _deliver(self, body: bytes, items: int) -> bool:
        """Send one request, with retries; return whether the run should continue."""
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
