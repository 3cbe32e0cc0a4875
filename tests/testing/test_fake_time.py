import asyncio
import time

import pytest

from otelwp_agent.testing import FakeTimeLoop, run


def test_an_hour_passes_at_once():
    async def wait():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    before = time.monotonic()
    assert run(wait()) == 3600
    assert time.monotonic() - before < 60


def test_waiting_for_ever_fails():
    loop = FakeTimeLoop()
    try:
        with pytest.raises(AssertionError, match="the test would wait for ever"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()
