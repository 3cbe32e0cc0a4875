"""Nothing that is read, cut or merged through a projection may change what a request means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Batch, Origin, merge
from otelwp_agent.model.projections import (
    check,
    count,
    parse,
    split,
    split_batch,
    split_bytes,
    split_items,
    split_receipts,
)
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import delimited, full, meaning, requests, signals_and_requests

if TYPE_CHECKING:
    from google.protobuf.message import Message

SPINES = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
}
MALFORMED = [b"\xff", b"\x0a", b"\x0a\x05\x12", delimited(1, b"\xff"), delimited(1, delimited(2, b"\x12\x7f"))]


def without(message: Message, field: str) -> bytes:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def points_of(metric: Message) -> tuple[bytes, list[bytes]]:
    """Return a metric without its points, and them."""
    kind = metric.WhichOneof("data")
    if kind is None:
        return metric.SerializeToString(deterministic=True), []
    points = [point.SerializeToString(deterministic=True) for point in getattr(metric, kind).data_points]
    copy = type(metric)()
    copy.CopyFrom(metric)
    del getattr(copy, kind).data_points[:]
    return copy.SerializeToString(deterministic=True), points


def flat(signal: Signal, body: bytes) -> list[tuple[bytes, ...]]:
    """Return each item with all that it stands in, in order; what holds no items, as itself."""
    resources, scopes, items = SPINES[signal]
    request = full(signal, body)
    root = without(request, resources)
    rows: list[tuple[bytes, ...]] = []
    for resource in getattr(request, resources):
        in_resource = (root, without(resource, scopes))
        if not getattr(resource, scopes):
            rows.append(in_resource)
        for scope in getattr(resource, scopes):
            in_scope = (*in_resource, without(scope, items))
            if not getattr(scope, items):
                rows.append(in_scope)
            for item in getattr(scope, items):
                if signal is Signal.METRICS:
                    head, points = points_of(item)
                    rows += [(*in_scope, head, b"point", point) for point in points] or [(*in_scope, head)]
                else:
                    rows.append((*in_scope, item.SerializeToString(deterministic=True)))
    return rows


def full_count(signal: Signal, body: bytes) -> int:
    return len([row for row in flat(signal, body) if len(row) == (6 if signal is Signal.METRICS else 4)])


EMPTY_REQUESTS = settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
"""Many of the drawn requests have no items, and are left out."""


def a_batch(signal: Signal, body: bytes, shares: list[int] | None = None) -> Batch:
    items = count(signal, body)
    sizes = [items] if shares is None else shares
    return Batch(signal, body, items, Origin(), [(Receipt(size), size) for size in sizes])


@given(signals_and_requests(repeats=True))
def test_counts_as_a_full_parse_does(pair):
    signal, body = pair
    assert count(signal, body) == check(signal, body) == full_count(signal, body)


@given(signals_and_requests(repeats=True), st.data())
def test_one_request_after_the_other_is_the_merged_request(pair, data):
    signal, first = pair
    second = data.draw(requests(signal, repeats=True))
    merged = merge([a_batch(signal, first), a_batch(signal, second)])
    expected = full(signal, first)
    expected.MergeFrom(full(signal, second))
    assert meaning(signal, merged.body) == expected.SerializeToString(deterministic=True)
    assert merged.items == count(signal, merged.body)


ANY_SIGNAL = [pb.Opaque, pb.Shape]
PROJECTIONS = [
    *[(projection, signal) for signal in Signal for projection in ANY_SIGNAL],
    (pb.Points, Signal.METRICS),
    (pb.PointShape, Signal.METRICS),
]


@pytest.mark.parametrize(("projection", "signal"), PROJECTIONS)
@given(data=st.data())
@settings(max_examples=40)
def test_a_projection_gives_back_what_it_read(projection, signal, data):
    body = data.draw(requests(signal, repeats=True))
    assert meaning(signal, projection.FromString(body).SerializeToString()) == meaning(signal, body)


@pytest.mark.parametrize(
    ("projection", "signal"),
    [
        *[(projection, signal) for signal in Signal for projection in (pb.Resources, pb.Slices)],
        (pb.Keys, Signal.TRACES),
    ],
)
@given(data=st.data())
@settings(max_examples=40)
def test_a_projection_with_slices_gives_back_what_it_read(projection, signal, data):
    # A slice is `bytes`: of a resource that stands there twice, which no encoder writes, it would keep the last alone.
    body = data.draw(requests(signal))
    assert meaning(signal, projection.FromString(body).SerializeToString()) == meaning(signal, body)


@pytest.mark.parametrize(
    ("projection", "signal"),
    [
        (pb.SpanAttributes, Signal.TRACES),
        (pb.SampledSpan, Signal.TRACES),
        (pb.LogAttributes, Signal.LOGS),
        (pb.SampledLog, Signal.LOGS),
        (pb.MetricAttributes, Signal.METRICS),
        (pb.Metric, Signal.METRICS),
    ],
)
@given(data=st.data())
@settings(max_examples=40)
def test_a_projection_of_an_item_gives_back_what_it_read(projection, signal, data):
    body = data.draw(requests(signal))
    request = pb.Opaque.FromString(body)
    for resource in request.resources:
        for scope in resource.scopes:
            scope.items[:] = [projection.FromString(item).SerializeToString() for item in scope.items]
    assert meaning(signal, request.SerializeToString()) == meaning(signal, body)


@st.composite
def cuts(draw, total: int) -> list[int]:
    """Draw sizes of at least 1 that add up to `total`."""
    edges = sorted(draw(st.sets(st.integers(1, max(1, total - 1)), max_size=6)))
    edges = [edge for edge in edges if edge < total]
    return [end - start for start, end in zip([0, *edges], [*edges, total], strict=True)] if total else []


@given(signals_and_requests(repeats=True), st.data())
def test_the_parts_of_a_request_hold_what_it_held(pair, data):
    signal, body = pair
    sizes = data.draw(cuts(count(signal, body)))
    parts = split(signal, body, sizes)
    assert [row for part in parts for row in flat(signal, part)] == flat(signal, body)
    assert [full_count(signal, part) for part in parts] == (sizes or [0])


@given(signals_and_requests(), st.integers(-2, 2).filter(bool))
def test_sizes_that_do_not_add_up_are_a_bug_in_the_caller(pair, by):
    signal, body = pair
    with pytest.raises(ValueError, match="items were to be split, but there are"):
        split(signal, body, [max(0, count(signal, body) + by) or 5])


@EMPTY_REQUESTS
@given(signals_and_requests(), st.data())
def test_receipts_are_divided_as_the_items_are(pair, data):
    signal, body = pair
    total = count(signal, body)
    assume(total)  # of a request without items no batch is made
    batch = a_batch(signal, body, data.draw(cuts(total)))
    parts = split_batch(batch, data.draw(cuts(total)))
    owners = [id(receipt) for receipt, items in batch.shares for _ in range(items)]
    assert [id(receipt) for part in parts for receipt, items in part.shares for _ in range(items)] == owners
    for part in parts:
        assert sum(items for _, items in part.shares) == part.items == count(signal, part.body)
        part.settle(Outcome.DELIVERED)
    assert all(receipt.pending == 0 for receipt, _ in batch.shares)


@EMPTY_REQUESTS
@given(signals_and_requests(), st.integers(1, 5))
def test_splits_by_items(pair, max_items):
    signal, body = pair
    assume(count(signal, body))
    parts = split_items(a_batch(signal, body), max_items)
    assert [row for part in parts for row in flat(signal, part.body)] == flat(signal, body)
    assert all(part.items == max_items for part in parts[:-1])
    assert parts[-1].items <= max_items


@EMPTY_REQUESTS
@given(signals_and_requests(repeats=True), st.integers(1, 6000))
def test_splits_by_bytes(pair, max_bytes):
    signal, body = pair
    assume(count(signal, body))
    parts = split_bytes(a_batch(signal, body), max_bytes)
    assert [row for part in parts for row in flat(signal, part.body)] == flat(signal, body)
    for part in parts:
        assert part.items == full_count(signal, part.body)
        without_items = [row for row in flat(signal, part.body) if len(row) < (6 if signal is Signal.METRICS else 4)]
        assert len(part.body) <= max_bytes or part.items == 1 or without_items


def test_parts_by_bytes_are_about_as_large_as_they_may_be():
    span = delimited(2, delimited(5, b"n" * 94))
    body = delimited(1, delimited(2, span * 1000))
    parts = split_bytes(a_batch(Signal.TRACES, body), 10_000)
    assert max(len(part.body) for part in parts) <= 10_000
    assert min(len(part.body) for part in parts[:-1]) > 9_000


def test_a_metric_that_is_cut_stays_the_same_metric():
    metric = full(Signal.METRICS, b"").resource_metrics.add().scope_metrics.add().metrics.add()
    metric.name, metric.unit, metric.description = "requests", "1", "Requests"
    metric.sum.aggregation_temporality = 1
    metric.sum.is_monotonic = True
    for number in range(5):
        metric.sum.data_points.add(as_int=number)
    body = delimited(1, delimited(2, delimited(2, metric.SerializeToString())))
    parts = [full(Signal.METRICS, part) for part in split(Signal.METRICS, body, [2, 3])]
    metrics = [part.resource_metrics[0].scope_metrics[0].metrics[0] for part in parts]
    assert [[point.as_int for point in part.sum.data_points] for part in metrics] == [[0, 1], [2, 3, 4]]
    for part in metrics:
        assert (part.name, part.unit, part.description) == ("requests", "1", "Requests")
        assert (part.sum.aggregation_temporality, part.sum.is_monotonic) == (1, True)


def test_halves_between_receipts():
    body = delimited(1, delimited(2, delimited(2, b"") * 6))
    batch = a_batch(Signal.TRACES, body, [1, 2, 3])
    first, second = split_receipts(batch)
    assert [items for _, items in first.shares] == [1]
    assert [items for _, items in second.shares] == [2, 3]
    assert split_receipts(first) == [first]


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("body", MALFORMED)
def test_says_that_bytes_are_malformed(signal, body):
    with pytest.raises(MalformedError, match="not a serialized OTLP export request"):
        check(signal, body)


@given(st.sampled_from(Signal), st.binary(max_size=60))
def test_any_bytes_are_read_or_malformed(signal, body):
    try:
        items = check(signal, body)
    except MalformedError:
        return
    assert items == count(signal, body)
    if items:
        split(signal, body, [items])


def test_a_malformed_data_point_is_found():
    point = delimited(1, b"\xff")
    body = delimited(1, delimited(2, delimited(2, delimited(5, point))))
    assert count(Signal.METRICS, body) == 1
    with pytest.raises(MalformedError):
        check(Signal.METRICS, body)


def test_parses_or_says_what_it_is_not():
    assert parse(pb.Opaque.FromString, b"") == pb.Opaque()
    with pytest.raises(MalformedError):
        parse(pb.Opaque.FromString, b"\xff")
