import asyncio

import pytest

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import Catcher, FakeClock, NoHost, batch_of, make_context, request

BATCH = batch_of(Signal.TRACES, request(Signal.TRACES))


def test_a_catcher_stores_batches_or_raises_the_set_error():
    catcher = Catcher()
    catcher.admit()
    assert catcher.consume(BATCH) is None
    catcher.errors = [Overloaded("once")]
    with pytest.raises(Overloaded, match="once"):
        catcher.consume(BATCH)
    catcher.consume(BATCH)
    catcher.error = Overloaded("each time")
    for _ in range(2):
        with pytest.raises(Overloaded, match="each time"):
            catcher.consume(BATCH)
    assert (catcher.batches, catcher.items) == ([BATCH, BATCH], 2 * BATCH.items)


async def test_a_sender_waits_for_a_catcher_that_answers_late():
    catcher = Catcher()
    catcher.waiting = []
    late = catcher.consume(BATCH, answer="accepted")
    ((future, answer),) = catcher.waiting
    assert isinstance(late, asyncio.Future)
    assert (future, answer) == (late, "accepted")


def test_a_context_is_complete():
    context = make_context(Kind.EXPORTER, "acme", "two", clock=FakeClock(5.0), pipeline="logs")
    assert (context.id, context.kind, context.pipeline) == (ComponentId("acme", "two"), Kind.EXPORTER, "logs")
    assert context.clock() == 5.0
    assert context.host.ready


def test_a_host_runs_nothing():
    host = NoHost()
    assert (host.status, host.started_at, host.components(), host.providers(object)) == ("ready", 0.0, (), ())


def test_a_clock_is_set():
    clock = FakeClock()
    clock.now += 2
    assert clock() == 2
