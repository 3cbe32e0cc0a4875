import asyncio

import pytest
import structlog

from otelwp_agent.component import ComponentId, Context, Kind, NoHost
from otelwp_agent.errors import MalformedError
from otelwp_agent.exporters import recent_traces
from otelwp_agent.exporters.recent_traces import FACTORY
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.traces.store import TraceQuery
from tests.kit.page_traces import page
from tests.kit.stages import batch_of


@pytest.fixture
def exporter():
    context = Context(
        id=ComponentId("recent_traces"),
        kind=Kind.EXPORTER,
        registry=Registry(),
        log=structlog.get_logger(),
        clock=lambda: 0.0,
        host=NoHost(),
    )
    return FACTORY.build(FACTORY.config(max_mib=1), context)


async def test_traces_are_kept_and_counted(exporter):
    assert await exporter.export(batch_of(page(1).SerializeToString(), 9)) == 0
    assert [trace["spans"] for trace in exporter.store.search(TraceQuery())] == [9]
    registry = exporter.context.registry
    assert registry.value("otelwp_recent_traces", exporter="recent_traces") == 1
    assert registry.value("otelwp_recent_traces_bytes") == exporter.store.bytes


async def test_large_bodies_are_read_in_a_thread(exporter, monkeypatch):
    threads = []
    monkeypatch.setattr(recent_traces, "READ_OFF_LOOP", 100)
    to_thread = asyncio.to_thread
    monkeypatch.setattr(asyncio, "to_thread", lambda *call: threads.append(call) or to_thread(*call))
    await exporter.export(batch_of(page(1).SerializeToString(), 9))
    assert (len(threads), len(exporter.store)) == (1, 1)


async def test_malformed_bodies_are_refused(exporter):
    with pytest.raises(MalformedError):
        await exporter.export(batch_of(b"\xff", 1))
