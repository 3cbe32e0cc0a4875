"""The queue and the sends of an exporter, with a tenant that floods it or whose backend never answers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.model.batch import Origin
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.fair_queue import IDLE_TENANTS
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import Destination, a_request, a_sender


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


def a_queue(**settings) -> SendingQueue:
    return SendingQueue(Queue(**settings), "otlp_http/x")


def fill(queue: SendingQueue, tenant: str) -> int:
    """Put batches of a tenant until it is refused; return their number."""
    for number in range(10_000):
        try:
            queue.put(a_request("a", tenant=tenant))
        except Overloaded:
            return number
    raise AssertionError("nothing stops it")


def test_however_many_tenants_flood_the_queue_there_is_capacity_for_another():
    queue = a_queue(queue_size=1000)
    names = [f"loud{number}" for number in range(20)]
    assert fill(queue, names[0]) == 500
    refusal = queue.refusal(a_request("a", tenant=names[0]))
    assert (refusal.tenant, refusal.reason) == (names[0], "tenant_queue_full")
    for _ in range(2000):
        for name in names:
            fill(queue, name)
        queue.release(queue.take())
    assert 1000 - queue.size >= 1000 // 21 - 20
    assert queue.refusal(a_request("b", tenant="quiet")) is None


def test_tenants_that_flood_it_all_the_time_get_the_same():
    """Whoever began with half of the queue gets no more of what is released until all have the same."""
    queue = a_queue(queue_size=900)
    names = ["first", "second", "third"]
    for name in names:
        fill(queue, name)
    for _ in range(2000):
        queue.release(queue.take())
        for name in names:
            fill(queue, name)
    assert [queue._tenants.of(name).size for name in names] == pytest.approx([225] * 3, abs=2)


def test_a_flood_does_not_wait_for_space_that_others_need():
    """A refused tenant waits for its own share: the queue stays open for all others."""
    queue = a_queue(queue_size=10)
    fill(queue, "loud")
    queue.refusal(a_request("a", tenant="loud"))
    assert (queue.space.short, queue.space.full) == (False, False)
    queue.admit()


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 400)) | st.none(), max_size=100))
def test_sums_hold_and_a_refusal_names_who_is_its_cause(steps):
    queue = a_queue(queue_size=12, max_bytes=6000)
    for step in steps:
        if step is None:
            if queue.ready:
                queue.release(queue.take())
        else:
            tenant, padding = step
            batch = a_request("a", tenant=tenant, padding=padding)
            line = queue._tenants.of(tenant)
            refusal = queue.refusal(batch)
            if refusal is None:
                queue.put(batch)
                assert queue.size <= queue.capacity
            elif refusal.tenant:
                assert refusal.tenant == tenant
                assert line.size, "a tenant without anything in the queue is never its own cause"
            else:
                assert queue.size
                queue.freed()  # nobody waits
        lines = [queue._tenants.of(tenant) for tenant in ("", "a", "b", "c")]
        assert sum(line.size for line in lines) == queue.size
        assert sum(line.bytes for line in lines) == queue.bytes


def test_a_hundred_thousand_names_leave_nothing_behind():
    queue = a_queue()
    batch = a_request("a")
    for number in range(100_000):
        batch = batch.with_body(batch.body)
        batch.origin = Origin(tenant=str(number))
        queue.put(batch)
        queue.release(queue.take())
    assert len(queue._tenants._tenants) <= IDLE_TENANTS
    assert (queue.size, queue.bytes, queue._shares) == (0, 0, {})


def test_the_queues_of_many_tenants_with_batches_are_not_looked_through_for_each_new_one():
    queue = a_queue(queue_size=1_000_000, max_bytes="1GiB", max_tenant_share=1)
    lines = queue._tenants
    rebuilt = 0
    before = lines._tenants
    for number in range(10_000):
        queue.put(a_request("a", tenant=str(number)))
        rebuilt += lines._tenants is not before
        before = lines._tenants
    assert rebuilt < 10


class TestSends:
    """Ten sends at once, and tenants whose backend does not answer."""

    def run(self, loop, stuck, answer, **settings):
        """Send one quiet batch each half second for a minute, and after two seconds 30 batches of each stuck tenant.

        Returns how long each quiet batch waited for its delivery.
        """

        async def export(names):
            if names[0].startswith("stuck"):
                await answer()
            await asyncio.sleep(0.1)
            return 0

        exporter = Destination(export, loop.time)
        sender = a_sender(exporter, Queue(**settings))
        waited = []

        def one(number):
            batch, began = a_request(f"quiet{number}", tenant="quiet"), loop.time()
            batch.shares[0][0].on_settled = lambda _: waited.append(loop.time() - began)
            sender.consume(batch)

        async def scenario():
            await sender.start()
            for number in range(120):
                one(number)
                if number == 4:
                    for tenant in stuck:
                        for _ in range(30):
                            sender.consume(a_request("stuck", tenant=tenant))
                await asyncio.sleep(0.5)
            await sender.shutdown()

        loop.run_until_complete(scenario())
        return waited

    @pytest.mark.parametrize("stuck", [["a"], ["a", "b"], list("abcd")])
    def test_tenants_whose_backend_never_answers_leave_sends_for_another(self, loop, stuck):
        """Until the first sends end, a batch may wait for the timeout of 5 s; later, hardly."""
        waited = self.run(loop, stuck, lambda: asyncio.sleep(10_000))
        assert len(waited) == 120
        assert max(waited) <= 5.2
        assert max(waited[20:]) <= 0.2

    def test_without_shares_they_do_not(self, loop):
        waited = self.run(loop, ["a"], lambda: asyncio.sleep(10_000), max_tenant_share=1)
        assert max(waited[20:]) > 1

    @pytest.mark.parametrize("error", [RetryableError("503"), Overloaded("429", retry_after=30)])
    def test_failures_of_one_tenant_do_not_pause_the_others(self, loop, error):
        async def fail():
            await asyncio.sleep(0.05)
            raise error

        waited = self.run(loop, ["a"], fail)
        assert (len(waited), max(waited)) == (120, pytest.approx(0.1, abs=0.3))

    @pytest.mark.parametrize(("tenant", "number"), [("a", 9), ("", 10)])
    def test_a_tenant_alone_has_all_sends_but_one(self, loop, tenant, number):
        exporter = Destination(lambda _: asyncio.sleep(1000), loop.time)
        sender = a_sender(exporter)

        async def scenario():
            await sender.start()
            for _ in range(30):
                sender.consume(a_request("x", tenant=tenant))
            await asyncio.sleep(1)

        loop.run_until_complete(scenario())
        assert (len(exporter.tries), sender._concurrency.sending) == (number, number)
        loop.run_until_complete(sender.shutdown())

    def test_when_a_send_ends_the_tenant_begins_the_next(self, loop):
        async def answer(names):
            await asyncio.sleep(1)
            return 0

        exporter = Destination(answer, loop.time)
        sender = a_sender(exporter, Queue(num_consumers=4, min_concurrency=4))
        batches = [a_request(str(number), tenant="a") for number in range(12)]

        async def scenario():
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            await asyncio.sleep(4.5)

        loop.run_until_complete(scenario())
        assert exporter.times == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        loop.run_until_complete(sender.shutdown())

    def test_at_the_end_batches_that_rest_are_sent_or_dropped_like_all_others(self, loop):
        async def answer(names):
            await asyncio.sleep(1)
            return 0

        sender = a_sender(Destination(answer, loop.time), Queue(num_consumers=3, min_concurrency=3))
        batches = [a_request(str(number), tenant="a") for number in range(12)]

        async def scenario():
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            await asyncio.sleep(0.5)
            return await sender.drain(loop.time() + 3)

        drained = loop.run_until_complete(scenario())
        assert (drained.delivered, drained.left) == (6, 6)
        assert all(receipt.pending == 0 for batch in batches for receipt, _ in batch.shares)


@given(st.integers(1, 30), st.integers(1, 12), st.lists(st.integers(0, 11), max_size=60))
def test_the_sends_of_all_tenants_leave_one_for_another(limit, tenants, order):
    concurrency, own = Concurrency(1, limit), [0] * tenants
    for place in order:
        tenant = place % tenants
        if own[tenant] and concurrency.sending < limit and concurrency.allows(own[tenant]):
            own[tenant] += 1
            concurrency.sending += 1
        elif not own[tenant] and concurrency.sending < limit:
            own[tenant] = 1
            concurrency.sending = sum(own)
    beyond = [number for number in own if number > 1]
    if beyond and concurrency.sending == limit:
        assert own.count(1), "only a tenant without any send gets the last one"


def test_a_tenant_alone_raises_the_limit_again_after_it_was_halved():
    concurrency = Concurrency(1, 8)
    for second in range(4):
        concurrency.failed(second, second + 0.5)
    assert concurrency.limit == 1
    for second in range(10, 200):
        concurrency.sending = max(1, concurrency.limit - 1)
        busy = concurrency.is_busy("a")
        concurrency.succeeded(second, second + 0.01, 100, busy=busy)
    assert concurrency.limit == 8
