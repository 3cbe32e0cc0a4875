"""Ids, references between spans, repeated spans and cycles in Jaeger's JSON."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.jaeger import OTHER, TRACE, attributes_of, child_of, one, read, span, spans_of, trace


@pytest.mark.parametrize(
    ("given", "trace_id", "kind"),
    [
        (TRACE, TRACE, None),
        (TRACE.upper(), TRACE, None),
        ("463ac35c9f6413ad", "0" * 16 + "463ac35c9f6413ad", None),
        ("abc", "0" * 29 + "abc", "id_padded"),
        ("0x" + TRACE, TRACE, "id_spelling"),
        ("1d1aeade-7e26-e005-ffb0-bf74dad4dd92", TRACE, "id_spelling"),
        ("ff" + TRACE, TRACE, "id_cut"),
        (255, "0" * 30 + "ff", "id_number"),
    ],
)
def test_trace_ids_of_every_length(given, trace_id, kind):
    traces = read(trace(span(traceID=given), traceID=given))
    assert spans_of(traces)[0]["traceId"] == trace_id
    assert traces.repairs == ({kind: 1} if kind else {})


@pytest.mark.parametrize(
    ("given", "span_id", "kind"),
    [
        ("99172648", "0000000099172648", "id_padded"),
        ("99172648aa11bb22cc", "172648aa11bb22cc", "id_cut"),
        (7, "0000000000000007", "id_number"),
    ],
)
def test_span_ids_of_every_length(given, span_id, kind):
    child = span(spanID="1" * 16, references=[{"refType": "CHILD_OF", "traceID": TRACE, "spanID": given}])
    traces = read(trace(span(spanID=given), child))
    first, second = spans_of(traces)
    assert (first["spanId"], second["parentSpanId"]) == (span_id, span_id)
    assert traces.repairs == {kind: 2}


def test_ids_that_are_no_hex_are_hashed_and_still_found():
    child = span(spanID="1" * 16, references=[{"refType": "CHILD_OF", "traceID": "my trace", "spanID": "my span"}])
    traces = read(trace(span(traceID="my trace", spanID="my span"), {**child, "traceID": "my trace"}))
    first, second = spans_of(traces)
    assert second["traceId"] == first["traceId"]
    assert second["parentSpanId"] == first["spanId"]


@pytest.mark.parametrize("missing", [None, "", "0" * 16, [], True, {"a": 1}])
def test_ids_that_are_missing_are_made_and_the_same_each_time(missing):
    body = trace(span(spanID=missing))
    first, second = read(body), read(body)
    assert spans_of(first) == spans_of(second)
    assert spans_of(first)[0]["spanId"] != "0" * 16
    assert first.repairs["id_missing"] == 1


def test_the_spans_trace_id_wins_and_the_traces_stands_in():
    traces = read(trace(span(), span(traceID=None, spanID="1" * 16), traceID=OTHER))
    assert [found["traceId"] for found in spans_of(traces)] == [TRACE, OTHER]
    assert traces.repairs == {"trace_id_differs": 1}


def test_a_reference_to_the_enclosing_trace_means_the_spans_own():
    child = span(spanID="1" * 16, references=[{"refType": "CHILD_OF", "traceID": OTHER, "spanID": "2" * 16}])
    (found,) = spans_of(read(trace(child, traceID=OTHER)))
    assert found["parentSpanId"] == "2" * 16
    assert "links" not in found


def test_a_follows_from_alone_is_the_parent_and_a_link():
    (found,) = spans_of(
        read(trace(span(references=[{"refType": "FOLLOWS_FROM", "traceID": TRACE, "spanID": "2" * 16}])))
    )
    assert found["parentSpanId"] == "2" * 16
    assert attributes_of(found["links"][0]) == {"opentracing.ref_type": "follows_from"}


def test_the_old_parents_field():
    found, repairs = one(parentSpanID="2" * 16)
    assert (found["parentSpanId"], repairs) == ("2" * 16, {})


def test_a_span_that_repeats_another_is_left_out_and_a_different_one_gets_an_id():
    traces = read(trace(span(), span(), span(operationName="other")))
    first, second = spans_of(traces)
    assert (first["name"], second["name"]) == ("page", "other")
    assert first["spanId"] != second["spanId"]
    assert traces.repairs == {"repeated_span": 1, "duplicate_span_id": 1}


@pytest.mark.parametrize("parents", [{1: 1}, {1: 2, 2: 1}, {1: 2, 2: 3, 3: 1, 4: 3, 5: 4}])
def test_cycles_of_parents_are_cut_once(parents):
    traces = read(trace(*[child_of(number, parent) for number, parent in parents.items()]))
    found = {int(each["spanId"], 16): each for each in spans_of(traces)}
    roots = [each for each in found.values() if "parentSpanId" not in each]
    assert len(roots) == 1
    assert attributes_of(roots[0]["links"][0]) == {"opentracing.ref_type": "child_of"}
    assert traces.repairs == {"cyclic_reference": 1}
    parents_of = {each["spanId"]: each.get("parentSpanId") for each in found.values()}
    assert all(arrives(each, parents_of) for each in parents_of)


def arrives(each, parents_of):
    """Return whether the parents of a span lead to a root."""
    for _ in parents_of:
        each = parents_of.get(each)
    return parents_of.get(each) is None


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.randoms())
@settings(max_examples=40, deadline=None)
def test_no_cycle_is_left_in_any_order(parents, random_):
    spans = [child_of(number, parent) if parent else span(spanID=f"{number:016x}")
             for number, parent in enumerate(parents, 1)]  # fmt: skip
    random_.shuffle(spans)
    found = {each["spanId"]: each for each in spans_of(read(trace(*spans)))}
    assert len(found) == len(parents)
    parents_of = {each: fields.get("parentSpanId") for each, fields in found.items()}
    assert all(arrives(each, parents_of) for each in parents_of)


def test_children_before_parents_are_no_cycle():
    spans = [child_of(number, number + 1) for number in range(1, 5000)]
    traces = read(trace(*spans))
    assert (traces.spans, traces.repairs) == (4999, {})
