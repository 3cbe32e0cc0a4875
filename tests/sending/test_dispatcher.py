from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from otelwp_agent.config.blocks import CircuitBreaker, Queue
from otelwp_agent.sending.breaker import PRECEDENCE, Breaker, Permit, State
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.dispatcher import Dispatcher
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import a_request, names_in

if TYPE_CHECKING:
    from otelwp_agent.sending.queued_batch import QueuedBatch


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


class Sends:
    """A dispatcher of batches that take a second each to send, some of which wait for a retry first."""

    def __init__(self, loop: FakeTimeLoop, number: int = 2) -> None:
        self.loop = loop
        self.done: list[tuple[float, str]] = []
        self.cancelled: list[str] = []
        self.permits: list[Permit] = []
        self.asked = 0
        self.queue = SendingQueue(Queue(), "test", clock=loop.time)
        self.breaker = Breaker(CircuitBreaker(failures=1, open_time="5s"), lambda: 0.5)
        self.concurrency = Concurrency(1, number)
        self.dispatcher = Dispatcher(self.queue, self.breaker, self.concurrency, number, self.clock)

    def clock(self) -> float:
        self.asked += 1
        return self.loop.time()

    def start(self) -> None:
        self.dispatcher.start("test", self.send)

    def add(self, name: str, at: float = 0) -> None:
        """Queue a batch; with `at`, as one whose retry is due then. Nothing else may be ready in that case."""
        self.queue.put(a_request(name))
        if at:
            assert not self.queue.ready[0].first
            assert len(self.queue.ready[0].waiting) == 1
            self.queue.put_off(self.queue.take(), at)
        self.dispatcher.wake()

    async def send(self, entry: QueuedBatch, permit: Permit) -> None:
        (name,) = names_in(entry.batch)
        self.permits.append(permit)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.queue.release(entry)
        if permit is Permit.PROBE:
            self.breaker.answered()
        self.done.append((self.loop.time(), name))


def test_as_many_sends_at_once_as_there_are_tasks(loop):
    sends = Sends(loop)

    async def scenario():
        sends.start()
        for name in "abcde":
            sends.add(name)
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(1, "a"), (1, "b"), (2, "c"), (2, "d"), (3, "e")]
    assert sends.concurrency.sending == 0
    assert not asyncio.all_tasks(loop)


def test_no_more_sends_at_once_than_the_limit_of_concurrency(loop):
    sends = Sends(loop, number=4)
    sends.concurrency.limit = 1

    async def scenario():
        sends.start()
        for name in "abc":
            sends.add(name)
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(1, "a"), (2, "b"), (3, "c")]


def test_a_retry_begins_by_itself_when_it_is_due(loop):
    sends = Sends(loop)

    async def scenario():
        sends.start()
        sends.add("late", at=9)
        await asyncio.sleep(2)
        sends.add("soon", at=3)
        sends.add("now")
        await asyncio.sleep(20)
        asked = sends.asked
        await asyncio.sleep(1000)
        assert sends.asked == asked  # an empty queue needs no timer
        await sends.dispatcher.finish(loop.time())

    loop.run_until_complete(scenario())
    assert sends.done == [(3, "now"), (4, "soon"), (10, "late")]


def test_while_the_breaker_is_open_nothing_is_sent_and_then_one_probe(loop):
    sends = Sends(loop)

    async def scenario():
        sends.breaker.failed(Permit.TRY, loop.time())
        assert sends.breaker.state is State.OPEN
        sends.start()
        for name in "abc":
            sends.add(name)
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(6, "a"), (7, "b"), (7, "c")]
    assert sends.permits == [Permit.PROBE, Permit.TRY, Permit.TRY]


def test_a_probe_is_a_batch_that_was_never_tried(loop):
    sends = Sends(loop)

    async def scenario():
        sends.breaker.failed(Permit.TRY, loop.time())
        sends.add("failed", at=1)
        sends.start()
        sends.add("new")
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(6, "new"), (7, "failed")]


def test_hurry_delays_neither_retries_nor_the_probe(loop):
    sends = Sends(loop)

    async def scenario():
        sends.breaker.failed(Permit.TRY, loop.time())
        sends.add("failed", at=50)
        sends.start()
        await asyncio.sleep(2)
        sends.dispatcher.hurry()
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(3, "failed")]
    assert sends.permits == [Permit.PROBE]


def test_finish_waits_for_retries_until_its_deadline_and_cancels_the_sends_under_way(loop):
    sends = Sends(loop)

    async def scenario():
        for name, at in [("b", 4), ("c", 6.5), ("never", float("inf")), ("a", 0)]:
            sends.add(name, at)
        sends.start()
        await sends.dispatcher.finish(7)
        return loop.time()

    assert loop.run_until_complete(scenario()) == 7
    assert sends.done == [(1, "a"), (5, "b")]
    assert sends.cancelled == ["c"]
    assert sends.concurrency.sending == 0
    assert sends.dispatcher.stopped
    assert not asyncio.all_tasks(loop)


def test_a_task_that_ends_wakes_those_that_sleep(loop):
    sends = Sends(loop, number=5)

    async def scenario():
        sends.add("only", at=3)
        sends.start()
        await sends.dispatcher.finish(1000)
        return loop.time()

    assert loop.run_until_complete(scenario()) == 4


def test_it_listens_to_the_breaker_until_it_is_closed(loop):
    sends = Sends(loop)
    assert sends.breaker.listeners == [sends.dispatcher.wake]
    sends.dispatcher.close()
    sends.dispatcher.close()
    assert sends.breaker.listeners == []


def test_stops_without_a_start_and_twice(loop):
    sends = Sends(loop)
    loop.run_until_complete(sends.dispatcher.finish(0))
    loop.run_until_complete(sends.dispatcher.finish(0))


def test_tasks_that_have_had_nothing_to_send_send_what_comes_later(loop):
    sends = Sends(loop)
    assert (sends.dispatcher.stopped, sends.dispatcher.draining) == (False, False)

    async def scenario():
        sends.start()
        await asyncio.sleep(5)
        assert {task.get_name() for task in asyncio.all_tasks()} >= {"test 0", "test 1"}
        sends.add("a")
        await asyncio.sleep(5)
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(6, "a")]


def test_a_retry_that_is_due_in_less_than_a_second_begins_in_time(loop):
    sends = Sends(loop)

    async def scenario():
        sends.start()
        sends.add("a", at=0.5)
        await asyncio.sleep(3)
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(1.5, "a")]


@pytest.mark.parametrize(("deadline", "ended"), [(10.0, 20.5), (20.7, 20.7)])
def test_the_deadline_is_a_time_on_the_clock_and_may_be_over(loop, deadline, ended):
    sends = Sends(loop)

    async def scenario():
        await asyncio.sleep(20)
        sends.start()
        sends.add("a")
        await asyncio.sleep(0.5)
        await sends.dispatcher.finish(deadline)
        return loop.time()

    assert loop.run_until_complete(scenario()) == pytest.approx(ended)
    assert sends.cancelled == ["a"]


def test_finish_waits_for_the_sends_that_it_has_cancelled_and_may_be_called_again(loop):
    class Slow(Sends):
        async def send(self, entry, permit):
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)
                self.queue.release(entry)
                self.cancelled.extend(names_in(entry.batch))

    sends = Slow(loop)

    async def scenario():
        sends.add("b", at=90)
        sends.start()
        sends.add("a")
        await asyncio.sleep(1)
        await sends.dispatcher.finish(5)
        assert sends.cancelled == ["a"]
        await sends.dispatcher.finish(5)
        return loop.time()

    assert loop.run_until_complete(scenario()) == 7


def test_a_retry_that_is_due_is_the_probe_if_nothing_else_waits(loop):
    sends = Sends(loop)

    async def scenario():
        sends.breaker.failed(Permit.TRY, loop.time())
        sends.add("failed", at=1)
        sends.start()
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert (sends.done, sends.permits) == ([(6, "failed")], [Permit.PROBE])


def test_a_retry_that_is_due_goes_before_batches_that_were_never_tried(loop):
    sends = Sends(loop, number=1)

    async def scenario():
        sends.add("retry", at=0.5)
        sends.start()
        sends.add("first")
        sends.add("new")
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done == [(1, "first"), (2, "retry"), (3, "new")]


def test_when_a_send_may_be_possible_without_being_woken(loop):
    sends = Sends(loop)
    dispatcher, breaker = sends.dispatcher, sends.breaker
    sends.add("a")
    assert dispatcher._due() == 0.0
    breaker.failed(Permit.TRY, 0)
    assert dispatcher._due() == breaker.until == 5
    assert breaker.acquire(5, dispatcher) is Permit.PROBE
    assert dispatcher._due() is None, "the probe decides"
    breaker.listeners.append(lambda: None)
    breaker.failed(Permit.PROBE, 6)
    assert dispatcher._due() == breaker.until + PRECEDENCE, "another sender of the exporter comes first"
    sends.concurrency.sending = sends.concurrency.limit
    assert dispatcher._due() is None


def test_a_dispatcher_whose_probe_failed_asks_after_the_others(loop):
    sends = Sends(loop)

    async def scenario():
        sends.breaker.listeners.append(lambda: None)
        sends.breaker.failed(Permit.TRY, loop.time())
        sends.add("a")
        await asyncio.sleep(5)
        assert sends.dispatcher._permit() is Permit.PROBE
        sends.breaker.failed(Permit.PROBE, loop.time())
        await asyncio.sleep(10 + PRECEDENCE / 2)
        assert sends.dispatcher._permit() is Permit.NONE
        await asyncio.sleep(PRECEDENCE)
        assert sends.dispatcher._permit() is Permit.PROBE

    loop.run_until_complete(scenario())


def test_a_tenant_leaves_one_send_for_the_others(loop):
    sends = Sends(loop, number=3)

    async def scenario():
        sends.start()
        for number in range(5):
            sends.queue.put(a_request(f"loud{number}", tenant="loud"))
        sends.dispatcher.wake()
        await asyncio.sleep(0.5)
        sends.queue.put(a_request("quiet", tenant="quiet"))
        sends.dispatcher.wake()
        await sends.dispatcher.finish(100)

    loop.run_until_complete(scenario())
    assert sends.done[:3] == [(1, "loud0"), (1, "loud1"), (1.5, "quiet")]
    assert len(sends.done) == 6
