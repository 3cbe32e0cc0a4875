"""How many batches of one tenant are sent at once: the queue of a tenant rests while it may not begin another send."""

from __future__ import annotations

import pytest

from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.fair_queue import FairQueue
from otelwp_agent.sending.queued_batch import QueuedBatch
from tests.kit.senders import a_request


class Sends:
    """A queue, and the sends under way, counted as the dispatcher counts them."""

    def __init__(self, limit: int) -> None:
        self.queue = FairQueue()
        self.concurrency = Concurrency(1, limit)
        self.queue.limit_sends(self.concurrency)

    def put(self, tenant: str, number: int = 1) -> None:
        for _ in range(number):
            self.queue.append(QueuedBatch(a_request("a"), 1, 100, self.queue.of(tenant)))

    def begin_all(self) -> list[QueuedBatch]:
        """Begin as many sends as the queue allows; return their batches."""
        begun = []
        while self.queue.may_send():
            begun.append(self.queue.take())
            self.concurrency.sending += 1
        return begun

    def end(self, entry: QueuedBatch, *, failed: bool = False) -> None:
        entry.released = not failed
        self.concurrency.sending -= 1
        self.queue.finished(entry)


def tenants(entries: list[QueuedBatch]) -> list[str]:
    return [entry.tenant_queue.tenant for entry in entries]


def test_a_tenant_leaves_one_send_for_the_others():
    sends = Sends(4)
    sends.put("loud", 6)
    begun = sends.begin_all()
    assert tenants(begun) == ["loud"] * 3
    assert sends.queue.resting
    sends.put("quiet", 2)
    assert len(sends.queue) == 3 + 2, "what rests waits, too"
    assert tenants(sends.begin_all()) == ["quiet"]
    sends.end(begun[0])
    assert len(sends.queue) == 4


def test_a_tenant_that_rests_continues_when_one_of_its_sends_has_ended():
    sends = Sends(4)
    sends.put("a", 6)
    begun = sends.begin_all()
    for _ in range(3):
        sends.end(begun.pop(0))
        assert not sends.queue.resting
        begun += sends.begin_all()
        assert tenants(begun) == ["a"] * 3
    assert len(sends.queue) == 0


def test_data_without_a_tenant_are_not_limited():
    sends = Sends(4)
    sends.put("", 9)
    assert len(sends.begin_all()) == 9, "the dispatcher limits all sends together"


def test_without_a_limit_nothing_rests():
    sends = Sends(4)
    sends.put("a", 9)
    assert len(sends.begin_all()) == 3
    sends.queue.limit_sends(None)
    assert not sends.queue.resting
    assert len(sends.begin_all()) == 6


@pytest.mark.parametrize(("under_way", "begun_after_each"), [(2, [0, 2, 2]), (3, [0, 1, 2]), (8, [0, 0, 1, 2])])
def test_a_failure_halves_the_sends_of_its_tenant_and_each_success_adds_one(under_way, begun_after_each):
    sends = Sends(100)
    sends.put("a", under_way)
    first, *others = sends.begin_all()
    sends.put("a", 50)
    sends.end(first, failed=True)
    begun = [len(sends.begin_all())]
    for entry in others[: len(begun_after_each) - 1]:
        sends.end(entry)
        begun.append(len(sends.begin_all()))
    assert begun == begun_after_each[: len(others) + 1]


def test_failures_of_a_tenant_limit_no_other_one():
    sends = Sends(100)
    sends.put("broken", 4)
    sends.put("works", 4)
    for entry in sends.begin_all():
        sends.end(entry, failed=entry.tenant_queue.tenant == "broken")
    sends.put("broken", 10)
    sends.put("works", 10)
    begun = tenants(sends.begin_all())
    assert (begun.count("broken"), begun.count("works")) == (1, 10)


def test_queues_of_idle_tenants_are_kept_for_as_many_again_as_hold_a_batch():
    queue = FairQueue()
    for number in range(200):
        queue.of(f"busy{number}").size = 1
    kept = set()
    for number in range(1000):
        queue.of(f"idle{number}")
        kept.add(len(queue._tenants))
    assert max(kept) == 400
