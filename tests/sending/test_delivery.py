"""What only the pieces show; tests/sending/test_sender.py covers outcomes through a whole sender."""

from __future__ import annotations

import asyncio
import time

import pytest

from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.errors import MalformedError, RetryableError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.attempts import Attempts
from otelwp_agent.sending.breaker import Permit
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.delivery import LETTER_INTERVAL, Delivery
from otelwp_agent.sending.dispatcher import Dispatcher
from otelwp_agent.sending.metrics import ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import SendingQueue
from tests.kit.senders import Destination, a_request, outcomes, scripted


class One:
    """A delivery without tasks: a test sends each batch."""

    def __init__(self, *answers: int | BaseException, dead_letters=None, journaled=False, max_bytes=None) -> None:
        exporter = Destination(scripted(*answers), time.monotonic)
        context, retry = exporter.context, Retry()
        self.queue = SendingQueue(Queue(), "test/one")
        breaker, concurrency = breaker_of(context, retry, lambda: 0.5), Concurrency(1, 1)
        metrics = ExporterMetrics(context, Signal.TRACES, self.queue, breaker, concurrency)
        self.dispatcher = Dispatcher(self.queue, breaker, concurrency, 1, context.clock)
        self.delivery = Delivery(
            Attempts(exporter, metrics, breaker, concurrency, 5),
            metrics,
            queue=self.queue,
            breaker=breaker,
            dispatcher=self.dispatcher,
            clock=context.clock,
            exporter="test/one",
            retry=retry,
            max_bytes=max_bytes,
            journaled=journaled,
            dead_letters=dead_letters,
            random=lambda: 0.5,
        )

    def send(self, batch) -> None:
        self.queue.put(batch)
        asyncio.run(self.delivery.send(self.queue.take(), Permit.TRY))


def test_a_delivered_batch_is_settled_and_released():
    one, batch = One(0), a_request("a", "b")
    one.send(batch)
    assert outcomes(batch) == [(2, 0, "")]
    assert one.queue.size == 0


def test_a_batch_that_failed_waits_in_the_queue_for_its_retry():
    one, batch = One(RetryableError("down")), a_request("a")
    one.send(batch)
    assert outcomes(batch) == [(0, 0, "")]
    assert (len(one.queue.later), one.queue.size) == (1, 1)
    assert one.queue.due > time.monotonic() + 1


def test_while_draining_a_batch_that_fails_is_abandoned():
    one, batch = One(RetryableError("down")), a_request("a")
    one.dispatcher.hurry()
    one.send(batch)
    assert outcomes(batch) == [(0, 1, "shutdown")]
    assert one.queue.size == 0


def test_a_batch_above_the_limit_is_replaced_by_its_parts_without_a_try():
    one, batch = One(max_bytes=30), a_request("aaaaaaaaaa", "bbbbbbbbbb")
    one.send(batch)
    assert len(one.queue) == 2
    assert batch.shares[0][0].count(Outcome.DELIVERED) == 0


class Letters:
    def __init__(self, fate):
        self.fate = fate
        self.put_with = []

    def put(self, batch, **why):
        self.put_with.append(why)
        return self.fate


@pytest.mark.parametrize("journaled", [False, True])
def test_a_refused_batch_is_given_up_once_its_dead_letter_is_kept(journaled):
    letters, batch = Letters(Fate.KEPT), a_request("a")
    one = One(MalformedError("no protobuf"), dead_letters=letters, journaled=journaled)
    one.send(batch)
    assert letters.put_with == [{"exporter": "test/one", "reason": "malformed", "error": "no protobuf"}]
    assert outcomes(batch) == [(0, 1, "dead_letter:malformed")]


def test_a_journaled_batch_whose_dead_letter_cannot_be_kept_is_sent_again():
    letters, batch = Letters(Fate.FAILED), a_request("a")
    one = One(MalformedError("no protobuf"), dead_letters=letters, journaled=True)
    one.send(batch)
    assert outcomes(batch) == [(0, 0, "")]
    assert time.monotonic() < one.queue.due <= time.monotonic() + LETTER_INTERVAL
