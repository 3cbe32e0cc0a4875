from __future__ import annotations

import asyncio
import time

import pytest
import structlog

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.queue_batch import batcher, max_bytes
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost
from tests.kit.senders import a_request


class Sink:
    def __init__(self):
        self.accepted = []

    def consume(self, batch):
        self.accepted.append((batch.items, len(batch.body)))


def fed(queue: Queue, *sizes: tuple[int, int], headers: tuple[dict[str, str], ...] = ()):
    """Send batches of (items, bytes) to the batcher; return those that it forwards at once."""
    context = Context(ComponentId("x"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost())
    merging = batcher(queue, context)
    assert merging is not None
    merging.next = sink = Sink()
    for number, (items, size) in enumerate(sizes):
        origin = Origin(headers=headers[number] if headers else {})
        merging.consume(Batch(Signal.TRACES, b"x" * size, items, origin, [(Receipt(items), items)]))
    return sink.accepted


def test_nothing_is_merged_by_default():
    context = Context(ComponentId("x"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost())
    assert batcher(Queue(), context) is None


@pytest.mark.parametrize(
    ("settings", "forwarded"),
    [
        ({"batch": {"min_size": 4}}, [(4, 40)]),
        ({"batch": {"min_size": 4}, "sizer": "items"}, [(4, 40)]),
        ({"batch": {"min_size": 35, "sizer": "bytes"}}, [(4, 40)]),
        ({"batch": {"min_size": 15}, "sizer": "bytes"}, [(2, 20), (2, 20)]),
        ({"batch": {"min_size": 2, "sizer": "items"}, "sizer": "bytes"}, [(2, 20), (2, 20)]),
        ({"batch": {"min_size": 0}}, [(1, 10)] * 4),
        ({"batch": {"min_size": 0, "sizer": "bytes"}}, [(1, 10)] * 4),
    ],
)
async def test_min_size_counts_in_its_own_unit_or_the_queues(settings, forwarded):
    assert fed(Queue(**settings), *[(1, 10)] * 4) == forwarded


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, None),
        ({"batch": {"max_size": 9000}}, None),
        ({"batch": {"sizer": "bytes"}}, None),
        ({"batch": {"sizer": "bytes", "max_size": 9000}}, 9000),
        ({"batch": {"max_size": 9000}, "sizer": "bytes", "queue_size": 10_000}, 9000),
    ],
)
def test_max_size_limits_bytes_only_when_bytes_count(settings, limit):
    assert max_bytes(Queue(**settings)) == limit


async def test_partitions_are_not_merged():
    queue = Queue(batch={"min_size": 2, "partition": {"metadata_keys": ["X-Shop"]}})
    shops = ({"x-shop": "a"}, {"x-shop": "b"}, {"x-shop": "a"})
    assert fed(queue, (1, 10), (1, 11), (1, 12), headers=shops) == [(2, 22)]


async def test_where_bytes_count_the_number_of_items_sends_nothing():
    assert fed(Queue(batch={"min_size": 35, "sizer": "bytes"}), (40, 10), (40, 10)) == []


async def test_max_size_in_items_divides_what_is_larger_and_max_size_in_bytes_leaves_that_to_the_sender():
    for sizer, taken in (("items", [2, 2, 1]), ("bytes", [5])):
        context = Context(ComponentId("x"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost())
        merging = batcher(Queue(batch={"min_size": 1, "max_size": 2, "sizer": sizer}), context)
        merging.next = sink = Sink()
        merging.consume(a_request(*"abcde"))
        await merging.shutdown()
        assert [items for items, _ in sink.accepted] == taken


async def test_a_batch_is_sent_after_the_flush_timeout():
    queue = Queue(batch={"flush_timeout": "1500us"})
    context = Context(ComponentId("x"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost())
    merging = batcher(queue, context)
    merging.next = sink = Sink()
    started = time.monotonic()
    merging.consume(Batch(Signal.TRACES, b"x", 1, Origin(), [(Receipt(1), 1)]))
    while not sink.accepted:
        await asyncio.sleep(0)
    assert 0.0015 <= time.monotonic() - started < 60
