"""The attempts of one sender, with a real breaker and a real limit of concurrency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.config.blocks import Queue
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.attempts import Attempts
from otelwp_agent.sending.breaker import Permit
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.metrics import ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.sending.watchers import Watchers
from tests.kit.senders import EXACT, Destination, a_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otelwp_agent.testing import FakeTimeLoop


class AttemptStage:
    """Attempts to send to an exporter that does what `answer` says."""

    def __init__(self, loop: FakeTimeLoop, answer: Callable[[list[str]], Awaitable[int]], timeout: float = 5) -> None:
        exporter = Destination(answer, loop.time)
        context = exporter.context
        self.loop = loop
        self.breaker = breaker_of(context, EXACT, lambda: 0.5)
        self.concurrency = Concurrency(1, 8)
        queue = SendingQueue(Queue(), "x")
        self.metrics = ExporterMetrics(context, Signal.TRACES, queue, self.breaker, self.concurrency)
        self.attempts = Attempts(exporter, self.metrics, self.breaker, self.concurrency, timeout, watchers=Watchers())
        self.exporter = exporter

    def once(self, permit: Permit = Permit.TRY, *, tenant: str = "") -> int:
        return self.loop.run_until_complete(self.attempts.once(a_request("a", tenant=tenant), permit))
