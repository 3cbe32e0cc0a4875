import asyncio
import threading
import time

from otelwp_agent.replay.simulated_time import SimulatedLoop


def run(coroutine):
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(coroutine)


def test_hours_pass_at_once_and_in_order():
    async def work():
        loop = asyncio.get_running_loop()
        seen = []
        loop.call_later(7200, lambda: seen.append(("two hours", loop.time())))
        loop.call_later(0.25, lambda: seen.append(("a moment", loop.time())))
        await asyncio.sleep(3600)
        seen.append(("an hour", loop.time()))
        await asyncio.sleep(100_000)
        return seen, loop.time()

    began = time.monotonic()
    seen, end = run(work())
    assert [name for name, _ in seen] == ["a moment", "an hour", "two hours"]
    assert [round(at, 6) for _, at in seen] == [0.25, 3600, 7200]
    assert round(end, 3) == 103_600
    assert time.monotonic() - began < 60


def test_timers_of_a_day_do_not_lose_their_place():
    async def work():
        loop = asyncio.get_running_loop()
        times = []
        for number in range(10_000):
            loop.call_at(86_000 + number * 0.1, lambda: times.append(loop.time()))
        await asyncio.sleep(90_000)
        return times

    times = run(work())
    assert times == sorted(times)
    assert len(times) == 10_000


def test_work_in_a_thread_is_waited_for():
    async def work():
        done = threading.Event()
        await asyncio.to_thread(done.set)
        return done.is_set()

    assert run(work())
