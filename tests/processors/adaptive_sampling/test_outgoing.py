"""Batches wait for the next stage in order, are merged by sender, and are offered again."""

import asyncio

import pytest
import structlog

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.adaptive_sampling.outgoing import Outgoing
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import Catcher, NoHost, run


def batch(body, tenant, headers=None):
    return Batch(Signal.TRACES, body, 1, Origin("otlp", "http", tenant, headers or {}), [(Receipt(1), 1)])


def context():
    sampling = ComponentId("adaptive_sampling")
    return Context(sampling, Kind.PROCESSOR, Registry(), structlog.get_logger(), lambda: 0.0, NoHost())


def outgoing(catcher):
    return Outgoing(catcher.consume, context())


def test_batches_of_one_sender_are_merged():
    catcher = Catcher()
    box = outgoing(catcher)
    for body, tenant in ((b"1", "a"), (b"2", "a"), (b"3", "b"), (b"4", "a")):
        box.put(batch(body, tenant))
    assert box.size == 4
    box.flush()
    assert [(each.body, each.origin.tenant, each.items) for each in catcher.batches] == [
        (b"124", "a", 3), (b"3", "b", 1),
    ]  # fmt: skip
    assert not box
    assert box.size == 0


def test_other_headers_are_another_sender():
    catcher = Catcher()
    box = outgoing(catcher)
    box.put(batch(b"1", "a", {"x": "1"}))
    box.put(batch(b"2", "a", {"x": "2"}))
    box.flush()
    assert len(catcher.batches) == 2


@pytest.mark.parametrize(
    "other",
    [
        Origin("otlp/2", "http", "a", {}),
        Origin("otlp", "http", "b", {}),
        Origin("otlp", "http", "a", {"x": "1"}),
    ],
)
def test_only_batches_of_the_same_receiver_tenant_and_headers_are_merged(other):
    catcher = Catcher()
    box = outgoing(catcher)
    for origin in (Origin("otlp", "http", "a", {}), Origin("otlp", "http", "a", {}), other, other):
        box.put(Batch(Signal.TRACES, b"1", 1, origin, [(Receipt(1), 1)]))
    box.flush()
    assert [
        (each.items, each.origin.receiver, each.origin.tenant, each.origin.headers) for each in catcher.batches
    ] == [
        (2, "otlp", "a", {}),
        (2, other.receiver, other.tenant, other.headers),
    ]


def test_a_megabyte_or_1024_batches_are_merged_at_most():
    catcher = Catcher()
    box = outgoing(catcher)
    for body in [b"x" * 2**19] * 3 + [b"y"] * 2000:
        box.put(batch(body, "a"))
    box.flush()
    assert [(len(each.body), each.items) for each in catcher.batches] == [
        (2**20, 2),
        (2**19 + 1023, 1024),
        (977, 977),
    ]


def test_a_refused_batch_comes_first_the_next_time():
    async def live():
        catcher = Catcher()
        offered = []

        def send(each):
            offered.append(each.body)
            catcher.consume(each)

        box = Outgoing(send, context())
        catcher.error = Overloaded("full")
        for body in (b"1", b"2", b"3"):
            box.put(batch(body, "a", {"x": body.decode()}))
            box.flush()
        assert box.blocked
        assert box.size == 3
        await asyncio.sleep(0.5)
        assert len(offered) > 5
        assert {*offered} == {b"1"}
        catcher.error = None
        await asyncio.sleep(0.1)
        assert [each.body for each in catcher.batches] == [b"1", b"2", b"3"]
        assert not box.blocked

    run(live())


def test_a_merged_batch_is_limited_in_batches_and_bytes():
    catcher = Catcher()
    box = outgoing(catcher)
    for _ in range(1025):
        box.put(batch(b"x", "a"))
    for _ in range(3):
        box.put(batch(b"y" * 2**19, "b"))
    box.flush()
    assert [len(each.body) for each in catcher.batches] == [1024, 1, 2**20, 2**19]
