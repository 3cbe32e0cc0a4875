import asyncio

import pytest
from structlog.testing import capture_logs

from otelwp_agent.capacity import Offer
from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import run
from tests.kit.branches import Branch, Queue, fan


def batch(tenant=""):
    receipt = Receipt(1)
    return Batch(Signal.TRACES, b"", 1, Origin(tenant=tenant), ((receipt, 1),))


def offer(fan_out):
    """Offer a batch; return whether it was accepted."""
    try:
        fan_out.consume(batch())
    except Overloaded:
        return False
    return True


def queues(number=2):
    now = asyncio.get_running_loop().time
    return [Queue(f"exporters/{place}", now) for place in range(number)]


def test_a_branch_is_isolated_after_its_time_and_not_before():
    async def scenario():
        stuck, good = queues()
        fan_out = fan([stuck, good], clock=asyncio.get_running_loop().time)
        await asyncio.sleep(3)
        stuck.is_full = True
        assert not offer(fan_out)
        await asyncio.sleep(4.9)
        assert not offer(fan_out)
        await asyncio.sleep(0.2)
        assert (offer(fan_out), stuck.lost, stuck.capacity.isolated) == (True, 1, 1)
        assert (len(good.taken), len(stuck.taken)) == (1, 0)
        stuck.free()
        assert (offer(fan_out), len(stuck.taken), stuck.capacity.isolated) == (True, 1, 0)
        fan_out.close()

    run(scenario())


def test_progress_postpones_isolation():
    async def scenario():
        slow, good = queues()
        fan_out = fan([slow, good], clock=asyncio.get_running_loop().time)
        for _ in range(10):
            slow.is_full = True
            assert not offer(fan_out)
            await asyncio.sleep(4)
            slow.free()
            slow.is_full = True
            assert not offer(fan_out), "it was full again before anybody came"
        assert slow.capacity.isolated == 0
        await asyncio.sleep(5.1)
        assert slow.capacity.isolated == 1
        fan_out.close()

    run(scenario())


def test_what_retries_give_up_frees_capacity_but_is_no_progress():
    async def scenario():
        dead, good = queues()
        fan_out = fan([dead, good], clock=asyncio.get_running_loop().time)
        dead.is_full = True
        assert not offer(fan_out)
        await asyncio.sleep(6)
        dead.free(progress=False)
        assert offer(fan_out)
        assert len(dead.taken) == 1
        dead.is_full = True
        assert offer(fan_out), "it is still isolated, and nobody waits for it"
        assert (dead.lost, dead.capacity.isolated) == (1, 1)
        fan_out.close()
        assert dead.capacity.isolated == 0

    run(scenario())


def test_the_last_branch_that_is_not_stuck_is_never_isolated():
    async def scenario():
        first, second = queues()
        fan_out = fan([first, second], clock=asyncio.get_running_loop().time)
        first.is_full = True
        assert not offer(fan_out)
        await asyncio.sleep(6)
        assert offer(fan_out)
        second.is_full = True
        for _ in range(100):
            assert not offer(fan_out)
            await asyncio.sleep(1)
        assert [first.capacity.isolated, second.capacity.isolated] == [1, 0]
        first.free()
        await asyncio.sleep(4)
        assert not offer(fan_out), "the second gets its time to recover"
        await asyncio.sleep(2)
        assert offer(fan_out)
        assert [first.capacity.isolated, second.capacity.isolated] == [0, 1]
        fan_out.close()

    run(scenario())


def test_a_refusal_without_an_exporter_behind_it_isolates_nobody():
    async def scenario():
        memory, good = Branch(RetryableError("memory")), Branch()
        fan_out = fan([memory, good], clock=asyncio.get_running_loop().time)
        for _ in range(20):
            with pytest.raises(RetryableError):
                fan_out.consume(batch())
            await asyncio.sleep(1)
        assert good.taken == []

    run(scenario())


def test_the_fan_out_nearest_to_the_exporter_isolates():
    async def scenario():
        now = asyncio.get_running_loop().time
        stuck, good = queues()
        near, other = fan([stuck, good], clock=now), Branch()
        far = fan([near, other], clock=now, patience=1.1)
        stuck.is_full = True
        with capture_logs() as logs:
            assert not offer(far)
            await asyncio.sleep(20)
            assert offer(far)
        assert [log["event"] for log in logs] == ["exporter isolated"]
        assert (len(other.taken), len(good.taken), stuck.lost) == (1, 1, 1)
        for each in (near, far):
            each.close()

    run(scenario())


def test_what_waits_is_offered_when_the_branch_is_isolated():
    async def scenario():
        stuck, good = queues()
        fan_out = fan([stuck, good], clock=asyncio.get_running_loop().time)

        def again():
            try:
                fan_out.consume(one)
            except Overloaded as refusal:
                waiting.wait(refusal)

        one, waiting = batch(), Offer(again)
        stuck.is_full = True
        again()
        await asyncio.sleep(4.9)
        assert good.taken == []
        await asyncio.sleep(0.2)
        assert len(good.taken) == 1
        fan_out.close()

    run(scenario())
