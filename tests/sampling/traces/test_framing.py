"""Spans as the fields of a scope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.sampling.traces.framing import enclose, frame, unframe
from tests.kit.otlp import delimited

SPANS = st.lists(
    st.one_of(
        st.binary(max_size=40), st.sampled_from([0, 1, 127, 128, 2047, 2048, 16384]).map(lambda size: b"s" * size)
    )
)


@given(SPANS)
def test_what_was_framed_comes_back(spans):
    framed = frame(spans)
    assert framed == b"".join(delimited(2, each) for each in spans)
    assert unframe(framed) == spans
    assert pb.OpaqueScope.FromString(framed).items == spans


@given(SPANS, st.binary(max_size=20), st.binary(max_size=20))
def test_heads_precede_their_spans(spans, resource, scope):
    head = (delimited(1, resource), delimited(1, scope) + delimited(3, b"https://schema"))
    (found,) = pb.Resources.FromString(enclose([(head, frame(spans))])).resources
    assert found.resource == resource
    assert [each.items for each in found.scopes] == [spans]
    found.scopes[0].ClearField("items")
    assert found.scopes[0].SerializeToString() == head[1]


def test_neighbours_share_equal_heads():
    shop, blog = delimited(1, b"shop"), delimited(1, b"blog")
    places = [(shop, b""), (shop, b""), (shop, b"\x0a\x00"), (blog, b""), (shop, b"")]
    body = enclose([(head, frame([b"%d" % number])) for number, head in enumerate(places)])
    found = pb.Resources.FromString(body).resources
    assert [each.resource for each in found] == [b"shop", b"blog", b"shop"]
    assert [[scope.items for scope in each.scopes] for each in found] == [[[b"0", b"1"], [b"2"]], [[b"3"]], [[b"4"]]]


def test_no_spans_and_no_heads():
    assert enclose([((b"", b""), frame([]))]) == b"\x0a\x02\x12\x00"


def test_unframing_other_bytes_fails():
    with pytest.raises(MalformedError):
        unframe(b"\x12\x05abc")
