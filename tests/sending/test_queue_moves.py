"""Batches that move from a queue to another destination."""

from __future__ import annotations

from tests.kit.queues import a_queue, of, taken


def test_waiting_batches_that_belong_move_and_the_others_stay_in_their_order():
    queue = a_queue()
    retried = of("z", items=3)
    queue.put(retried)
    queue.put_off(taken(queue), 9.0)
    a1, a2, a3, b1, b2, c1 = [of(tenant) for tenant in "aaabbc"]
    for batch in (a1, a2, a3, b1, b2, c1):
        queue.put(batch)
    offered = []

    def forward(batch):
        offered.append(batch)
        return batch is not a2

    queue.move(lambda batch: batch is not b1, forward)
    assert offered == [a1, a2, b2, c1, retried]
    assert (queue.size, queue.items, queue.taken, queue.later) == (3, 3, 3, [])
    assert [taken(queue).batch for _ in range(3)] == [a2, a3, b1]  # a turn is 64 KiB
    assert not queue.ready


def test_a_stage_that_waits_for_capacity_offers_again():
    queue = a_queue(queue_size=1)
    queue.put(of("a"))
    queue.space.refuse()
    queue._watched = True
    queue.move(lambda _: True, lambda _: True)
    assert not queue.space.full
    assert queue.size == queue.bytes == 0
