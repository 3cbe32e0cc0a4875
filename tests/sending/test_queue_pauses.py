"""Tenants whose batches wait in a sending queue because the backend wants none of them for a time."""

from __future__ import annotations

import pytest

from otelwp_agent.config.blocks import Queue
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.testing import FakeClock
from tests.kit.queues import of, taken


class Paused:
    """A queue with a clock that the test sets."""

    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.queue = SendingQueue(Queue(queue_size=100), "otlp_http/x", clock=self.clock)
        self.batches = {}

    def put(self, *names: str) -> None:
        """Put a batch for each name; the first letter is its tenant."""
        for name in names:
            batch = self.batches[name] = of(name[0])
            self.queue.put(batch)

    def pause(self, tenant: str, until: float) -> None:
        self.queue.pause(self.queue._tenants.of(tenant), until)

    def ready_at(self, now: float) -> list[str]:
        """Return the names of the batches that may be sent at a time, in their order."""
        self.clock.now = now
        self.queue.recall(now)
        names = {id(batch): name for name, batch in self.batches.items()}
        found = []
        while self.queue.ready:
            found.append(names[id(taken(self.queue).batch)])
        return found


@pytest.fixture
def paused():
    return Paused()


def test_batches_that_wait_and_batches_that_come_later_wait_until_the_pause_ends(paused):
    paused.put("a1", "a2", "b1")
    paused.pause("a", 10.0)
    assert paused.ready_at(5.0) == ["b1"]
    paused.put("a3", "b2")
    assert len(paused.queue) == 4
    assert paused.ready_at(9.99) == ["b2"]
    assert paused.ready_at(10.0) == ["a1", "a2", "a3"]


def test_a_pause_is_over_at_its_end(paused):
    paused.pause("a", 10.0)
    paused.clock.now = 10.0
    paused.put("a1")
    assert paused.queue.ready
    paused.pause("a", 10.0)
    assert paused.ready_at(10.0) == ["a1"]


def test_the_longest_pause_counts(paused):
    paused.put("a1")
    paused.pause("a", 10.0)
    paused.pause("a", 5.0)
    paused.put("a2")
    assert paused.ready_at(9.0) == []
    assert paused.ready_at(10.0) == ["a1", "a2"]


def test_retries_stay_before_batches_that_were_never_sent(paused):
    paused.put("a1", "a2")
    paused.queue.put_off(taken(paused.queue), 1.0)
    paused.queue.recall(1.0)
    paused.put("a3")
    paused.pause("a", 10.0)
    assert paused.ready_at(10.0) == ["a1", "a2", "a3"]


def test_a_tenant_that_may_begin_no_other_send_is_paused_too(paused):
    concurrency = Concurrency(1, 2)
    paused.queue.limit_sends(concurrency)
    paused.put("a1", "a2")
    sent = taken(paused.queue)
    concurrency.sending = 1
    assert not paused.queue.may_send()
    paused.pause("a", 10.0)
    assert not paused.queue.resting
    concurrency.sending = 0
    paused.queue.release(sent)
    paused.queue.finished(sent)
    assert not paused.queue.may_send()
    assert paused.ready_at(10.0) == ["a2"]


def test_a_pause_of_a_tenant_without_batches_leaves_the_others_alone(paused):
    paused.put("b1")
    paused.pause("a", 10.0)
    assert paused.ready_at(1.0) == ["b1"]
