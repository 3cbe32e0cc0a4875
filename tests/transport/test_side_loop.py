from __future__ import annotations

import asyncio
import threading

import pytest

from otelwp_agent.transport.side_loop import SideLoop


@pytest.fixture
def side():
    return SideLoop("side")


def names():
    return [thread.name for thread in threading.enumerate()]


async def test_work_runs_on_a_thread_of_its_own(side):
    side.acquire()

    async def where():
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert await side.run(where()) == "side"
    assert side.call(lambda: threading.current_thread().name) == "side"
    side.release()
    assert "side" not in names()


async def test_it_runs_until_the_last_user_leaves_and_starts_anew(side):
    for _ in range(2):
        side.acquire()
        side.acquire()
        loop = side.call(asyncio.get_running_loop)
        side.release()
        assert side.call(asyncio.get_running_loop) is loop
        side.release()
        assert loop.is_closed()
        assert "side" not in names()
    with pytest.raises(RuntimeError, match="not acquired"):
        side.call(threading.current_thread)


async def test_errors_come_back(side):
    side.acquire()

    async def fail():
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await side.run(fail())
    with pytest.raises(ZeroDivisionError):
        side.call(lambda: 1 // 0)
    side.release()


async def test_cancelling_the_waiter_cancels_the_work(side):
    side.acquire()
    began, cancelled = threading.Event(), threading.Event()

    async def wait():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await side.run(wait())
    assert await asyncio.to_thread(cancelled.wait, 60)
    assert began.is_set()
    side.release()
