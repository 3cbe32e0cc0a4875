"""Find the traces of requests, with the extension module and in Python."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling import traces
from otelwp_agent.sampling.traces import DUPLICATES, ERROR, INVALID, ROOTED, WHOLE, reading
from otelwp_agent.sampling.traces.framing import enclose, frame, unframe
from tests.kit.otlp import delimited, full, meaning, requests
from tests.kit.traces import CHILD, GRANDCHILD, MARKS, OTHER, ROOT, TRACE, odd_request, request, span

ELSEWHERE = b"elsewher"


@pytest.fixture(params=["native", "python"])
def read(request):
    """Read a request in one of the two ways; all requests here have the usual layout."""
    if request.param == "python":
        return lambda body, marks=MARKS, *, name=True: reading.read(body, marks, name)
    if not traces.NATIVE:
        pytest.skip("the extension module is not there")

    def natively(body, marks=MARKS, *, name=True):
        found = traces._native.read(body, marks, name)
        assert found is not None, "only Python reads this"
        return found

    return natively


@pytest.fixture
def flags(read):
    """Return the flags of each piece of a request."""
    return lambda *scopes: [piece[3] for piece in read(request(*scopes))[1]]


def said(piece):
    root = pb.RootFacts.FromString(piece[7])
    return root.name, dict(root.attributes)


def test_a_whole_trace(read):
    body = request([span(span_id=CHILD, parent=ROOT), span(span_id=GRANDCHILD, parent=CHILD), span()])
    found, (piece,) = read(body)
    spans = found.spans(0)
    resource = pb.Resources.FromString(body).resources[0].resource
    assert spans == pb.Resources.FromString(body).resources[0].scopes[0].items[:]
    assert piece[:7] == (TRACE, 3, sum(map(len, spans)), WHOLE | ROOTED, (), 0.0, resource)
    assert said(piece) == (b"GET /", {})


def test_a_missing_parent(flags):
    assert flags([span(span_id=GRANDCHILD, parent=CHILD), span()]) == [ROOTED]


def test_no_root(flags):
    assert flags([span(span_id=CHILD, parent=ROOT), span(span_id=ROOT, parent=CHILD)]) == [0]


def test_one_trace_is_whole_beside_one_that_is_not(flags):
    assert flags([
        span(span_id=CHILD, parent=ROOT), span(),
        span(OTHER, b"33333333", ELSEWHERE), span(OTHER, b"44444444", b"33333333"),
    ]) == [WHOLE | ROOTED, 0]  # fmt: skip


def test_a_parent_in_another_trace_is_not_there(flags):
    assert flags([span(), span(OTHER, CHILD, ROOT), span(OTHER, GRANDCHILD)]) == [WHOLE | ROOTED, ROOTED]


def test_interleaved_traces(read):
    found, pieces = read(request([
        span(), span(OTHER, b"33333333"),
        span(span_id=CHILD, parent=ROOT), span(OTHER, b"44444444", b"33333333", code=2),
    ]))  # fmt: skip
    assert [(piece[0], piece[1], piece[3]) for piece in pieces] == [
        (TRACE, 2, WHOLE | ROOTED),
        (OTHER, 2, WHOLE | ROOTED | ERROR),
    ]
    assert found.spread(b"ab") == b"abab"


@pytest.mark.parametrize("other", [b"\xff" + TRACE[1:], TRACE[:-1] + b"\xff", TRACE[8:] + TRACE[:8]])
def test_traces_with_similar_ids_are_distinguished(read, other):
    found, pieces = read(request([span(), span(other, CHILD), span(span_id=CHILD, parent=ROOT)]))
    assert [(piece[0], piece[1]) for piece in pieces] == [(TRACE, 2), (other, 1)]
    assert found.spread(b"ab") == b"aba"


def test_spans_of_several_resources(read):
    body = request([span(span_id=CHILD, parent=ROOT)], [span(span_id=GRANDCHILD, parent=CHILD)], [span()])
    _, (piece,) = read(body)
    assert piece[3] == WHOLE | ROOTED
    assert b"service 2" in piece[6]  # where its root is


def test_without_a_root_the_resource_is_that_of_the_first_span(read):
    _, (piece,) = read(request([span(span_id=CHILD, parent=ROOT)], [span(span_id=GRANDCHILD, parent=CHILD)]))
    assert b"service 0" in piece[6]
    assert piece[7] == b""


@pytest.mark.parametrize("every", [True, False], ids=["every span has a status", "some have"])
def test_errors(flags, every):
    unset = {"code": 1} if every else {}
    number = {"attributes": [{"key": "retries", "value": {"int_value": 2}}]}
    found = flags([
        span(**unset, **number), span(span_id=CHILD, parent=ROOT, code=2), span(OTHER, b"33333333", **unset, **number),
    ])  # fmt: skip
    assert [each & ERROR for each in found] == [ERROR, 0]


@pytest.mark.parametrize(("code", "is_error"), [(0, False), (1, False), (2, True), (3, False), (-1, False)])
def test_only_one_code_is_an_error(flags, code, is_error):
    assert flags([span(code=code)])[0] & ERROR == is_error


def test_the_last_code_of_a_status_counts(read):
    for codes, flag in ((b"\x18\x01\x18\x02", ERROR), (b"\x18\x02\x18\x00", 0), (b"\x18\x82\x80\x80\x80\x10", ERROR)):
        item = delimited(1, TRACE) + delimited(15, codes + delimited(2, b"\x18\x02"))
        assert read(enclose([((b"", b""), frame([item]))]))[1][0][3] & ERROR == flag


def test_a_root_in_the_middle(read):
    body = request([
        span(span_id=CHILD, parent=ROOT),
        span(name="root", start_time_unix_nano=5, end_time_unix_nano=1_500_000_005),
        span(span_id=GRANDCHILD, parent=CHILD),
    ])  # fmt: skip
    piece = read(body)[1][0]
    assert piece[3] == WHOLE | ROOTED
    assert piece[5] == pytest.approx(1.5)
    assert said(piece) == (b"root", {})


def test_the_first_of_two_roots_is_the_root(read):
    piece = read(request([span(name="first"), span(span_id=CHILD, name="second")]))[1][0]
    assert piece[3] == WHOLE | ROOTED
    assert said(piece) == (b"first", {})


@pytest.mark.parametrize(
    ("start", "end"), [(0, 0), (0, (1 << 64) - 1), ((1 << 64) - 1, 0), (2_000_000_000, 500_000_000), (1, 1 << 53)]
)
def test_durations(read, start, end):
    piece = read(request([span(start_time_unix_nano=start, end_time_unix_nano=end)]))[1][0]
    assert piece[5] == (end - start) * 1e-9


def test_a_root_whose_attributes_look_like_a_parent(flags):
    odd = {"attributes": [{"key": "x", "value": {"string_value": '"\x08rootroot'}}]}
    assert flags([span(span_id=CHILD, parent=ROOT), span(**odd), span(span_id=GRANDCHILD, parent=CHILD)]) == [
        WHOLE | ROOTED
    ]


def test_a_parent_behind_the_name_is_a_parent(read):
    """Fields may come in any order."""
    child = b"\n\x10" + TRACE + b"\x12\x08" + CHILD + b'*\x01n"\x08' + ROOT
    root = b"*\x01n\x12\x08" + ROOT + b"\n\x10" + TRACE
    body = enclose([((b"", b""), frame([child, root]))])
    found, (piece,) = read(body)
    assert (piece[0], piece[3]) == (TRACE, WHOLE | ROOTED)
    assert found.spans(0) == [child, root]


def test_a_parent_of_zeros_is_none(flags):
    assert flags([span(span_id=CHILD, parent=ROOT), span(parent=bytes(8))]) == [WHOLE | ROOTED]


def test_an_id_twice(flags):
    assert flags([span(), span(parent=ROOT)]) == [WHOLE | ROOTED | DUPLICATES]
    assert flags([span(), span(OTHER)]) == [WHOLE | ROOTED] * 2


def test_no_id_is_the_same_id_as_zeros(flags):
    assert flags([span(span_id=b""), span(span_id=bytes(8), parent=ROOT)]) == [ROOTED | DUPLICATES]


def test_trace_states(read):
    for state, child, states in (
        ("ot=th:8", "ot=th:8", (b"ot=th:8",)),
        ("", "a=b", (b"a=b",)),
        ("a=b", "", (b"a=b",)),
        ("b=1", "a=b", (b"b=1", b"a=b")),
    ):
        body = request([span(trace_state=state), span(span_id=CHILD, parent=ROOT, trace_state=child)])
        assert read(body)[1][0][4] == states


def test_trace_states_are_those_of_their_trace(read):
    body = request([
        span(trace_state="a=1"), span(OTHER, trace_state="a=2"), span(trace_state="a=3"), span(OTHER, trace_state="a=1")
    ])  # fmt: skip
    assert [piece[4] for piece in read(body)[1]] == [(b"a=1", b"a=3"), (b"a=2", b"a=1")]


@pytest.mark.parametrize("bad", [b"", bytes(16), b"short", bytes(17)], ids=["none", "zeros", "short", "long"])
def test_invalid_trace_ids(read, bad):
    _, pieces = read(request([span(), span(bad, CHILD, ROOT), span(bad, CHILD, code=2, trace_state="a=b")]))
    assert [piece[:2] for piece in pieces] == [(TRACE, 1), (b"", 2)]
    assert pieces[1][3] == INVALID | ERROR | ROOTED
    assert pieces[1][4] == (b"a=b",)


def test_all_invalid_trace_ids_form_one_piece(read):
    found, pieces = read(request([span(b"x"), span(), span(b"", CHILD), span(bytes(16), GRANDCHILD)]))
    assert [piece[:2] for piece in pieces] == [(b"", 3), (TRACE, 1)]
    assert found.spread(b"ab") == b"abaa"


def test_the_requested_fields_of_a_root(read):
    attributes = [
        {"key": "http.route", "value": {"string_value": "/a"}},
        {"key": "http.method", "value": {"string_value": "GET"}},
        {"key": "n", "value": {"int_value": 1}},
    ]
    body = request([span(attributes=attributes)])
    route, _, number = [each.SerializeToString() for each in full_values(body)]
    assert said(read(body)[1][0]) == (b"GET /", {"http.route": route, "n": number})
    assert said(read(body, name=False)[1][0]) == (b"", {"http.route": route, "n": number})
    assert said(read(body, ())[1][0]) == (b"GET /", {})
    assert read(body, (), name=False)[1][0][7] == b""
    assert {"http.route", "http.method", "n"} == {*said(read(body, (b"",))[1][0])[1]}


def full_values(body):
    spans = full(Signal.TRACES, body).resource_spans[0].scope_spans[0].spans
    return [attribute.value for attribute in spans[0].attributes]


@pytest.mark.parametrize(
    "attribute",
    [b"", b"\x0a", b"\x12\x03\x0a\x01v" + b"\x0a\x01n", b"\x0a\x81\x00n\x12\x03\x0a\x01v", delimited(1, b"k" * 128)],
    ids=["empty", "cut", "key last", "long form", "long key"],
)
def test_attributes_with_unusual_layout_are_returned(read, attribute):
    item = delimited(1, TRACE) + delimited(9, attribute) + delimited(9, b"\x0a\x01m\x12\0")
    piece = read(enclose([((b"", b""), frame([item]))]), MARKS)[1][0]
    assert pb.Said.FromString(piece[7]).attributes == [attribute]


def test_without_marks_only_errors_and_roots_are_reported(read):
    body = request([span(code=2, trace_state="a=b"), span(), span(OTHER, parent=ROOT)])
    assert [(piece[3], piece[4], piece[7]) for piece in read(body, None)[1]] == [
        (ERROR | ROOTED, (b"a=b",), b""),
        (0, (), b""),
    ]


def test_an_empty_request(read):
    for body in (b"", request([]), request([], [])):
        found, pieces = read(body)
        assert pieces == []
        assert found.select([]) == b""
        assert found.spread(b"") == b""
        assert found.parts([], found.heads(), None) == []
        assert len(found.heads()) == len(pb.Resources.FromString(body).resources)


@pytest.mark.parametrize(
    "body", [b"\x0a\xff", b"\x00", b"\x0a\x02\x12", enclose([((b"", b""), frame([b"\x0a\x10abc"]))])]
)
def test_invalid_requests(body):
    with pytest.raises(MalformedError):
        reading.read(body, MARKS, name=True)
    with pytest.raises(MalformedError):
        traces.read(body)


def test_a_selection(read):
    body = request([span(), span(OTHER)], [span(span_id=CHILD, parent=ROOT)], [span(OTHER, CHILD)])
    found, _ = read(body)
    (first, child), (other, last) = found.spans(0), found.spans(1)
    assert meaning(Signal.TRACES, found.select([b"", b""])) == meaning(Signal.TRACES, body)
    assert found.select([None, None]) == b""
    assert resources_and_items(found.select([b"", None])) == [("service 0", [first]), ("service 1", [child])]
    assert resources_and_items(found.select([None, b"\x1a\x01x"])) == [
        ("service 0", [other + b"\x1a\x01x"]),
        ("service 2", [last + b"\x1a\x01x"]),
    ]
    assert resources_and_items(found.select([[b"", b"\x12\x01y"], b""])) == [
        ("service 0", [b"", other]),
        ("service 1", [b"\x12\x01y"]),
        ("service 2", [last]),
    ]


def resources_and_items(body):
    found = []
    for part, items in zip(
        ExportTraceServiceRequest.FromString(body).resource_spans, pb.Resources.FromString(body).resources, strict=True
    ):
        (attribute,) = part.resource.attributes
        found.append((attribute.value.string_value, [item for scope in items.scopes for item in scope.items]))
    return found


def test_parts(read):
    body = request([span(), span(OTHER), span(span_id=CHILD, parent=ROOT)], [span(OTHER, CHILD)])
    found, _ = read(body)
    heads, owner = found.heads(), object()
    assert [[(head, unframe(framed), count) for head, framed, count, _ in parts] for parts in parts_of(found)] == [
        [(heads[0], found.spans(0), 2)],
        [(heads[0], found.spans(1)[:1], 1), (heads[1], found.spans(1)[1:], 1)],
    ]
    ((part,),) = found.parts([0], heads, owner)
    assert part[0] is heads[0]
    assert part[3] is owner
    together = b"".join(enclose([(head, framed)]) for parts in parts_of(found) for head, framed, _, _ in parts)
    assert meaning(Signal.TRACES, read(together)[0].select([b"", b""])) == meaning(Signal.TRACES, together)
    assert len(read(together)[0].spans(0)) == 2


def test_equal_heads_are_one_object(read):
    """A resource can be large, and a request can have thousands of scopes and traces."""
    scope = delimited(2, delimited(2, delimited(1, TRACE)) + delimited(2, delimited(1, OTHER) + delimited(4, ROOT)))
    roots = delimited(2, delimited(2, delimited(1, OTHER)) + delimited(2, delimited(1, ELSEWHERE * 2)))
    first, second = delimited(1, delimited(1, b"\x0a\0") + scope * 3), delimited(1, delimited(1, b"\x0a\1\0") + roots)
    found, pieces = read(first + second)
    resources = [piece[6] for piece in pieces]
    assert resources == [b"\x0a\0", b"\x0a\1\0", b"\x0a\1\0"]
    assert len({*map(id, resources)}) == 2
    heads = found.heads()
    assert [resource for resource, _ in heads] == [delimited(1, b"\x0a\0")] * 3 + [delimited(1, b"\x0a\1\0")]
    assert len({id(resource) for resource, _ in heads}) == 2


def test_many_traces_take_no_longer_each(read):
    ids = [number.to_bytes(8, "big") * 2 for number in range(1, 20_001)]
    found, pieces = read(enclose([((b"", b""), frame([delimited(1, each) for each in ids]))]), None)
    places = [*range(len(pieces))]
    parts = found.parts(places, found.heads(), None)
    spans = [found.spans(place) for place in places]
    assert [unframe(part[1]) for (part,) in parts] == spans == [[delimited(1, each)] for each in ids]


def test_empty_spans_need_almost_no_memory(read):
    """Two bytes of a request can be a span, and the sender controls the layout."""
    body = enclose([((b"", b""), frame([b""] * 50_000))])
    tracemalloc.start()
    try:
        read(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * len(body)


def parts_of(found):
    return found.parts([0, 1], found.heads(), None)


@given(st.one_of(requests(Signal.TRACES, repeats=True), st.builds(odd_request, st.integers(0, 1 << 32))))
def test_any_request_is_read_and_put_together_again(body):
    try:
        found, pieces = traces.read(body, MARKS, name=True)
    except MalformedError:
        return
    heads = found.heads()
    parts = found.parts([*range(len(pieces))], heads, None)
    assert [sum(count for _, _, count, _ in each) for each in parts] == [piece[1] for piece in pieces]
    assert [[span for _, framed, _, _ in each for span in unframe(framed)] for each in parts] == [
        found.spans(place) for place in range(len(pieces))
    ]
    whole = found.select([b""] * len(pieces))
    items = [item for resource in pb.Opaque.FromString(body).resources for s in resource.scopes for item in s.items]
    assert [item for r in pb.Opaque.FromString(whole).resources for s in r.scopes for item in s.items] == items
    assert len(found.spread(bytes(len(pieces)))) == len(items)
