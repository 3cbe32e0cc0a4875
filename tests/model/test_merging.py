"""Batches that may be merged are merged in order, up to the limits."""

from __future__ import annotations

import pytest

from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.merging import MergeLimits, Merger, merge_key, same_sender
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from tests.kit.stages import batch_of


def batch(signal=Signal.TRACES, encodings=(), **origin):
    return Batch(signal, b"x", 1, Origin(**origin), [(Receipt(1), 1)], encodings)


def test_a_merger_counts_and_merges_in_order():
    merger = Merger(MergeLimits())
    one, two = batch_of(b"ab", 2), batch_of(b"cde", 3)
    merger.add(one)
    merger.add(two)
    assert (merger.items, merger.size) == (5, 5)
    merged = merger.take()
    assert merged.body == b"abcde"
    assert merged.items == 5
    assert merged.shares == [*one.shares, *two.shares]
    assert (merger.items, merger.size, merger.batches) == (0, 0, [])


def test_the_merged_batch_gets_the_given_origin():
    merger = Merger(MergeLimits())
    merger.add(batch_of(b"a", 1))
    origin = Origin(tenant="acme")
    assert merger.take(origin).origin is origin


@pytest.mark.parametrize(
    ("limits", "complete"),
    [
        (MergeLimits(), [False, False, False]),
        (MergeLimits(items=4), [False, True, True]),
        (MergeLimits(size=9), [False, False, True]),
        (MergeLimits(batches=2), [False, True, True]),
    ],
)
def test_a_merger_is_complete_at_the_first_limit(limits, complete):
    merger = Merger(limits)
    seen = []
    for _ in range(3):
        seen.append(merger.add(batch_of(b"abc", 2)))
        assert merger.complete is seen[-1]
    assert seen == complete
    merger.take()
    assert not merger.complete


def test_the_key_separates_signals_tenants_and_the_chosen_headers():
    different = [
        batch(),
        batch(Signal.LOGS),
        batch(tenant="acme"),
        batch(headers={"shop": "a"}),
        batch(headers={"shop": "b"}),
    ]
    assert len({merge_key(each, ["shop"]) for each in different}) == len(different)
    assert merge_key(batch(headers={"other": "1"}), ["shop"]) == merge_key(batch(), ["shop"])
    assert merge_key(batch(headers={"shop": "a"}), ()) == merge_key(batch(receiver="zipkin"), ())


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Origin("otlp", "grpc", "acme", {"a": "1"}), True),
        (Origin("zipkin", "http", "acme", {"a": "1"}), False),
        (Origin("otlp", "http", "", {"a": "1"}), False),
        (Origin("otlp", "http", "acme", {"a": "2"}), False),
    ],
)
def test_a_sender_has_one_receiver_tenant_and_set_of_headers(other, same):
    assert same_sender(Origin("otlp", "http", "acme", {"a": "1"}), other) is same
