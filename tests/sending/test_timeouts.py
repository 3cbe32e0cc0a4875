from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.sending.timeouts import Timeouts
from otelwp_agent.testing import FakeTimeLoop


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


async def work(watch: Timeouts, seconds: float) -> str:
    task = watch.begin()
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not watch.is_late(task) or task.cancelling() > 1:
            raise
        return "late"
    else:
        return "done"
    finally:
        watch.end(task)
        assert task.cancelling() in {0, 1}


def test_only_what_takes_too_long_is_cancelled_each_at_its_own_time(loop):
    async def scenario():
        watch, ends = Timeouts(5), {}

        async def one(begin: float, seconds: float) -> None:
            await asyncio.sleep(begin)
            ends[begin, seconds] = await work(watch, seconds), loop.time()

        await asyncio.gather(*(one(begin, seconds) for begin in (0, 1, 3, 20) for seconds in (4, 6, 60)))
        return ends

    ends = loop.run_until_complete(scenario())
    for (begin, seconds), (how, when) in ends.items():
        assert (how, when) == (("done", begin + 4) if seconds == 4 else ("late", begin + 5))


def test_no_timeout_is_as_long_as_it_takes(loop):
    assert loop.run_until_complete(work(Timeouts(0), 10_000)) == "done"


def test_a_task_can_be_late_again_and_again(loop):
    async def scenario():
        watch = Timeouts(5)
        return [await work(watch, seconds) for seconds in (6, 4, 6, 6, 4)]

    assert loop.run_until_complete(scenario()) == ["late", "done", "late", "late", "done"]


def test_who_is_cancelled_by_others_is_cancelled_late_or_not(loop):
    async def scenario(when: float) -> None:
        task = asyncio.ensure_future(work(Timeouts(5), 60))
        loop.call_at(when, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    loop.run_until_complete(scenario(2))
    loop.run_until_complete(scenario(loop.time() + 5))


def test_close_leaves_no_timer(loop):
    async def scenario() -> float:
        watch = Timeouts(5)
        task = asyncio.ensure_future(work(watch, 60))
        await asyncio.sleep(1)
        watch.close()
        assert await task == "done"
        return loop.time()

    assert loop.run_until_complete(scenario()) == 60


def test_what_ended_in_time_is_watched_no_more(loop):
    async def scenario() -> str:
        watch = Timeouts(5)
        assert await work(watch, 4) == "done"
        await asyncio.sleep(60)
        return "not cancelled"

    assert loop.run_until_complete(scenario()) == "not cancelled"


def test_a_task_that_was_late_is_late_no_more_once_it_has_ended(loop):
    async def scenario() -> None:
        watch = Timeouts(5)
        assert await work(watch, 6) == "late"
        task = asyncio.current_task()
        assert task is not None
        assert not watch.is_late(task)

    loop.run_until_complete(scenario())


def test_close_cancels_the_timer_and_what_begins_later_is_watched_again(loop):
    async def scenario() -> None:
        watch = Timeouts(5)
        watch.close()
        task = asyncio.ensure_future(work(watch, 3))
        await asyncio.sleep(1)
        timer = watch._timer
        watch.close()
        watch.close()
        assert timer is not None
        assert timer.cancelled()
        await task
        assert await work(watch, 6) == "late"

    loop.run_until_complete(scenario())
