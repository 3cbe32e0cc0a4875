"""The check in steps has the verdicts of the check in one call, whatever the body is and wherever it is cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.codecs.otlp_json import decode
from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.model import checking, cutting, projections, stepwise_checking
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import LARGE_FULL, LARGE_KEYS, LARGE_PURE, PIECE, StepwiseChecker
from tests.kit.checking import in_steps, same_verdict
from tests.kit.otlp import Maker, delimited, tag, varint

CAPTURES = sorted(Path(__file__).parents[1].joinpath("data/captures").glob("*.pb"))
ODD = [
    b"\x0b\x0c", b"\x13\x14", b"\x8a\x00\x00", b"\x8a\x80\x80\x80\x00\x00", b"\x00", b"\x00\x01", b"\x1b" * 60,
    b"\x15" + bytes(4), b"\x0a\x80\x00", b"\x0a\x80\x80\x80\x80\x00", b"\xff", b"\x12\x00", b"\x10\1",
    b"\x11" + bytes(8),
    b"\x0a\x01\xff", b"\x2a\x02\xc3\x28", b"\x1c", b"\x0e", b"\x0a\x02\x1b\x1c", b"\x0a\xff\xff\xff\xff\x0f",
    b"\x1b" + b"\x23\x24" * 20 + b"\x1c", b"\xf8\xff\xff\xff\x0f\1",
]  # fmt: skip
"""Groups, non-minimal varints, field number 0, wrong wire types, invalid UTF-8, wrong ends of groups, wrong lengths."""


@pytest.fixture(params=[True, False], ids=["native", "python"])
def native(request, monkeypatch):
    if request.param and checking.extension is None:
        pytest.skip("the extension module is not there")
    if not request.param:
        for module in (checking, cutting, stepwise_checking):
            monkeypatch.setattr(module, "extension", None)
        monkeypatch.setattr(checking, "_count", checking.counting.count)
    return request.param


def spans(*fields):
    return delimited(1, delimited(2, b"".join(delimited(2, each) for each in fields)))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    signal=st.sampled_from(Signal),
    changes=st.lists(
        st.tuples(st.integers(0), st.one_of(st.sampled_from(ODD), st.binary(max_size=4)), st.booleans()), max_size=3
    ),
    end=st.one_of(st.none(), st.integers(0)),
)
def test_changed_requests_have_the_same_verdict(seed, signal, changes, end):
    body = bytearray(Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(signal))
    for place, piece, replace in changes:
        start = place % (len(body) + 1)
        body[start : start + (len(piece) if replace else 0)] = piece
    same_verdict(signal, bytes(body[: None if end is None else end % (len(body) + 1)]))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("odd", ODD, ids=bytes.hex)
def test_odd_fields_have_the_same_verdict_at_each_level(odd, place):
    """`odd` is put beside spans, inside a request, a resource, a scope, a span, an attribute and its value."""
    body = b"\x0a\1x" + odd + b"\x0a\1y"
    for number in (2, 9, 2, 2, 1)[5 - place :]:
        body = delimited(number, body)
    before = spans(delimited(5, b"a" * 40))
    for padding in (b"", delimited(29, b"z" * 120)):
        same_verdict(Signal.TRACES, before + body + padding + before)


def test_every_prefix_of_a_request_has_the_same_verdict():
    body = spans(delimited(5, "ключ".encode()), delimited(9, delimited(1, b"key"))) + b"\x0b\x10\1\x0c" * 3
    verdicts = [same_verdict(Signal.TRACES, body[:end]) for end in range(len(body) + 1)]
    assert MalformedError in verdicts
    assert any(type(each) is int for each in verdicts)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_captures_have_the_same_verdict(capture):
    assert same_verdict(Signal.TRACES, capture.read_bytes()) == projections.count(Signal.TRACES, capture.read_bytes())


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("inner", [b"\x10\1", b"\x1b\x1c", b"\x1b" + b"\x23\x24" * 60 + b"\x1c", b"\x0a\1\xff"])
def test_nesting_has_the_same_limit(inner):
    kind = request_class(Signal.TRACES)
    seen = set()
    for depth in range(88, 104):
        value = inner
        for level in range(depth, 0, -1):
            value = delimited(1 if level % 2 else 5, value)  # AnyValue.array_value, ArrayValue.values
        body = spans(delimited(9, delimited(2, delimited(5, value))))
        found = same_verdict(Signal.TRACES, body)
        seen.add(found is MalformedError)
        try:
            kind.FromString(body)
        except Exception:  # noqa: BLE001 - protobuf's own
            assert found is MalformedError
        else:
            assert found == 1
    assert True in seen


def test_packed_numbers_have_the_same_verdict():
    for numbers in (
        b"\1" * 300,
        varint(2**64 - 1) * 30,
        b"\xff" * 10 + b"\1" * 200,
        b"\1" * 200 + b"\xff",
        b"\xff" * 300,
    ):
        body = numbers
        for number in (2, 8, 1, 10, 2, 2, 1):
            body = delimited(number, body)
        same_verdict(Signal.METRICS, body)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("full", [False, True])
def test_too_many_items_are_refused(full):
    stepwise = StepwiseChecker(Signal.TRACES, 1000, full=full, piece=100)
    assert in_steps(stepwise.steps(spans(*[b""] * 998))) == 998
    with pytest.raises(TooLargeError, match="max_items_per_request"):
        in_steps(stepwise.steps(spans(*[b""] * 999)))
    parts = spans(b"\x4a\0" * 8000)
    if full:
        with pytest.raises(TooLargeError):
            in_steps(stepwise.steps(parts))
    else:
        assert in_steps(stepwise.steps(parts)) == 1


def test_full_validation_parses_pieces_one_after_the_other(monkeypatch):
    if checking.extension is None:
        pytest.skip("without the extension module, protobuf also parses the outline in one call")
    parsed = []
    parse = projections.parse
    monkeypatch.setattr(projections, "parse", lambda parser, body: parsed.append(len(body)) or parse(parser, body))
    body = spans(*[delimited(5, b"checkout" * 8)] * 20_000)
    steps = StepwiseChecker(Signal.TRACES, full=True).steps(body)
    turns = sum(1 for _ in steps)
    assert turns == len(parsed)
    assert len(body) <= sum(parsed) < len(body) * 1.01
    assert len(parsed) == -(-len(body) // PIECE)
    assert max(parsed) <= PIECE + 20


def test_keys_parse_nothing_with_the_extension_module(monkeypatch):
    if checking.extension is None:
        pytest.skip("the extension module is not there")
    monkeypatch.setattr(projections, "parse", None)
    assert in_steps(StepwiseChecker(Signal.LOGS).steps(spans(b"", b""))) == 2


def test_what_is_large_depends_on_what_is_checked(native):
    for full, large in ((False, LARGE_KEYS), (True, LARGE_FULL)):
        stepwise = StepwiseChecker(Signal.TRACES, full=full)
        assert stepwise.large == (large if native else min(large, 500_000))
        assert stepwise.memory == (64 * PIECE if full else 0)
    if not native:
        assert StepwiseChecker(Signal.TRACES, 10).large == LARGE_PURE


def test_json_that_was_converted_has_the_same_verdict():
    text = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}' % b",".join([b'{"name":"a"}'] * 30)
    assert same_verdict(Signal.TRACES, decode(Signal.TRACES, text) + tag(99, 0) + b"\1") == 30
