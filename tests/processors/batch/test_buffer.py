from __future__ import annotations

from otelwp_agent.model.batch import Origin
from otelwp_agent.processors.batch.buffer import Buffer
from tests.kit.stages import batch_of


def test_it_counts_and_merges_in_order():
    buffer = Buffer()
    one, two = batch_of(b"ab", 2), batch_of(b"cde", 3)
    buffer.add(one)
    buffer.add(two)
    assert (buffer.items, buffer.size) == (5, 5)
    merged = buffer.take()
    assert merged.body == b"abcde"
    assert merged.items == 5
    assert merged.shares == [*one.shares, *two.shares]
    assert (buffer.items, buffer.size, buffer.batches) == (0, 0, [])


def test_an_origin_of_its_own():
    buffer = Buffer()
    buffer.add(batch_of(b"a", 1))
    origin = Origin(tenant="acme")
    assert buffer.take(origin).origin is origin


def test_an_empty_one_gives_nothing():
    assert Buffer().take() is None
