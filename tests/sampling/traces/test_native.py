"""The extension module means what reading.py means, reads what senders write, and stands whatever it is given.

What both mean stands in test_reading.py.
"""

import copy
import ctypes
import gc
import itertools
import pickle
import sys
import tracemalloc
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.codecs import otlp_json
from otelwp_agent.codecs.jaeger import from_json, from_thrift
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling import traces
from otelwp_agent.sampling.traces import reading
from otelwp_agent.sampling.traces.framing import enclose, frame
from tests.kit.otlp import delimited, full, requests, tag
from tests.kit.traces import ALL_MARKS, CHILD, MARKS, OTHER, TRACE, agree, odd_request, request, span
from tests.kit.traffic import traffic

pytestmark = pytest.mark.skipif(not traces.NATIVE, reason="the extension module is not there")

native = traces._native
CAPTURES = Path(__file__).parents[2] / "data/captures"
BODY = request([
    span(trace_state="a=b", attributes=[{"key": "n", "value": {"string_value": "long" * 400}}]), span(OTHER, CHILD)
])  # fmt: skip
IRREGULAR = delimited(1, delimited(2, delimited(2, delimited(1, TRACE) * 2)))
"""A span with two trace ids is left to Python."""
ROUNDS = 10_000


def padded(number, size):
    """Return a varint with `size` bytes."""
    return bytes([number >> 7 * place & 127 | 128 * (place < size - 1) for place in range(size)])


def read(body, marks=None, *, name=False):
    return native.read(body, marks, name)


# ---- it means what reading.py means ----


@given(
    st.one_of(
        requests(Signal.TRACES, repeats=True),
        st.builds(odd_request, st.integers(0, 1 << 32), st.integers(1, 5)),
        st.lists(st.builds(odd_request, st.integers(0, 1 << 32)), max_size=4).map(b"".join),
    ),
    st.sampled_from(ALL_MARKS),
    st.booleans(),
)
@settings(max_examples=400)
def test_both_ways_to_read_agree(body, marks, name):
    agree(native, body, marks, name=name)


@given(st.builds(odd_request, st.integers(0, 1 << 32)), st.data())
def test_both_ways_to_read_agree_on_broken_requests(body, data):
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body)))
        more = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\x80" * 5, b"\x8a\x80\x80\x80\x80\x00"])))
        body = body[:place] + more + body[place + data.draw(st.integers(0, 3)) :]
    agree(native, body)


def test_the_odd_requests_are_not_too_odd():
    quick = Counter(read(odd_request(seed), MARKS) is not None for seed in range(500))
    assert quick[True] > 250
    assert quick[False] > 25


VARIANTS = {
    "trace id": [delimited(1, each) for each in (TRACE, OTHER, b"", bytes(16), b"short")],
    "span id": [delimited(2, each) for each in (CHILD, b"", bytes(8), b"four", b"nine bytes")],
    "parent": [delimited(4, each) for each in (CHILD, b"", bytes(8), b"four", b"nine bytes")],
    "state": [delimited(3, each) for each in (b"a=b", b"", b"c=d")],
    "name": [delimited(5, each) for each in (b"a", b"")],
    "start": [b"\x39" + each for each in (bytes(8), b"\1" * 8)],
    "end": [b"\x41" + each for each in (bytes(8), b"\1" * 8)],
    "attribute": [delimited(9, each) for each in (b"", b"\x0a\x01n", b"\x0a\x01m", b"\x12\0\x0a\x01m")],
    "status": [delimited(15, each) for each in (b"", b"\x18\x02", b"\x18\x01", b"\x12\x01w", b"\x18\x02\x18\0")],
    "unknown": [tag(99, 0) + b"\1", tag(7, 0) + b"\1", tag(1, 5) + bytes(4), tag(99, 3) + tag(99, 4), tag(0, 0) + b"\0",
                tag(1 << 29, 0) + b"\0", tag(99, 6), tag(99, 7), tag(99, 4), tag(1, 0) + b"\1", tag(2, 1) + bytes(8)],
}  # fmt: skip


@pytest.mark.parametrize("variants", VARIANTS.values(), ids=VARIANTS)
def test_fields_that_occur_twice(variants):
    whole = delimited(1, TRACE) + delimited(2, CHILD)
    for first, second in itertools.product([b"", *variants], repeat=2):
        for item in (first + second, first + second + whole, whole + first + second, first + whole + second):
            agree(native, enclose([((b"", b""), frame([item, whole]))]))


def test_fields_of_resources_and_scopes_in_any_order():
    item = delimited(1, TRACE) + delimited(2, CHILD)
    around = [delimited(1, b"\x0a\0"), delimited(3, b"schema"), tag(99, 5) + b"four", tag(4, 0) + b"\0"]
    inside = [delimited(2, item), delimited(2, b""), *around]
    quick = 0
    for fields in itertools.product(inside, repeat=4):
        scope = b"".join(fields)
        quick += agree(native, delimited(1, delimited(2, scope)), None)
        quick += agree(native, delimited(1, delimited(2, delimited(2, item)) + scope), None)
    assert quick > 1000
    for field in VARIANTS["unknown"]:
        for scope in (field, field + delimited(2, item), delimited(2, item) + field):
            for resource in (delimited(2, scope), scope, delimited(2, delimited(2, item)) + scope):
                agree(native, delimited(1, resource))
                agree(native, resource)
        agree(native, delimited(1, delimited(2, delimited(2, delimited(15, field)))))


def test_what_ends_too_early():
    attributes = [{"key": "n", "value": {"int_value": 2}}]
    item = read(request([
        span(parent=CHILD, trace_state="a=b", code=2, attributes=attributes, start_time_unix_nano=1, flags=1)
    ]))[0].spans(0)[0]  # fmt: skip
    for end in range(len(item)):
        agree(native, enclose([((b"", b""), frame([item[:end]]))]))
        agree(native, enclose([((b"", b""), frame([item[:end], item]))]))
    for end in range(len(BODY)):
        agree(native, BODY[:end])


def test_an_id_that_is_how_the_request_begins():
    """A missing id is not looked up: an offset of 0 is not an id."""
    body = request([span(b"none"), span(OTHER)])
    assert agree(native, body.replace(OTHER, body[:16]))


@pytest.mark.parametrize("size", range(1, 13))
@pytest.mark.parametrize(
    "make",
    [
        lambda pad: delimited(1, TRACE) + pad(24) + b"\x01" + delimited(15, b""),
        lambda pad: delimited(1, TRACE) + pad(17 << 3) + b"\x01",
        lambda pad: delimited(1, TRACE) + b"\x7a" + delimited(0, pad(24) + b"\x02")[1:],
        lambda pad: delimited(1, TRACE) + b"\x2a" + pad(3) + b"abc",
        lambda pad: b"\x0a" + pad(16) + TRACE,
        lambda pad: delimited(1, TRACE) + b"\x12" + pad(8) + CHILD,
        lambda pad: delimited(1, TRACE) + b"\x30" + pad(2),
        lambda pad: delimited(1, TRACE) + delimited(15, b"\x18" + pad(2)),
    ],
    ids=["kind", "unknown", "code's tag", "name's length", "id's length", "span id's length", "number", "code"],
)
def test_varints_longer_than_needed(make, size):
    agree(native, enclose([((b"", b""), frame([make(lambda number: padded(number, size))]))]))


# ---- it reads what senders write ----


def captured():
    """Yield requests of real senders as OTLP."""
    for path in sorted(CAPTURES.glob("*.pb")):
        yield path.name, path.read_bytes()
    for path in sorted(CAPTURES.glob("*.json")):
        yield path.name, otlp_json.decode(Signal.TRACES, path.read_bytes())
    for path in sorted(CAPTURES.glob("jaeger/*.json")):
        yield path.name, from_json.decode(path.read_bytes(), 0).body()
    for path in sorted(CAPTURES.glob("jaeger/*.thrift")):
        yield path.name, from_thrift.decode(path.read_bytes()).body()


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in captured()])
def test_it_reads_what_real_senders_write(body):
    assert agree(native, body)


@given(requests(Signal.TRACES, unknown=False))
def test_it_reads_what_protobuf_writes(body):
    made = full(Signal.TRACES, body)
    for resource in made.resource_spans:
        for scope in resource.scope_spans:
            for each in scope.spans:
                each.trace_state = each.trace_state and f"a={len(each.trace_state) % 8}"
    assert agree(native, made.SerializeToString())


def test_it_reads_traffic():
    for _, body, _ in traffic(5, 20):
        assert agree(native, body)
    sample = Sample(seed=1, errors=0.5)
    for number in range(10):
        assert agree(native, sample.make(Signal.TRACES, 1 + number, 1_700_000_000_000_000_000))


def test_it_reads_requests_one_behind_the_other():
    assert agree(native, b"".join(body for _, body in captured()))


# ---- much of something ----


@pytest.mark.parametrize("count", [255, 256, 257, 1023, 1025, 5000])
def test_many_traces(count):
    ids = [number.to_bytes(8, "big") * 2 for number in range(1, count + 1)]
    body = request([span(each) for each in ids], [span(each, CHILD, b"elsewher") for each in ids[::-1]])
    assert agree(native, body)
    assert [piece[:2] for piece in read(body, MARKS)[1]] == [(each, 2) for each in ids]


def test_many_spans():
    def number(place):
        return place.to_bytes(8, "little")

    spans = [span(span_id=number(place), parent=number(place // 2) if place > 1 else b"") for place in range(1, 20_001)]
    body = request(spans[10_000:], spans[:10_000])
    assert agree(native, body)
    ((_, count, *_),) = read(body)[1]
    assert count == 20_000


@pytest.mark.parametrize(("states", "is_read"), [(8, True), (9, False)])
def test_many_trace_states(states, is_read):
    body = request([span(span_id=b"%08d" % place, trace_state=f"s={place % states}") for place in range(30)])
    assert agree(native, body) is is_read
    assert len(traces.read(body)[1][0][4]) == states


@pytest.mark.parametrize(("size", "is_read"), [(1 << 16, True), (1 << 31, False)])
def test_more_bytes_than_a_request_can_have(size, is_read):
    try:
        body = bytes(size)  # zeros, which take no memory as long as nobody reads them
    except MemoryError:
        pytest.skip("there is not so much memory")
    begin = b"\x0a" + padded(size - 6, 5) + b"\x1a" + padded(size - 12, 5)
    ctypes.memmove(id(body) + bytes.__basicsize__ - 1, begin, len(begin))
    assert (read(body) is not None) is is_read


# ---- whatever it is given ----


def test_wrong_arguments():
    for arguments in (
        (), (BODY,), (BODY, None), (BODY, None, True, True),
        (None, None, True), ("text", None, True), (bytearray(BODY), None, True), (memoryview(BODY), None, True),
        (BODY, [], True), (BODY, b"", True), (BODY, ("n",), True), (BODY, (b"x", None), True),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            native.read(*arguments)
    with pytest.raises(TypeError):
        native.read(body=BODY, marks=None, name=True)
    with pytest.raises(ZeroDivisionError):
        read(BODY, MARKS, name=Undecided())


class Undecided:
    def __bool__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "chosen"),
    [
        (TypeError, ["", b""]), (TypeError, [b"", 1]), (TypeError, [[None], b""]), (TypeError, [bytearray(), None]),
        (TypeError, [None, (b"",)]), (ValueError, []), (ValueError, [b""]), (ValueError, [b""] * 3),
        (ValueError, (b"", b"")), (ValueError, None), (ValueError, [[], b""]), (ValueError, [[b"", b""], None]),
    ],
)  # fmt: skip
def test_wrong_choices(error, chosen):
    found, _ = read(BODY)
    with pytest.raises(error):
        found.select(chosen)


@pytest.mark.parametrize(
    ("error", "method", "arguments"),
    [
        (TypeError, "parts", ()), (TypeError, "parts", ([0], [])), (TypeError, "parts", ((0,), [], None)),
        (TypeError, "parts", ([0], (), None)), (TypeError, "parts", (["0"], [], None)),
        (TypeError, "parts", ([0.0], [], None)), (IndexError, "parts", ([2], [None], None)),
        (IndexError, "parts", ([0, 1 << 32], [None], None)), (IndexError, "parts", ([0], [], None)),
        (OverflowError, "parts", ([-1], [None], None)), (OverflowError, "parts", ([1 << 64], [None], None)),
        (TypeError, "spans", ()), (TypeError, "spans", (None,)), (TypeError, "spans", ("0",)),
        (IndexError, "spans", (2,)), (IndexError, "spans", ((1 << 32) - 1,)), (OverflowError, "spans", (-1,)),
        (OverflowError, "spans", (1 << 64,)), (TypeError, "heads", (1,)), (TypeError, "spread", ()),
        (TypeError, "spread", ("ab",)), (ValueError, "spread", (b"a",)), (ValueError, "spread", (b"abc",)),
        (TypeError, "select", ()), (TypeError, "select", ([], [])),
    ],
)  # fmt: skip
def test_wrong_arguments_of_a_request(error, method, arguments):
    found, _ = read(BODY)
    with pytest.raises(error):
        getattr(found, method)(*arguments)


def test_a_request_is_made_by_reading_only():
    found, _ = read(BODY)
    kind = type(found)
    for wrong in (
        kind,
        lambda: kind.__new__(kind),
        lambda: object.__new__(kind),
        lambda: copy.copy(found),
        lambda: pickle.dumps(found),
        lambda: type("Own", (kind,), {}),
        lambda: setattr(kind, "spans", None),
        lambda: kind.spans(object(), 0),
        lambda: kind.select(reading.read(BODY, None, name=False)[0], [b"", b""]),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_a_request_outlives_what_it_was_read_from():
    found = read(bytes(bytearray(BODY)))[0]
    gc.collect()
    assert found.select([b"", b""]) == BODY


def everything(body=BODY, owner=None, marks=MARKS):
    """Call all functions with valid and invalid arguments."""
    read(IRREGULAR, marks)
    read(body[:-1], marks)
    found, pieces = read(body, marks, name=True)
    heads = found.heads()
    found.parts([0, 1], heads, owner)
    found.select([b"\x1a\x01x", None])
    found.select([None, found.spans(1)])
    found.spread(b"ab")
    for method, arguments in (
        (found.parts, ([0, 1, 2], heads, owner)), (found.parts, ([0], [], owner)), (found.select, ([b"", [1]],)),
        (found.select, ([[], b""],)), (found.spans, (2,)), (found.spread, (b"a",)),
        (read, (body, (None,))),
    ):  # fmt: skip
        with suppress(TypeError, ValueError, IndexError):
            method(*arguments)
    return pieces


def test_nothing_is_held_longer_than_needed():
    body, owner, marks = bytes(bytearray(BODY)), object(), tuple([mark + b"" for mark in MARKS])
    counted = (body, owner, marks, *marks, type(read(BODY)[0]))
    everything(body, owner, marks)
    before = [sys.getrefcount(each) for each in counted]
    tracemalloc.start()
    try:
        everything(body, owner, marks)
        held = tracemalloc.get_traced_memory()[0], _allocated()
        for _ in range(ROUNDS):
            everything(body, owner, marks)
        more = tracemalloc.get_traced_memory()[0] - held[0], _allocated() - held[1]
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(each) for each in counted] == before
    assert max(more) < 5 * ROUNDS


def _allocated():
    """Return the bytes that C's malloc has given out, which tracemalloc knows nothing of; 0 where nothing tells."""

    class Told(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )]  # fmt: skip

    try:
        tell = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # not the GNU library's
        return 0
    tell.restype = Told
    return tell().uordblks


def test_a_lack_of_memory_is_handled():
    testing = pytest.importorskip("_testcapi")
    expected, failures = everything(), 0
    for start in range(200):
        pieces = None
        testing.set_nomemory(start, start + 1)
        try:
            pieces = everything()
        except MemoryError:
            failures += 1
        finally:
            testing.remove_mem_hooks()
        assert pieces is None or pieces == expected
    assert failures > 20
