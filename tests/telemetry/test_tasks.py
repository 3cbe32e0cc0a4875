import asyncio
import gc

import pytest
from structlog.testing import capture_logs

from otelwp_agent.telemetry.tasks import spawn


async def test_a_task_has_its_name_and_its_result():
    async def answer():
        return 42

    task = spawn(answer(), name="answer")
    assert task.get_name() == "answer"
    assert await task == 42


async def test_a_task_that_nobody_holds_lives_on():
    begun, done = asyncio.Event(), asyncio.Event()

    async def wait():
        await begun.wait()
        done.set()

    spawn(wait(), name="wait")
    await asyncio.sleep(0)
    gc.collect()
    begun.set()
    async with asyncio.timeout(60):
        await done.wait()


async def test_a_task_that_dies_is_told():
    async def die():
        message = "it broke"
        raise ValueError(message)

    with capture_logs() as logs:
        task = spawn(die(), name="fragile")
        await asyncio.wait({task})
        await asyncio.sleep(0)
    (line,) = [line for line in logs if line.get("task") == "fragile"]
    assert line["log_level"] == "error"
    assert isinstance(line["exc_info"], ValueError)


async def test_a_task_that_is_cancelled_is_not():
    with capture_logs() as logs:
        task = spawn(asyncio.sleep(60), name="sleeper")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
    assert logs == []
