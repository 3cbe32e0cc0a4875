from __future__ import annotations

import asyncio
from heapq import heappop, heappush

import pytest

from otelwp_agent.sending.workers import Workers
from otelwp_agent.testing import FakeTimeLoop


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


class Jobs:
    """Jobs that take a second each, some of which cannot begin before their time."""

    def __init__(self, loop: FakeTimeLoop, number: int = 2) -> None:
        self.loop = loop
        self.waiting: list[tuple[float, str]] = []
        self.done: list[tuple[float, str]] = []
        self.cancelled: list[str] = []
        self.asked = 0
        self.workers = Workers(self, number, loop.time)

    def add(self, name: str, at: float = 0) -> None:
        heappush(self.waiting, (at, name))
        self.workers.wake()

    def next_job(self):
        self.asked += 1
        if self.waiting and self.waiting[0][0] <= self.loop.time() + 1e-6:
            return self.do(heappop(self.waiting)[1])
        return None

    def due(self):
        at = self.waiting[0][0]
        return None if at == float("inf") else at

    def idle(self):
        return not self.waiting

    async def do(self, name: str) -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.done.append((self.loop.time(), name))


def test_as_many_jobs_at_once_as_there_are_workers(loop):
    jobs = Jobs(loop)

    async def scenario():
        jobs.workers.start("test")
        for name in "abcde":
            jobs.add(name)
        await jobs.workers.finish(100)

    loop.run_until_complete(scenario())
    assert jobs.done == [(1, "a"), (1, "b"), (2, "c"), (2, "d"), (3, "e")]
    assert not asyncio.all_tasks(loop)


def test_what_is_for_later_begins_by_itself_in_time(loop):
    jobs = Jobs(loop)

    async def scenario():
        jobs.workers.start("test")
        jobs.add("late", at=9)
        await asyncio.sleep(2)
        jobs.add("soon", at=3)
        jobs.add("now")
        await asyncio.sleep(20)
        asked = jobs.asked
        await asyncio.sleep(1000)
        assert jobs.asked == asked  # nobody looks when there is nothing
        await jobs.workers.finish(loop.time())

    loop.run_until_complete(scenario())
    assert jobs.done == [(3, "now"), (4, "soon"), (10, "late")]


def test_finish_waits_for_what_is_for_later_until_its_deadline_and_cancels_what_is_being_done(loop):
    jobs = Jobs(loop)

    async def scenario():
        jobs.workers.start("test")
        for name, at in [("a", 0), ("b", 4), ("c", 6.5), ("never", float("inf"))]:
            jobs.add(name, at)
        await jobs.workers.finish(7)
        return loop.time()

    assert loop.run_until_complete(scenario()) == 7
    assert jobs.done == [(1, "a"), (5, "b")]
    assert jobs.cancelled == ["c"]
    assert jobs.workers.stopped
    assert not asyncio.all_tasks(loop)


def test_a_worker_that_ends_tells_those_that_sleep(loop):
    jobs = Jobs(loop, number=5)

    async def scenario():
        jobs.workers.start("test")
        jobs.add("only", at=3)
        await jobs.workers.finish(1000)
        return loop.time()

    assert loop.run_until_complete(scenario()) == 4


def test_stops_without_a_start_and_twice(loop):
    jobs = Jobs(loop)
    loop.run_until_complete(jobs.workers.finish(0))
    loop.run_until_complete(jobs.workers.finish(0))


def test_workers_that_have_had_nothing_to_do_begin_what_comes_later(loop):
    jobs = Jobs(loop)
    assert jobs.workers.stopped is False

    async def scenario():
        jobs.workers.start("test")
        await asyncio.sleep(5)
        assert {task.get_name() for task in asyncio.all_tasks()} >= {"test 0", "test 1"}
        jobs.add("a")
        await asyncio.sleep(5)
        await jobs.workers.finish(100)

    loop.run_until_complete(scenario())
    assert jobs.done == [(6, "a")]


def test_what_may_begin_in_less_than_a_second_begins_in_time(loop):
    jobs = Jobs(loop)

    async def scenario():
        jobs.workers.start("test")
        jobs.add("a", at=0.5)
        await asyncio.sleep(3)
        await jobs.workers.finish(100)

    loop.run_until_complete(scenario())
    assert jobs.done == [(1.5, "a")]


def test_what_may_never_begin_by_itself_stops_no_worker(loop):
    jobs = Jobs(loop)

    async def scenario():
        jobs.workers.start("test")
        jobs.add("never", at=float("inf"))
        await asyncio.sleep(5)
        jobs.add("a")
        await asyncio.sleep(5)
        await jobs.workers.finish(loop.time())

    loop.run_until_complete(scenario())
    assert jobs.done == [(6, "a")]


@pytest.mark.parametrize(("deadline", "ended"), [(10.0, 20.5), (20.7, 20.7)])
def test_the_deadline_is_a_time_on_the_clock_and_may_be_over(loop, deadline, ended):
    jobs = Jobs(loop)

    async def scenario():
        await asyncio.sleep(20)
        jobs.workers.start("test")
        jobs.add("a")
        await asyncio.sleep(0.5)
        await jobs.workers.finish(deadline)
        return loop.time()

    assert loop.run_until_complete(scenario()) == pytest.approx(ended)
    assert jobs.cancelled == ["a"]


def test_finish_waits_for_what_it_has_cancelled_and_may_be_called_again(loop):
    class Slow(Jobs):
        async def do(self, name):
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)
                self.cancelled.append(name)

    jobs = Slow(loop)

    async def scenario():
        jobs.workers.start("test")
        jobs.add("a")
        jobs.add("b", at=90)
        await asyncio.sleep(1)
        await jobs.workers.finish(5)
        assert jobs.cancelled == ["a"]
        await jobs.workers.finish(5)
        return loop.time()

    assert loop.run_until_complete(scenario()) == 7
