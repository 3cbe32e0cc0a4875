"""How a sender's settings reach its parts, and what it passes on to them."""

from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.capacity import Offer
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.breaker import State
from otelwp_agent.sending.metrics import breaker_of
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import Destination, a_request, a_sender, hang, outcomes, scripted

DOWN = RetryableError("down")


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


def settled(loop, sender, *batches, seconds=0.0):
    """Start the sender, send batches and wait."""

    async def scenario():
        await sender.start()
        for batch in batches:
            sender.consume(batch)
        await asyncio.sleep(seconds)

    loop.run_until_complete(scenario())


@pytest.mark.parametrize(("keeps", "share"), [(False, 200), (True, 600)])
def test_a_journal_makes_each_share_of_a_batch_larger_in_memory(loop, keeps, share):
    exporter = Destination(scripted(), loop.time)
    sender = a_sender(exporter, keeps=keeps)
    batch = merge([a_request("a"), a_request("b")])
    sender.consume(batch)
    assert exporter.metric("otelwp_exporter_queue_bytes") == len(batch.body) + 2 * share
    loop.run_until_complete(sender.shutdown())


def test_a_sender_names_its_exporter_and_signal(loop):
    exporter = Destination(scripted(), loop.time)
    sender = a_sender(exporter)
    assert (sender.exporter, sender.signal) == (exporter, Signal.TRACES)
    loop.run_until_complete(sender.shutdown())


def test_a_batcher_that_collects_nothing_refuses_what_the_queue_refuses(loop):
    batch = {"min_size": 0, "max_size": 5, "flush_timeout": "2s"}
    sender = a_sender(Destination(scripted(), loop.time), Queue(batch=batch, queue_size=1))

    async def fill():
        sender.consume(a_request("a"))
        return sender.refusal(a_request("b"))

    assert "the sending queue of test/one is full" in str(loop.run_until_complete(fill()))
    loop.run_until_complete(sender.shutdown())


def test_a_batcher_collects_while_the_queue_is_full(loop):
    batch = {"min_size": 3, "flush_timeout": "2s"}
    sender = a_sender(Destination(scripted(), loop.time), Queue(batch=batch, queue_size=1))

    async def fill():
        sender.consume(a_request("a", "b", "c"))
        assert sender.health().details["queue_size"] == 1
        return sender.refusal(a_request("d"))

    assert loop.run_until_complete(fill()) is None
    loop.run_until_complete(sender.shutdown())


@pytest.mark.parametrize(("number", "wait"), [(0.0, 2.5), (1.0, 7.5)])
def test_the_random_part_of_a_wait_is_random(loop, number, wait):
    exporter = Destination(scripted(DOWN), loop.time)
    sender = a_sender(exporter, retry=Retry(circuit_breaker={"enabled": False}), random=lambda: number)
    settled(loop, sender, a_request("a"), seconds=10)
    assert exporter.times == [0, wait]
    loop.run_until_complete(sender.shutdown())


@pytest.mark.parametrize(("number", "seconds"), [(0.0, 8), (1.0, 12)])
def test_so_is_that_of_its_own_breaker(loop, number, seconds):
    retry = Retry(circuit_breaker={"failures": 1, "open_time": "10s"})
    sender = a_sender(Destination(scripted(DOWN), loop.time), retry=retry, random=lambda: number)
    settled(loop, sender, a_request("a"))
    assert (sender.breaker.state, sender.breaker.until) == (State.OPEN, seconds)
    loop.run_until_complete(sender.shutdown())


def test_a_breaker_that_is_given_is_shared_until_the_sender_stops(loop):
    exporter = Destination(scripted(DOWN), loop.time)
    retry = Retry(circuit_breaker={"failures": 1})
    breaker = breaker_of(exporter.context, retry, lambda: 0.5)
    one, two = (a_sender(exporter, retry=retry, breaker=breaker) for _ in range(2))
    assert one.breaker is two.breaker is breaker
    settled(loop, one, a_request("a"))
    settled(loop, two, a_request("b"))
    assert len(exporter.tries) == 1, "no sender tries while it is open"
    assert len(breaker.listeners) == 2
    loop.run_until_complete(one.shutdown())
    loop.run_until_complete(two.shutdown())
    assert breaker.listeners == []


@pytest.mark.parametrize(
    ("of_exporter", "of_batch", "names"),
    [(None, 0, 4), (40, 0, 1), (None, 40, 1), (40, 500, 1), (500, 40, 1), (500, 500, 4)],
)
def test_the_smaller_limit_of_bytes_counts(loop, of_exporter, of_batch, names):
    exporter = Destination(scripted(), loop.time)
    exporter.max_request_bytes = of_exporter
    batch = {"sizer": "bytes", "min_size": 1, "max_size": of_batch} if of_batch else None
    sender = a_sender(exporter, Queue(batch=batch))
    settled(loop, sender, a_request(*[letter * 10 for letter in "abcd"]), seconds=1)
    assert max(len(names) for _, names in exporter.tries) == names
    loop.run_until_complete(sender.shutdown())


def test_the_queue_names_the_exporter_when_it_refuses_and_counts_by_its_clock(loop):
    sender = a_sender(Destination(scripted(), loop.time), Queue(queue_size=1))
    sender.consume(a_request("a"))
    refusal = sender.refusal(a_request("b"))
    assert "the sending queue of test/one is full" in str(refusal)
    settled(loop, sender, seconds=3)
    assert refusal.capacity.freed_at == 0.0, "the time of the loop"
    assert sender.refusal(a_request("b")) is None
    loop.run_until_complete(sender.shutdown())


@pytest.mark.parametrize("batch", [None, {"min_size": 3, "flush_timeout": "2s"}])
def test_a_sender_that_stops_refuses_with_its_id(loop, batch):
    sender = a_sender(Destination(scripted(), loop.time), Queue(batch=batch))
    sender.admit()
    assert sender.refusal(a_request("a")) is None
    loop.run_until_complete(sender.shutdown())
    refusals = [sender.refusal(a_request("a"))]
    for call in (sender.admit, lambda: sender.consume(a_request("a"))):
        with pytest.raises(Overloaded) as error:
            call()
        refusals.append(error.value)
    assert [(str(refusal), refusal.reason) for refusal in refusals] == [
        ("test/one is shutting down", "shutting_down")
    ] * 3


def test_the_use_of_the_queue_is_that_of_the_tenant(loop):
    sender = a_sender(Destination(scripted(), loop.time), Queue(queue_size=10))
    for _ in range(3):
        sender.consume(a_request("a", tenant="shop"))
    assert (sender.fill("shop"), sender.fill("blog")) == (0.6, pytest.approx(0.2))
    loop.run_until_complete(sender.shutdown())


def test_its_headers_are_those_by_which_its_batcher_separates(loop):
    batch = {"min_size": 3, "partition": {"metadata_keys": ["X-Site"]}}
    destination = Destination(scripted(), loop.time)
    sender, plain = a_sender(destination, Queue(batch=batch)), a_sender(destination)
    assert (list(sender.headers), list(plain.headers)) == (["x-site"], [])
    for each in (sender, plain):
        loop.run_until_complete(each.shutdown())


@pytest.mark.parametrize("call", ["rewired", "drain"])
def test_stages_that_wait_for_the_queue_or_a_share_of_it_offer_again_after_a_reload(loop, call):
    sender = a_sender(Destination(hang, loop.time), Queue(queue_size=2, sizer="items"), timeout=0)
    offered = []

    async def scenario():
        sender.consume(a_request("a", tenant="shop"))
        for tenant, names in (("shop", ["b"]), ("blog", ["c", "d"])):
            with pytest.raises(Overloaded) as error:
                sender.consume(a_request(*names, tenant=tenant))
            Offer(lambda tenant=tenant: offered.append(tenant)).wait(error.value)
        if call == "rewired":
            sender.rewired()
        else:
            drain = asyncio.ensure_future(sender.drain(loop.time() + 100))
        await asyncio.sleep(1)
        before = list(offered)
        if call == "drain":
            drain.cancel()
        return before

    assert sorted(loop.run_until_complete(scenario())) == ["blog", "shop"]
    loop.run_until_complete(sender.shutdown())


def test_its_tasks_have_its_name_and_signal(loop):
    sender = a_sender(Destination(scripted(), loop.time), Queue(num_consumers=2))
    settled(loop, sender)
    names = sorted(task.get_name() for task in asyncio.all_tasks(loop))
    assert names == ["send test/one traces 0", "send test/one traces 1"]
    loop.run_until_complete(sender.shutdown())


@pytest.mark.parametrize(("least", "limit"), [(1, 2), (3, 3)])
def test_failures_lower_the_number_of_sends_at_once_to_the_least_permitted(loop, least, limit):
    queue = Queue(num_consumers=4, min_concurrency=least)
    sender = a_sender(Destination(scripted(DOWN), loop.time), queue)
    assert sender.health().details["concurrency"] == 4
    settled(loop, sender, a_request("a"))
    assert sender.health().details["concurrency"] == limit
    loop.run_until_complete(sender.shutdown())


class TestDrained:
    """What `drain` returns counts from its call."""

    def test_what_was_delivered_before_does_not_count(self, loop):
        sender = a_sender(Destination(scripted(), loop.time))
        settled(loop, sender, a_request("a", "b"), seconds=1)

        async def drain():
            sender.consume(a_request("c"))
            return await sender.drain(loop.time() + 5)

        drained = loop.run_until_complete(drain())
        assert (drained.delivered, drained.left, drained.kept) == (1, 0, 0)

    @pytest.mark.parametrize("keeps", [False, True])
    def test_a_second_call_has_nothing_left(self, loop, keeps):
        sender = a_sender(Destination(scripted(), loop.time), keeps=keeps)
        batch = a_request("a", "b")
        if keeps:
            batch.shares[0][0].claim = Claim()
        sender.consume(batch)
        first = loop.run_until_complete(sender.drain(loop.time()))
        again = loop.run_until_complete(sender.drain(loop.time()))
        assert (first.delivered, first.left, first.kept) == (0, 0 if keeps else 2, 2 if keeps else 0)
        assert (again.delivered, again.left, again.kept) == (0, 0, 0)

    def test_a_batcher_that_cannot_forward_does_not_delay_the_deadline(self, loop):
        batch = {"min_size": 3, "flush_timeout": "2s"}
        exporter = Destination(hang, loop.time)
        sender = a_sender(exporter, Queue(batch=batch, queue_size=1, num_consumers=1), timeout=0)
        batches = [a_request("a", "b", "c"), a_request("d", "e", "f"), a_request("g")]
        settled(loop, sender, *batches, seconds=1)
        drained = loop.run_until_complete(sender.drain(loop.time() + 4))
        assert (loop.time(), drained.delivered, drained.left) == (5, 0, 3)
        loop.run_until_complete(sender.shutdown())
        assert loop.time() == 5, "without a wait"
        assert [outcomes(batch)[0][1] for batch in batches] == [3, 3, 1]

    def test_a_shutdown_does_not_wait_for_a_batcher_that_cannot_forward(self, loop):
        batch = {"min_size": 3, "flush_timeout": "2s"}
        queue = Queue(batch=batch, queue_size=1, num_consumers=1)
        sender = a_sender(Destination(hang, loop.time), queue, timeout=0)
        settled(loop, sender, a_request("a", "b", "c"), a_request("d", "e", "f"), seconds=1)
        loop.run_until_complete(sender.shutdown())
        assert loop.time() == 1

    def test_an_attempt_that_ended_leaves_no_timer(self, loop):
        sender = a_sender(Destination(scripted(), loop.time), timeout=60)
        settled(loop, sender, a_request("a"), seconds=1)
        loop.run_until_complete(sender.drain(loop.time() + 5))
        assert all(timer.cancelled() for timer in loop._scheduled)


class Claim:
    done = ()

    def entered(self, items):
        pass


def test_what_the_ledger_and_health_of_a_sender_say(loop):
    sender = a_sender(Destination(scripted(0, PermanentError("no", reason="http_401")), loop.time))
    settled(loop, sender, a_request("a", "b"), seconds=1)
    assert sender.health().healthy
    settled(loop, sender, a_request("c"), seconds=1)
    line = sender.line()
    assert (line.name, line.accepted, line.delivered, line.dropped, line.in_flight) == ("test/one", 3, 2, 1, 0)
    assert not sender.health().healthy
    assert sender.health().id == "test/one"
    loop.run_until_complete(sender.shutdown())


@pytest.mark.parametrize("batch", [None, {"min_size": 3, "flush_timeout": "2s"}])
def test_a_sender_holds_a_batch_until_it_has_been_sent(loop, batch):
    async def slow(_):
        await asyncio.sleep(1)
        return 0

    sender = a_sender(Destination(slow, loop.time), Queue(batch=batch))

    async def scenario():
        await sender.start()
        held = [sender.holds]
        sender.consume(a_request("a"))
        for _ in range(5):
            held.append(sender.holds)
            await asyncio.sleep(0.9)
        await sender.shutdown()
        return held

    assert loop.run_until_complete(scenario()) == [False, True, True, batch is not None, batch is not None, False]
