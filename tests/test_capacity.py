import asyncio
from itertools import pairwise

from otelwp_agent.capacity import LONGEST_RETRY, Capacity, Offer
from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.testing import run


class Buffer:
    """A buffer with `free` places, and stages that keep what it refuses."""

    def __init__(self):
        self.free = 0
        self.capacity = Capacity("exporters/x", asyncio.get_running_loop().time, isolate_after=5.0)
        self.accepted = []
        self.tried = []

    def keeper(self, name, size=1):
        def again():
            self.tried.append(name)
            if self.capacity.full or self.free < size:
                self.capacity.refuse(full=False)
                offer.wait(Overloaded("full", capacity=self.capacity))
                return
            self.free -= size
            self.accepted.append(name)

        offer = Offer(again)
        return offer, again


def test_waiting_stages_are_served_in_order_and_a_small_batch_never_overtakes_a_large_one():
    async def scenario():
        buffer = Buffer()
        for name, size in (("large", 3), ("small", 1), ("smaller", 1)):
            buffer.keeper(name, size)[1]()
        assert buffer.capacity.full
        for free in (1, 1, 1):
            buffer.free += free
            buffer.capacity.freed()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert buffer.accepted == ["large"]
        assert buffer.capacity.full, "the others wait"
        buffer.free = 5
        buffer.capacity.freed()
        assert buffer.capacity.full, "newcomers are refused until those that wait have been offered"
        await asyncio.sleep(0)
        assert buffer.accepted == ["large", "small", "smaller"]
        assert not buffer.capacity.full
        assert not buffer.capacity.watched

    run(scenario())


def test_there_is_no_offer_while_nothing_is_freed_and_one_offer_for_each_release():
    async def scenario():
        buffer = Buffer()
        for number in range(1000):
            buffer.keeper(number)[1]()
        buffer.tried.clear()
        await asyncio.sleep(100)
        assert buffer.tried == []
        buffer.free = 1
        buffer.capacity.freed()
        await asyncio.sleep(0)
        assert buffer.accepted == [0]
        assert len(buffer.tried) == 2

    run(scenario())


def test_a_refused_batch_that_is_not_kept_does_not_block_smaller_ones():
    async def scenario():
        buffer = Buffer()
        buffer.capacity.refuse(full=False)
        assert (buffer.capacity.short, buffer.capacity.full) == (True, False)
        buffer.capacity.freed()
        assert not buffer.capacity.short
        buffer.capacity.refuse()
        assert buffer.capacity.full
        buffer.capacity.freed()
        assert not buffer.capacity.full

    run(scenario())


def test_a_cancelled_offer_is_not_made():
    async def scenario():
        buffer = Buffer()
        offer, again = buffer.keeper("a")
        again()
        assert offer.capacity is buffer.capacity
        offer.cancel()
        offer.cancel()
        assert (offer.waiting, offer.capacity) == (False, None)
        buffer.free = 1
        buffer.capacity.freed()
        await asyncio.sleep(1)
        assert buffer.accepted == []

    run(scenario())


def test_a_refusal_without_capacity_is_offered_again_by_a_timer_that_slows_down():
    async def scenario():
        loop, times = asyncio.get_running_loop(), []

        def again():
            times.append(loop.time())
            if len(times) < 10:
                offer.wait(RetryableError("memory"))
            else:
                offer.accepted()

        offer = Offer(again)
        offer.wait(RetryableError("memory"))
        await asyncio.sleep(10)
        gaps = [round(later - sooner, 6) for sooner, later in pairwise(times)]
        assert gaps[:3] == [0.01, 0.02, 0.04]
        assert set(gaps[3:]) == {LONGEST_RETRY}

    run(scenario())


def test_progress_includes_the_chain_of_causes():
    async def scenario():
        now = asyncio.get_running_loop().time
        queue = Capacity("exporters/x", now, isolate_after=5.0)
        share = Capacity("exporters/x", now, share="acme", cause=queue)
        stage = Capacity("processors/batch", now, cause=share)
        assert stage.root is queue
        heard = []
        queue.observers.append(lambda: heard.append(now()))
        await asyncio.sleep(1)
        queue.freed()
        await asyncio.sleep(1)
        queue.freed(progress=False)
        assert (stage.progressed_at, stage.freed_at, heard) == (1, float("-inf"), [1])

    run(scenario())
