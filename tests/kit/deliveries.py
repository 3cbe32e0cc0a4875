"""A delivery without tasks: a test sends each batch."""

from __future__ import annotations

import asyncio

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.attempts import Attempts
from otelwp_agent.sending.breaker import Permit
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.delivery import Delivery
from otelwp_agent.sending.dispatcher import Dispatcher
from otelwp_agent.sending.metrics import ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.sending.watchers import Watchers
from otelwp_agent.testing import FakeClock
from tests.kit.senders import EXACT, Destination, names_in, scripted

NOW = 100.0
DOWN = RetryableError("down")


class One:
    """A delivery without tasks: a test sends each batch."""

    def __init__(
        self,
        *answers: int | BaseException,
        dead_letters=None,
        journaled=False,
        max_bytes=None,
        retry=EXACT,
        size=1000,
        throttled_by_tenant=False,
    ) -> None:
        self.clock = FakeClock(NOW)
        self.exporter = Destination(scripted(*answers), self.clock)
        self.exporter.throttled_by_tenant = throttled_by_tenant
        context = self.exporter.context
        self.queue = SendingQueue(Queue(queue_size=size), "test/one", clock=self.clock)
        self.breaker, concurrency = breaker_of(context, retry, lambda: 0.5), Concurrency(1, 1)
        self.metrics = ExporterMetrics(context, Signal.TRACES, self.queue, self.breaker, concurrency)
        self.dispatcher = Dispatcher(self.queue, self.breaker, concurrency, 1, context.clock)
        self.watchers = Watchers()
        self.delivery = Delivery(
            Attempts(self.exporter, self.metrics, self.breaker, concurrency, 5, watchers=self.watchers),
            self.metrics,
            queue=self.queue,
            breaker=self.breaker,
            dispatcher=self.dispatcher,
            clock=context.clock,
            exporter="test/one",
            retry=retry,
            max_bytes=max_bytes,
            journaled=journaled,
            dead_letters=dead_letters,
            throttled_by_tenant=throttled_by_tenant,
            deliveries=context.deliveries,
            watchers=self.watchers,
            random=lambda: 0.5,
        )

    def send(self, batch, permit=Permit.TRY) -> None:
        self.queue.put(batch)
        self.send_next(permit)

    def send_next(self, permit=Permit.TRY) -> None:
        asyncio.run(self.delivery.send(self.queue.take(), permit))

    def during_the_attempt(self, call) -> None:
        """Let the next attempts call a function before they are answered."""
        answer = self.exporter.answer

        async def slow(names):
            call()
            return await answer(names)

        self.exporter.answer = slow

    def waiting(self):
        """Return the names of the spans in the queue, in the order in which they will be sent."""
        self.queue.recall(float("inf"))
        return [names_in(self.queue.take().batch) for _ in range(len(self.queue))]


def reported(log):
    """Return event, reason, number of items and error of what was logged."""
    return [(line["event"], line.get("reason"), line.get("items"), line.get("error")) for line in log]


class Letters:
    """Dead letters of which all have the same fate."""

    def __init__(self, fate):
        self.fate = fate
        self.batches, self.put_with = [], []

    def put(self, batch, **why):
        self.batches.append(batch)
        self.put_with.append(why)
        return self.fate
