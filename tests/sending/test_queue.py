from __future__ import annotations

import pytest

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.queue import SHARE_BYTES, SendingQueue


def a_batch(items: int = 1, size: int = 10, shares: int = 1) -> Batch:
    receipts = [(Receipt(items), items)] * shares
    return Batch(Signal.TRACES, b"x" * size, items * shares, Origin(), receipts)


def a_queue(**settings) -> SendingQueue:
    return SendingQueue(Queue(**settings), "otlp_http/x")


def taken(queue: SendingQueue):
    assert queue.ready
    return queue.take()


@pytest.mark.parametrize(("sizer", "units"), [("requests", 1), ("items", 6), ("bytes", 40)])
def test_counts_in_the_unit_of_its_sizer_until_released(sizer, units):
    queue = a_queue(sizer=sizer)
    queue.put(a_batch(3, size=40, shares=2))
    assert (queue.size, queue.bytes, len(queue)) == (units, 40 + 2 * SHARE_BYTES, 1)
    entry = taken(queue)
    assert (queue.size, len(queue)) == (units, 0)
    queue.release(entry)
    assert (queue.size, queue.bytes) == (0, 0)


def test_refuses_beyond_its_size_what_is_being_sent_included():
    queue = a_queue(queue_size=2)
    queue.put(a_batch())
    queue.admit()
    queue.put(a_batch())
    entry = taken(queue)
    with pytest.raises(Overloaded, match=r"queue of otlp_http/x is full .2 of 2 requests"):
        queue.put(a_batch())
    with pytest.raises(Overloaded) as refused:
        queue.admit()
    assert refused.value.reason == "queue_full"
    queue.release(entry)
    queue.admit()
    queue.put(a_batch())


def test_refuses_beyond_its_bytes_whatever_its_sizer():
    queue = a_queue(max_bytes=1000 + 2 * SHARE_BYTES)
    queue.put(a_batch(size=600))
    with pytest.raises(Overloaded):
        queue.put(a_batch(size=401))
    queue.admit()
    queue.put(a_batch(size=400))
    with pytest.raises(Overloaded):
        queue.admit()


@pytest.mark.parametrize("limits", [{"queue_size": 5, "sizer": "items"}, {"max_bytes": 50}])
def test_lets_one_oversized_batch_into_an_empty_queue(limits):
    queue = a_queue(**limits)
    queue.put(a_batch(100, size=1000))
    with pytest.raises(Overloaded):
        queue.put(a_batch())
    entry = taken(queue)
    with pytest.raises(Overloaded):
        queue.put(a_batch())
    queue.release(entry)
    queue.put(a_batch())


def test_without_a_queue_there_is_room_for_what_is_sent_at_once():
    queue = a_queue(enabled=False, num_consumers=2, queue_size=1000, sizer="items")
    assert queue.capacity == 2
    queue.put(a_batch(50))
    queue.put(a_batch(50))
    with pytest.raises(Overloaded):
        queue.put(a_batch())


def test_parts_are_measured_anew_and_go_out_first_in_their_order():
    queue = a_queue(queue_size=2, sizer="items")
    first, second = a_batch(1, size=80), a_batch(1, size=10)
    queue.put(first)
    queue.put(second)
    left, right = a_batch(1, size=50), a_batch(1, size=60)
    queue.replace(taken(queue), [left, right])
    assert (queue.size, queue.bytes, len(queue)) == (3, 120 + 3 * SHARE_BYTES, 3)
    order = [taken(queue) for _ in range(3)]
    assert [entry.batch for entry in order] == [left, right, second]
    for entry in order:
        queue.release(entry)
    assert (queue.size, queue.bytes, len(queue)) == (0, 0, 0)
    assert not queue.ready


def test_parts_of_parts_wait_behind_their_siblings():
    queue = a_queue()
    queue.put(a_batch())
    a, b, a1, a2 = (a_batch() for _ in range(4))
    queue.replace(taken(queue), [a, b])
    queue.replace(taken(queue), [a1, a2])
    assert [taken(queue).batch for _ in range(3)] == [b, a1, a2]


def test_a_refusal_names_the_capacity_that_reports_a_release():
    queue = a_queue(queue_size=2, max_tenant_share=0.5)
    queue.put(a_batch())
    assert queue.refusal(a_batch()) is None
    queue.put(a_batch())
    refusal = queue.refusal(a_batch())
    assert refusal.capacity is queue.space
    assert (queue.space.short, queue.space.full) == (True, True)
    queue.release(taken(queue))
    assert (queue.space.short, queue.space.full) == (False, False)
    assert queue.refusal(a_batch()) is None


def test_a_batch_that_is_too_large_now_leaves_the_queue_open_for_small_ones():
    queue = a_queue(max_bytes=100_000)
    queue.put(a_batch(size=60_000))
    assert queue.refusal(a_batch(size=60_000)) is not None
    assert (queue.space.short, queue.space.full) == (True, False)
    queue.put(a_batch(size=10))


def test_what_was_admitted_is_put_beyond_the_capacity():
    queue = a_queue(queue_size=1)
    queue.put(a_batch())
    batch = a_batch()
    batch.admitted = True
    queue.put(batch)
    assert queue.size == 2
    for _ in range(2):
        queue.release(taken(queue))
    assert queue.size == 0


def test_a_tenants_share_reports_when_something_of_that_tenant_is_released():
    def of(tenant):
        batch = a_batch()
        batch.origin = Origin(tenant=tenant)
        return batch

    queue = a_queue(queue_size=4, max_tenant_share=0.5)
    for tenant in ("loud", "quiet", "loud"):
        queue.put(of(tenant))
    share = queue.refusal(of("loud")).capacity
    assert (share.share, share.root, share.short) == ("loud", queue.space, True)
    assert queue.refusal(of("quiet")) is None
    loud, _, quiet = sorted([taken(queue) for _ in range(3)], key=lambda entry: entry.batch.origin.tenant)
    queue.release(quiet)
    assert share.short
    queue.release(loud)
    assert not share.short
    queue.put(of("loud"))
