"""Traces read out of requests: quickly where spans look alike, span by span where not, and alike in both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model import traces
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.traces import SpanView, enclose, frame, read_heads, read_ids, read_pieces
from tests.kit.otlp import meaning, requests

TRACE, OTHER = bytes(range(16)), bytes(range(1, 17))
ROOT, CHILD, GRANDCHILD = b"rootroot", b"childchi", b"grandgra"


def span(trace_id=TRACE, span_id=ROOT, parent=b"", **fields):
    return {"trace_id": trace_id, "span_id": span_id, "parent_span_id": parent, "name": "GET /", "kind": 2, **fields}


def request(*scopes):
    """Return a request of one resource for each list of spans."""
    made = ExportTraceServiceRequest()
    for index, spans in enumerate(scopes):
        resource = made.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = f"service {index}"
        scope = resource.scope_spans.add()
        scope.scope.name = f"scope {index}"
        for each in spans:
            code = each.pop("code", None)
            added = scope.spans.add(**each)
            if code is not None:
                added.status.code = code
    return made.SerializeToString()


def pieces(body):
    return read_pieces(body, SpanView(body).items)


def described(found):
    return [
        (piece.trace_id, [*piece.indexes], piece.root, piece.complete, piece.error, {*piece.states}) for piece in found
    ]


def test_a_whole_trace():
    body = request([span(span_id=CHILD, parent=ROOT), span(span_id=GRANDCHILD, parent=CHILD), span()])
    assert described(pieces(body)) == [(TRACE, [0, 1, 2], 2, True, False, set())]


def test_a_parent_that_is_not_there():
    body = request([span(span_id=GRANDCHILD, parent=CHILD), span()])
    assert described(pieces(body)) == [(TRACE, [0, 1], 1, False, False, set())]


def test_one_trace_is_whole_beside_one_that_is_not():
    body = request([
        span(span_id=CHILD, parent=ROOT), span(),
        span(OTHER, b"33333333", b"elsewher"), span(OTHER, b"44444444", b"33333333"),
    ])  # fmt: skip
    assert [(piece.complete, piece.root) for piece in pieces(body)] == [(True, 1), (False, -1)]


def test_traces_that_lie_mixed():
    body = request([
        span(), span(OTHER, b"33333333"),
        span(span_id=CHILD, parent=ROOT), span(OTHER, b"44444444", b"33333333", code=2),
    ])  # fmt: skip
    assert described(pieces(body)) == [(TRACE, [0, 2], 0, True, False, set()), (OTHER, [1, 3], 1, True, True, set())]


def test_traces_whose_ids_end_alike_lie_beside_each_other():
    other = b"\xff" + TRACE[1:]
    body = request([span(), span(other, CHILD)])
    assert [(piece.trace_id, [*piece.indexes]) for piece in pieces(body)] == [(TRACE, [0]), (other, [1])]


def test_spans_of_several_resources():
    body = request([span(span_id=CHILD, parent=ROOT)], [span(span_id=GRANDCHILD, parent=CHILD)], [span()])
    assert described(pieces(body)) == [(TRACE, [0, 1, 2], 2, True, False, set())]


@pytest.mark.parametrize("every", [True, False], ids=["every span has a status", "some have"])
def test_errors(every):
    unset = {"code": 1} if every else {}
    body = request([
        span(**unset, attributes=[{"key": "retries", "value": {"int_value": 2}}]),
        span(span_id=CHILD, parent=ROOT, code=2),
        span(OTHER, b"33333333", **unset, attributes=[{"key": "retries", "value": {"int_value": 2}}]),
    ])  # fmt: skip
    assert [piece.error for piece in pieces(body)] == [True, False]


def test_a_root_in_the_middle():
    body = request([span(span_id=CHILD, parent=ROOT), span(), span(span_id=GRANDCHILD, parent=CHILD)])
    assert pieces(body)[0].root == 1


def test_a_root_whose_attributes_look_like_a_parent():
    odd = {"attributes": [{"key": "x", "value": {"string_value": '"\x08rootroot'}}]}
    body = request([span(span_id=CHILD, parent=ROOT), span(**odd), span(span_id=GRANDCHILD, parent=CHILD)])
    assert (pieces(body)[0].root, pieces(body)[0].complete) == (1, True)


def test_a_parent_behind_the_name_is_a_parent():
    """Fields may come in any order: what stands where parents do not is no root for that."""
    child = b"\n\x10" + TRACE + b"\x12\x08" + CHILD + b'*\x01n"\x08' + ROOT
    root = b"\n\x10" + TRACE + b"\x12\x08" + ROOT + b"*\x01n"
    body = enclose(read_heads(request([span()]))[0], frame([child, root]))
    assert described(pieces(body)) == [(TRACE, [0, 1], 1, True, False, set())]


def test_a_parent_of_zeros_is_none():
    body = request([span(span_id=CHILD, parent=ROOT), span(parent=bytes(8))])
    assert (pieces(body)[0].root, pieces(body)[0].complete) == (1, True)


def test_an_id_twice():
    piece = pieces(request([span(), span(parent=ROOT)]))[0]
    assert piece.duplicates
    assert [*piece.indexes] == [0, 1]


def test_trace_states():
    body = request([span(trace_state="ot=th:8"), span(span_id=CHILD, parent=ROOT, trace_state="ot=th:8")])
    assert pieces(body)[0].states == {b"ot=th:8"}
    body = request([span(), span(span_id=CHILD, parent=ROOT, trace_state="a=b")])
    assert pieces(body)[0].states == {b"a=b"}


@pytest.mark.parametrize("bad", [b"", bytes(16), b"short"], ids=["none", "zeros", "short"])
def test_trace_ids_that_are_none(bad):
    found = pieces(request([span(), span(bad, CHILD)]))
    assert [piece.trace_id for piece in found] == [TRACE, bad]


def test_an_empty_request():
    assert pieces(b"") == []
    assert pieces(request([])) == []


def test_what_does_not_parse():
    with pytest.raises(MalformedError):
        pieces(b"\x0a\xff")


IDS = st.sampled_from([bytes([number]) * 8 for number in (0, 1, 2, 3, 4, 34)])
SPANS = st.builds(
    span,
    st.sampled_from([TRACE, OTHER, b"\xff" + TRACE[1:], bytes(16), b"x"]),
    st.one_of(st.binary(min_size=8, max_size=8), IDS),
    st.one_of(st.just(b""), IDS),
    trace_state=st.sampled_from(["", "ot=th:8"]),
    code=st.sampled_from([None, 0, 1, 2]),
    attributes=st.sampled_from([[], [{"key": "n", "value": {"int_value": 2}}, {"key": '"\x08'}]]),
)


@given(st.lists(st.lists(SPANS, max_size=6), max_size=3))
def test_both_ways_to_read_agree(scopes):
    body = request(*scopes)
    merged = traces._read_merged(body, SpanView(body).items)
    if merged is not None:
        assert described(merged) == described(traces._read_rows(body))


@given(st.lists(st.lists(SPANS, max_size=6), max_size=3))
def test_ids_alone_are_read_alike(scopes):
    body = request(*scopes)
    found = read_ids(body, sum(map(len, scopes)))
    if found is not None:
        rows = traces._read_rows(body)
        assert [(each.trace_id, [*each.indexes], {*each.states}) for each in found] == [
            (each.trace_id, [*each.indexes], {*each.states}) for each in rows
        ]


def test_when_ids_alone_do_not_tell():
    usual = [span(), span(span_id=CHILD, parent=ROOT)]
    assert [each.trace_id for each in read_ids(request(usual), 2)] == [TRACE]
    assert [each.states for each in read_ids(request([span(trace_state="ot=th:8")]), 1)] == [[b"ot=th:8"]]
    assert read_ids(request(usual), 3) is None
    assert read_ids(b"", 0) is None
    assert read_ids(request([span(), span(trace_state="ot=th:8")]), 2) is None
    assert read_ids(request([span(b"x"), span(b"y" * 31)]), 2) is None


@given(requests(Signal.TRACES, repeats=True))
def test_any_request_is_read_and_put_together_again(body):
    view = SpanView(body)
    found = read_pieces(body, view.items)
    count = len(view.items)
    assert sorted(index for piece in found for index in piece.indexes) == list(range(count))
    items = view.items[:]
    if count:
        together = b"".join(
            enclose(head, frame(items[start:end]))
            for head, (start, end, _) in zip(read_heads(body), view.scopes, strict=True)
        )
        assert SpanView(together).items[:] == items
        assert meaning(Signal.TRACES, view.assemble(items))


def test_assembling_leaves_out_what_has_no_spans():
    body = request([span()], [span(span_id=CHILD, parent=ROOT)])
    view = SpanView(body)
    rest = view.assemble([None, view.items[1]])
    assert [len(each.scope_spans) for each in ExportTraceServiceRequest.FromString(rest).resource_spans] == [1]
    assert view.resource_of(1) == SpanView(rest).resources[0]


def test_framing():
    for items in ([b"", b"a", b"b" * 300], [b"c" * 5000, b"d"], []):
        assert pb.OpaqueScope.FromString(frame(items)).items[:] == items
