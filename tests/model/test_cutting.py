"""All pieces of a message are valid if, and only if, the message is; and no piece is larger than it must be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import checking, cutting
from otelwp_agent.model.cutting import cut, pieces
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.native import extension
from otelwp_agent.model.signal import Signal
from tests.kit.checking import same_cuts
from tests.kit.otlp import Maker, delimited, meaning, tag, varint

TRACES = checking.schema(request_class(Signal.TRACES))
METRICS = checking.schema(request_class(Signal.METRICS))
CUTS = [cut] if extension is None else [cut, extension.cut]
SPAN = delimited(2, delimited(5, b"checkout"))
needs_extension = pytest.mark.skipif(extension is None, reason="the extension module is not there")


def buckets(numbers):
    """Return a request with an exponential histogram whose positive counts are `numbers`, packed."""
    for number in (2, 8, 1, 10, 2, 2, 1):
        numbers = delimited(number, numbers)
    return numbers


@needs_extension
@settings(max_examples=200)
@given(seed=st.integers(0, 10**6), changes=st.lists(st.tuples(st.integers(0), st.binary(max_size=4)), max_size=3))
def test_c_and_python_cut_alike(seed, changes):
    for signal in Signal:
        body = bytearray(Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(signal))
        for place, piece in changes:
            start = place % (len(body) + 1)
            body[start : start + len(piece)] = piece
        same_cuts(bytes(body), extension)


@given(seed=st.integers(0, 10**6))
def test_a_message_of_small_fields_is_its_pieces_joined(seed):
    body = delimited(1, Maker(random.Random(seed), repeats=True).request(Signal.LOGS)) + b"\x10\1"
    found = list(pieces(body * 5, TRACES, len(body)))
    assert b"".join(found) == body * 5
    assert len(found) == 5


@pytest.mark.parametrize("find", CUTS)
def test_spans_are_cut_into_pieces_of_about_the_target(find):
    body = delimited(1, delimited(2, SPAN * 1000))
    found = find(body, TRACES, 120)
    assert len(found) == 100
    assert {(end - start, path) for start, end, path in found} == {(10 * len(SPAN), b"\1\2")}
    parsed = [request_class(Signal.TRACES).FromString(piece) for piece in pieces(body, TRACES, 120)]
    assert [len(each.resource_spans[0].scope_spans[0].spans) for each in parsed] == [10] * 100


def test_a_piece_keeps_the_nesting():
    body = delimited(1, delimited(2, SPAN + SPAN)) + delimited(1, b"")
    assert list(pieces(body, TRACES, len(SPAN))) == [
        delimited(1, delimited(2, SPAN)),
        delimited(1, delimited(2, SPAN)),
        delimited(1, b""),
    ]
    merged = b"".join(pieces(delimited(1, delimited(2, SPAN)), TRACES, 1))
    assert b"checkout" in meaning(Signal.TRACES, merged)


@pytest.mark.parametrize("find", CUTS)
def test_packed_numbers_are_cut_between_two_numbers(find):
    body = buckets((varint(2**64 - 1) + b"\1") * 20)
    found = find(body, METRICS, 15)
    assert {path for _, _, path in found} == {bytes((1, 2, 2, 10, 1, 8, 2))}
    assert all(body[end - 1] < 0x80 and end - start <= 15 + 9 for start, end, _ in found)
    assert find(buckets(b"\1" * 20 + b"\xff" * 20), METRICS, 15) is None


@pytest.mark.parametrize("find", CUTS)
def test_what_cannot_be_cut_is_a_piece_of_its_own(find):
    text, unknown = delimited(5, b"x" * 50), delimited(30, b"y" * 50)
    body = delimited(1, delimited(2, delimited(2, b"\x30\1" + text + b"\x30\1" + unknown)) + b"\x18\1")
    pieces_found = [body[start:end] for start, end, _ in find(body, TRACES, 10)]
    assert pieces_found == [b"\x30\1", text, b"\x30\1", unknown, b"\x18\1"]


@pytest.mark.parametrize("find", CUTS)
def test_large_groups_are_checked_and_left_out(find):
    group = b"\x1b" + b"\x23\x24" * 50 + b"\x1c"
    assert find(SPAN + group + SPAN, TRACES, len(SPAN)) == [(0, 12, b""), (12 + 102, 24 + 102, b"")]
    assert find(group[:-1], TRACES, 10) is None
    assert find(b"\x1b" * 101 + b"\x1c" * 101, TRACES, 10) is None


@pytest.mark.parametrize("find", CUTS)
@pytest.mark.parametrize(
    "body", [b"\x0a", b"\x0a\x05", b"\x00\x01", b"\x02\x00", b"\x1c", b"\x0f", b"\xff" * 6, tag(1, 1), tag(2**29, 0)]
)
def test_malformed_messages_have_no_pieces(find, body):
    assert find(body, TRACES, 1) is None
    with pytest.raises(MalformedError, match="not a serialized OTLP"):
        list(pieces(body, TRACES, 1))


@pytest.mark.parametrize("find", CUTS)
def test_the_number_of_pieces_is_bounded(find):
    value = b"\x10\1" * 20
    for _ in range(45):
        value = delimited(5, delimited(1, value) + b"\x18\1") + b"\x18\1"
    body = delimited(1, delimited(2, delimited(2, delimited(9, delimited(2, value)))))
    assert 40 < len(find(body, TRACES, 20)) <= (4 * len(body) // 20 + 2) * 101


@pytest.mark.parametrize("pure", [False, True])
def test_python_is_used_without_the_extension_module(monkeypatch, pure):
    if pure:
        monkeypatch.setattr(cutting, "extension", None)
    assert b"".join(pieces(SPAN * 3, TRACES, 12)) == SPAN * 3


@needs_extension
def test_the_extension_module_refuses_wrong_arguments():
    for arguments in ((b"", b"", 1), (b"", bytes(95), 1)):
        with pytest.raises(ValueError, match="schema"):
            extension.cut(*arguments)
    with pytest.raises(ValueError, match="target"):
        extension.cut(b"", TRACES, 0)
    with pytest.raises(OverflowError):
        extension.cut(b"", TRACES, -1)
    with pytest.raises(TypeError, match="two bytes and an int"):
        extension.cut(b"", TRACES)
