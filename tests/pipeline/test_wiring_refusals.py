"""Refusals by a whole graph leave nothing in memory: neither the error nor the refused body."""

import asyncio
import gc

import pytest

from otelwp_agent.component import ComponentId
from otelwp_agent.errors import RetryableError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import run
from tests.kit.senders import a_request
from tests.pipeline.test_wiring import LAYOUTS, QUEUES, graph_of


@pytest.fixture
def uncollected():
    """Return the number of objects of some classes, without running the garbage collector."""
    gc.collect()
    gc.disable()
    yield lambda *classes: sum(isinstance(each, classes) for each in gc.get_objects())
    gc.enable()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("processors", ["", "batch", "batch, pass"])
@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_refused_request_is_freed_at_once(uncollected, layout, processors, tenant):
    """A cycle between an error and the frame that raised it would keep the body until the garbage collector runs."""

    async def scenario():
        loop = asyncio.get_running_loop()
        graph = graph_of(layout, processors, [QUEUES[0]] * 3, loop.time)
        for exporter in graph.exporters.values():
            exporter.gate.clear()
        await graph.start()
        graph.adopt()
        entry = graph.receivers[ComponentId("hand")].next[Signal.TRACES]

        def is_refused():
            try:
                entry.consume(a_request(*"abcdef", tenant=tenant))
            except RetryableError:
                return True
            return False

        while not is_refused():
            await asyncio.sleep(0.1)
        before = uncollected(Batch, RetryableError)
        for _ in range(10):
            assert is_refused()
        assert uncollected(Batch, RetryableError) == before
        for exporter in graph.exporters.values():
            exporter.gate.set()
        await graph.retire(None, loop.time() + 10)

    run(scenario())
