"""The quick way and the parser have to read the same in everything, and the quick way has to be taken."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.codecs.jaeger import from_json, layouts
from otelwp_agent.errors import MalformedError
from tests.kit.jaeger import CAPTURES, NOW, TRACE, span, spans_of, trace

TAGS = [{"key": "a", "type": "string", "value": "x"}, {"key": "n", "type": "int64", "value": 7}]


@pytest.fixture(autouse=True)
def _no_layouts(monkeypatch):
    monkeypatch.setattr(layouts, "_layouts", [])
    monkeypatch.setattr(layouts, "_tried", set())


def compact(document):
    return orjson.dumps(document)


def outcome(body):
    """Return all that decoding tells."""
    try:
        traces = from_json.decode(body, NOW)
    except MalformedError as error:
        return str(error)
    return traces.body(), traces.repairs, traces.spans, traces.service


def parsed(body):
    """Return the same, read by the parser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "_layouts", [])
        patch.setattr(layouts, "MAX_LAYOUTS", 0)
        return outcome(body)


def child(number, parent=0, **fields):
    references = [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": f"{parent:016x}"}] if parent else []
    return span(spanID=f"{number:016x}", references=references, **fields)


def founding(**fields):
    """Return a span as the founding plugin writes it."""
    return {
        "traceID": TRACE,
        "spanID": "d20dab9aa6a9eaf4",
        "operationName": "wordpress.request",
        "startTime": 1795186135546316,
        "tags": [{"key": "http.url", "value": "shop/"}, {"key": "http.status_code", "value": 200}],
        "process": {"serviceName": "shop", "tags": [{"key": "environment", "value": "live"}]},
        "duration": 87834,
    } | fields


def posted(*spans):
    return {"data": [{"traceID": TRACE[::-1], "spans": list(spans)}]}


@pytest.mark.parametrize(
    "document",
    [
        trace(child(1, tags=TAGS), child(2, 1, tags=TAGS), child(3, 9, tags=[]), child(2, 1, tags=TAGS)),
        trace(child(1, 2), child(2, 1)),
        trace(child(1), child(1, operationName="another")),
        trace(child(1, flags=1, warnings=None), child(2, 1, flags=2, warnings=None)),
        trace(child(1, tags=[{"key": "error", "type": "bool", "value": True}]), child(2, 1)),
        trace(child(1, tags=[{"key": "otel.scope.name", "type": "string", "value": "wp"}]), child(2, tags=TAGS)),
        trace(
            child(1, processID="p1"),
            child(2, processID="p2"),
            child(3, processID="p1"),
            processes={"p1": {"serviceName": "shop", "tags": TAGS}, "p2": {"serviceName": "queue", "tags": []}},
        ),
        trace(child(1, tags=[{"key": "span.kind", "type": "string", "value": "server"}, *TAGS])),
        trace(
            child(1, tags=[{"key": "n", "type": "int64", "value": "9"}, {"key": "f", "type": "float64", "value": 0.5}])
        ),
        trace(
            child(1, tags=[{"key": "n", "type": "int64", "value": None}, {"key": 5, "type": "string", "value": "x"}])
        ),
        trace(child(1, tags=[{"key": "map", "type": "string", "value": {"a": {"b": 1}}}])),
        trace(child(1, tags=[7, {"key": "a"}])),
        posted(founding()),
        posted(founding(), founding(spanID="00000000000000aa", operationName="other")),
        posted(founding(tags=[{"key": "span.kind", "value": "client"}])),
        posted(founding(tags=[{"key": "span.kind", "value": "odd"}])),
        posted(founding(tags=[{"key": "http.status_code", "value": 500}])),
        posted(founding(tags=[{"key": "http.status_code", "value": False}])),
        posted(founding(tags=[{"key": "http.status_code", "value": 404}])),
    ],
)
def test_what_is_regular_is_read_the_quick_way_and_means_the_same(document):
    body = compact(document)
    expected = parsed(body)
    assert outcome(body) == expected  # and the layout is learned
    for _ in range(3):  # tags, and then lists of them, are known from the second time on
        assert layouts.read(body) is not None
        assert outcome(body) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"startTime": 1795186135},
        {"startTime": 1795186135546316.5},
        {"duration": -1},
        {"duration": 10**15},
        {"spanID": "0000000000000000"},
        {"spanID": "d20d"},
        {"traceID": "0" * 32},
        {"operationName": "é"},
        {"operationName": 'a"b'},
        {"operationName": ""},
        {"references": [{"refType": "FOLLOWS_FROM", "traceID": TRACE, "spanID": "00000000000000aa"}]},
        {"references": [{"refType": "CHILD_OF", "traceID": TRACE[::-1], "spanID": "00000000000000aa"}]},
        {"references": [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": "0000000000000000"}]},
        {"logs": [{"timestamp": 1795186135546320, "fields": [{"key": "event", "type": "string", "value": "x"}]}]},
        {"tags": {"a": 1}},
        {"tags": [{"key": "a", "type": "string", "value": "b]"}]},
        {"tags": [{"key": "a", "type": "string", "value": ["b"]}]},
        {"processID": "p9"},
        {"warnings": ["skew"]},
    ],
)
def test_what_is_not_is_read_with_a_parser(change):
    from_json.decode(compact(trace(span())), NOW)
    body = compact(trace(span(**change)))
    assert layouts.read(body) is None
    assert outcome(body) == parsed(body)


@pytest.mark.parametrize(
    "broken",
    [
        lambda body: body.replace(b"},{", b"} {", 1),
        lambda body: body.replace(b"},{", b"}]{", 1),
        lambda body: body.replace(b'],"processes"', b',],"processes"'),
        lambda body: body.replace(b'],"processes"', b'7],"processes"'),
        lambda body: body.replace(b'"spans":[', b'"spans":[,'),
        lambda body: body[:-1],
        lambda body: body + b"}",
        lambda body: body.replace(b'"x"', b'"x', 1),
        lambda body: body.replace(b'"x"', b'"x\xe4"', 1),
        lambda body: body.replace(b'"key":"a"', b'"key":a', 1),
        lambda body: body.replace(b'"value":7}', b'"value":7},', 1),
        lambda body: body.replace(b'"serviceName":"shop"', b'"serviceName":shop', 1),
        lambda body: body.replace(b'"serviceName":"shop"', b'"serviceName":5', 1),
        lambda body: body.replace(b'"processes":{', b'"more":1,"processes":{', 1),
        lambda body: body.replace(b'"processes":{', b'"processes":[', 1),
    ],
)
def test_what_is_no_json_or_other_json_is_not_read_the_quick_way(broken):
    body = compact(trace(child(1, tags=TAGS), child(2, 1, tags=TAGS)))
    for _ in range(3):
        from_json.decode(body, NOW)
    assert layouts.read(body) is not None
    body = broken(body)
    assert layouts.read(body) is None
    assert outcome(body) == parsed(body)


def test_every_regular_capture_is_read_the_quick_way():
    quick = 0
    bodies = [path.read_bytes() for path in sorted(CAPTURES.glob("*.json"))]
    for body in bodies:
        from_json.decode(body, NOW)
    for body in bodies:
        traces = layouts.read(body)
        quick += traces is not None
        if traces is not None:
            assert outcome(body) == parsed(body)
    assert quick >= len(bodies) - 4, "tags as a map, and more"


def test_a_layout_with_blanks_is_not_kept():
    body = json.dumps(trace(span())).encode()
    from_json.decode(body, NOW)
    assert layouts.read(body) is None
    assert not layouts._layouts


@pytest.mark.parametrize("first", [[[]], [{}], "traceID", 5, None])
def test_of_a_first_span_that_is_no_object_no_layout_is_learned(first):
    document = trace(span(), span())
    document["data"][0]["spans"][0] = first
    outcome(compact(document))
    assert not layouts._layouts
    assert not layouts._tried


def test_layouts_are_bounded():
    fields = list(span())
    for number in range(20):
        order = fields[number % 9 :] + fields[: number % 9]
        if number > 8:
            order[0], order[1] = order[1], order[0]
        from_json.decode(compact(trace({key: span()[key] for key in order})), NOW)
    assert len(layouts._layouts) == layouts.MAX_LAYOUTS


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(layouts, "MAX_TEXTS", 4)
    for number in range(20):
        tags = [{"key": "a", "value": number}]
        for _ in range(2):
            from_json.decode(compact(posted(founding(process={"serviceName": f"s{number}", "tags": tags}))), NOW)
            from_json.decode(compact(trace(span(), processes={"p1": {"serviceName": f"s{number}"}})), NOW)
    assert len(layouts._inline) <= 4
    assert len(layouts._ends) <= 4


texts = st.text('ab{}[]",:\\é', max_size=4)
values = (
    texts
    | st.integers(-(2**63), 2**64 - 1)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
)
keys = st.sampled_from(["a", "b", "span.kind", "error", "http.status_code", "otel.status_code"]) | texts
tags = st.lists(
    st.fixed_dictionaries(
        {"key": keys}, optional={"type": st.sampled_from(["string", "int64", "bool"]), "value": values}
    ),
    max_size=3,
)
spans = st.lists(
    st.builds(
        lambda number, parent, name, tags, start: child(number, parent, operationName=name, tags=tags, startTime=start),
        st.integers(1, 4),
        st.integers(0, 4),
        st.sampled_from(["page", "wordpress.request"]) | texts,
        tags,
        st.sampled_from([1795186135546316, 1795186135546317, 1795186135.5]),
    ),
    min_size=1,
    max_size=4,
)


@given(spans, st.randoms(use_true_random=False), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_both_ways_read_the_same(drawn, chance, cuts):
    body = bytearray(compact(trace(*drawn)))
    from_json.decode(compact(trace(span())), NOW)
    for _ in range(cuts):
        at = chance.randrange(len(body))
        body[at : at + chance.randrange(2)] = chance.choice([b'"', b"}", b"]", b",", b"{", b"0", b"x", b""])
    expected = parsed(bytes(body))
    assert outcome(bytes(body)) == expected
    assert outcome(bytes(body)) == expected


def test_the_largest_go_in_steps():
    many = [child(number, tags=TAGS) for number in range(1, 400)]
    body = compact(trace(*many))
    assert len(body) > layouts.MAX_BODY
    from_json.decode(compact(trace(span())), NOW)
    assert layouts.read(body) is None
    assert len(spans_of(from_json.decode(body, NOW))) == len(many)
