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
