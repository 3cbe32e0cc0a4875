from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.capacity import Offer
from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import Overloaded
from otelwp_agent.sending.queue import SHARE_BYTES, SendingQueue
from otelwp_agent.sending.queued_batch import MalformedSearch
from tests.kit.queues import a_batch, a_queue, of, taken


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


def test_what_is_kept_to_seal_a_body_again_takes_memory():
    class Again:
        size = 90

    queue = a_queue()
    queue.put(a_batch(size=10).encoded("sealed", b"0123456789", Again()))
    assert queue.bytes == 100 + SHARE_BYTES
    queue.release(queue.take())
    assert queue.bytes == 0


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


def test_a_new_queue_is_empty():
    queue = a_queue(queue_size=10)
    assert (queue.size, queue.bytes, queue.items, queue.taken, len(queue)) == (0, 0, 0, 0, 0)
    assert not queue.ready
    assert queue.fill("a") == queue.fill("") == 0
    assert (queue.capacity, queue.max_bytes) == (10, Queue().max_bytes)
    assert queue.space.root.isolate_after == Queue().isolate_after


def test_items_are_counted_until_they_are_released_and_once_when_they_are_put():
    queue = a_queue()
    queue.put(a_batch(3))
    queue.put(a_batch(4))
    assert (queue.items, queue.taken) == (7, 7)
    entry = taken(queue)
    assert (entry.released, entry.backoff, entry.search) == (False, None, None)
    assert queue.items == 7
    queue.release(entry)
    assert entry.released
    assert (queue.items, queue.taken) == (4, 7)
    queue.replace(taken(queue), [a_batch(1), a_batch(3)])
    assert (queue.items, queue.taken) == (4, 7)


def test_what_is_put_off_waits_until_it_is_due_and_counts_all_the_time():
    queue = a_queue()
    batches = [a_batch() for _ in range(4)]
    for batch in batches:
        queue.put(batch)
    first, second, third = (taken(queue) for _ in range(3))
    queue.put_off(first, 20.0)
    queue.put_off(second, 10.0)
    queue.put_off(third, 10.0)
    assert (len(queue), queue.size, queue.due) == (4, 4, 10.0)
    queue.recall(9.9)
    assert len(queue.later) == 3
    queue.recall(10.0)
    assert (len(queue), queue.due) == (4, 20.0)
    assert [taken(queue).batch for _ in range(3)] == [batches[1], batches[2], batches[3]], "the first put off, first"
    assert not queue.ready


def test_parts_share_the_search_of_the_batch():
    queue = a_queue()
    queue.put(a_batch())
    entry = taken(queue)
    entry.search = MalformedSearch()
    queue.replace(entry, [a_batch(), a_batch()])
    assert (entry.released, queue.size) == (True, 2)
    assert [taken(queue).search for _ in range(2)] == [entry.search] * 2
    assert (entry.search.refused, entry.search.accepted) == (0, False)


def test_refusals_say_how_much_of_what_is_taken():
    queue = a_queue(queue_size=10, sizer="items", max_bytes=10_000, max_tenant_share=0.5)
    queue.put(of("shop", items=5, size=100))
    assert str(queue.refusal(of("shop"))) == (
        "tenant shop fills its share of the sending queue of otlp_http/x "
        "(5 of 5 items, 300 of 5000 bytes; sending_queue.max_tenant_share is the share)"
    )
    queue.put(of("", items=5, size=100))
    assert str(queue.refusal(of(""))) == (
        "the sending queue of otlp_http/x is full (10 of 10 items, 600 of 10000 bytes)"
    )


def test_while_refused_batches_wait_nothing_overtakes_them():
    queue = a_queue(queue_size=10)
    queue.space.refuse()
    assert queue.refusal(a_batch()).reason == "queue_full"
    with pytest.raises(Overloaded):
        queue.admit()
    with pytest.raises(Overloaded):
        queue.put(a_batch())
    queue.freed()
    queue.put(a_batch())


@pytest.mark.parametrize(("units", "full"), [(630, False), (631, True)])
def test_the_queue_counts_as_full_when_a_64th_of_its_units_does_not_fit(units, full):
    queue = a_queue(queue_size=640, sizer="items")
    queue.put(a_batch(units))
    assert queue.refusal(a_batch(50)) is not None
    assert (queue.space.short, queue.space.full) == (True, full)


@pytest.mark.parametrize(("size", "full"), [(63_000, False), (63_001, True)])
def test_the_queue_counts_as_full_when_a_64th_of_its_bytes_does_not_fit(size, full):
    queue = a_queue(max_bytes=64_000)
    queue.put(a_batch(size=size - SHARE_BYTES))
    assert queue.refusal(a_batch(size=2000)) is not None
    assert (queue.space.short, queue.space.full) == (True, full)


def test_a_small_queue_is_full_when_not_one_unit_fits():
    queue = a_queue(queue_size=2, max_bytes=50)
    queue.put(a_batch(size=100))
    assert queue.refusal(a_batch()) is not None
    assert queue.space.full


def test_a_release_is_reported_as_progress_unless_the_batch_was_given_up():
    now = [5.0]
    queue = SendingQueue(Queue(queue_size=2), "x", clock=lambda: now[0])
    heard = []
    queue.space.observers.append(lambda: heard.append(now[0]))
    for _ in range(2):
        queue.put(a_batch())
    queue.refusal(a_batch())
    queue.release(taken(queue), progress=False)
    assert (heard, queue.space.short) == ([], False)
    queue.put(a_batch())
    queue.refusal(a_batch())
    queue.release(taken(queue))
    assert (heard, queue.space.freed_at) == ([5.0], 5.0)


def test_nobody_is_told_of_releases_that_nobody_waits_for():
    queue = a_queue(queue_size=2)
    queue.put(a_batch())
    queue.release(taken(queue))
    assert queue.space.freed_at == float("-inf")


async def test_everybody_offers_again_when_the_limits_change():
    queue = a_queue(queue_size=4, max_tenant_share=0.25)
    served = []
    for tenant in ("a", "b"):
        queue.put(of(tenant))
        Offer(lambda tenant=tenant: served.append(tenant)).wait(queue.refusal(of(tenant)))
    for _ in range(2):
        queue.put(of(""))
    Offer(lambda: served.append("")).wait(queue.refusal(of("")))
    queue.freed_for_all()
    await asyncio.sleep(0)
    assert sorted(served) == ["", "a", "b"]


def test_what_is_lost_for_lack_of_capacity_is_counted_by_the_owner():
    lost = []
    queue = SendingQueue(Queue(), "x", lost=lost.append)
    queue.space.lost(3)
    assert lost == [3]


def test_a_share_of_a_batch_counts_for_the_memory_that_is_given():
    queue = SendingQueue(Queue(), "x", 600)
    queue.put(a_batch(size=40, shares=2))
    assert queue.bytes == 40 + 2 * 600


def test_a_queue_with_all_units_or_bytes_taken_admits_nobody():
    for limits in ({"queue_size": 1}, {"max_bytes": 10 + SHARE_BYTES}):
        queue = a_queue(**limits)
        queue.admit()
        queue.put(a_batch())
        with pytest.raises(Overloaded):
            queue.admit()


def test_new_limits_are_no_progress():
    queue = a_queue()
    queue.freed()
    assert queue.space.freed_at == float("-inf")


@pytest.mark.parametrize("tenant", ["", "a"])
def test_a_batch_without_a_body_takes_memory_and_so_nothing_oversized_comes_beside_it(tenant):
    queue = a_queue(sizer="bytes", queue_size=1000, max_tenant_share=0.5)
    queue.put(of(tenant, size=0))
    assert (queue.size, queue.bytes) == (0, SHARE_BYTES)
    refusal = queue.refusal(of(tenant, size=800 if tenant else 1001))
    assert refusal is not None
    assert refusal.reason == ("tenant_queue_full" if tenant else "queue_full")


def test_a_small_queue_is_not_full_as_long_as_one_unit_or_byte_fits():
    for queue_size in (2, 100):
        queue = a_queue(queue_size=queue_size, sizer="items")
        queue.put(a_batch(queue_size - 1))
        assert queue.refusal(a_batch(2)) is not None
        assert not queue.space.full
    queue = SendingQueue(Queue(max_bytes=100), "x", 0)
    queue.put(a_batch(size=99))
    assert queue.refusal(a_batch(size=2)) is not None
    assert not queue.space.full


def test_the_capacity_names_the_exporter():
    assert a_queue().space.owner == "otlp_http/x"


def test_withdraws_what_another_queue_accepts_and_keeps_the_order_of_the_rest():
    queue = a_queue()
    batches = [a_batch(number) for number in range(1, 6)]
    for batch in batches:
        queue.put(batch)
    queue.put_off(taken(queue), 10.0)  # the batch of one item
    sent = taken(queue)  # the batch of two items
    moved = []

    def accept(entry):
        if entry.batch.items in {1, 4}:
            moved.append(entry.batch)
            return True
        return False

    queue.withdraw(accept)
    assert moved == [batches[3], batches[0]]
    assert (queue.items, queue.taken, len(queue)) == (10, 10, 2)
    assert [taken(queue).batch for _ in range(2)] == [batches[2], batches[4]]
    queue.forget(sent)
    assert (queue.items, queue.taken) == (8, 8)
    assert sent.released


def test_a_batch_that_moves_in_keeps_its_backoff():
    queue, backoff = a_queue(), object()
    queue.put(a_batch(), backoff)
    queue.put(a_batch())
    assert [taken(queue).backoff for _ in range(2)] == [backoff, None]
