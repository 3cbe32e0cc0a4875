"""Requests of traces that are laid out in odd ways, and what two ways to read one are compared by."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.wire import varint
from otelwp_agent.sampling.traces import reading
from tests.kit.otlp import meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.sampling.traces import Choice, Piece, TraceRequest
    from otelwp_agent.sampling.traces.framing import Head

TRACE, OTHER = bytes(range(16)), bytes(range(1, 17))
ROOT, CHILD, GRANDCHILD = b"rootroot", b"childchi", b"grandgra"
MARKS = (b"\x0a\x0ahttp.route", b"\x0a\x01n")
"""How the attributes `http.route` and `n` begin."""
ALL_MARKS: tuple[tuple[bytes, ...] | None, ...] = (MARKS, None, (), (b"",))

SOME = 20
"""Traces of a request whose spans are compared one by one."""


def span(trace_id: bytes = TRACE, span_id: bytes = ROOT, parent: bytes = b"", **fields: Any) -> dict[str, Any]:
    """Return the fields of a span; `code` is that of its status."""
    return {"trace_id": trace_id, "span_id": span_id, "parent_span_id": parent, "name": "GET /", "kind": 2, **fields}


def request(*scopes: Sequence[dict[str, Any]]) -> bytes:
    """Return a request of one resource for each list of spans."""
    made = ExportTraceServiceRequest()
    for index, spans in enumerate(scopes):
        resource = made.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = f"service {index}"
        scope = resource.scope_spans.add()
        scope.scope.name = f"scope {index}"
        for each in spans:
            fields = {**each}
            code = fields.pop("code", None)
            added = scope.spans.add(**fields)
            if code is not None:
                added.status.code = code
    return made.SerializeToString()


# ---- odd requests ----

_TRACES = (TRACE, TRACE, OTHER, b"\xff" + TRACE[1:], TRACE[:-1] + b"\xff", bytes(16), b"", b"short", bytes(17))
_SPANS = (*[bytes([number]) * 8 for number in (1, 2, 3, 4, 34)], bytes(8), b"")
_STATES = (b"", b"ot=th:8", b"ot=th:8", b"a=b")
_CODES = (0, 1, 2, 2, 3, (1 << 32) + 2, 1 << 63, (1 << 64) - 1)
_KEYS = (b"http.route", b"n", b"http.method", b"", b"k" * 127, b"k" * 128, b"\xff")
_TIMES = (0, 1, 1_795_184_645_000_000_000, (1 << 53) + 1, (1 << 64) - 1)
_ODDITIES = (
    "tags", "lengths", "numbers", "order", "twice", "unknown", "types", "groups", "ids", "states", "resources", "cut",
)  # fmt: skip
_TOO_LONG = 11
"""Bytes of a varint that is none any more."""


class OddTraces:
    """Draws requests as no encoder writes them: what is odd about one is drawn first, mostly little."""

    def __init__(self, draw: random.Random, breadth: int = 3) -> None:
        """Draw from `draw` lists of at most `breadth`."""
        self.draw = draw
        self.breadth = breadth
        self.odd = {oddity for oddity in _ODDITIES if draw.random() < 0.2}
        self.chance = draw.choice((1, 0.3, 0.05))
        fresh = [draw.randbytes(8) for _ in range(4)]
        self.spans = (*_SPANS, *fresh) if draw.random() < 0.5 else fresh
        self.traces = _TRACES if draw.random() < 0.5 else _TRACES[:5]

    def request(self) -> bytes:
        """Return a request, or several, one behind the other."""
        made = b"".join([self._field(1, self._resource()) for _ in range(self.draw.randint(0, self.breadth))])
        if self._is("unknown"):
            made += self._unknown()
        return made[: self.draw.randint(0, len(made))] if self._is("cut") else made

    def _is(self, oddity: str, chance: float = 0.3) -> bool:
        return oddity in self.odd and self.draw.random() < chance * self.chance

    def _padded(self, number: int, oddity: str) -> bytes:
        made = varint(number)
        if not self._is(oddity, 0.05):
            return made
        more = self.draw.choice((1, 1, 2, 4, 5, _TOO_LONG)) - 1
        return made[:-1] + bytes([made[-1] | 0x80]) + b"\x80" * more + self.draw.choice((b"\0", b"\0", b"\0", b"\x7e"))

    def _tag(self, number: int, kind: int) -> bytes:
        if self._is("types", 0.05):
            kind = self.draw.choice((0, 1, 2, 3, 4, 5, 6))
        return self._padded(number << 3 | kind, "tags")

    def _field(self, number: int, body: bytes) -> bytes:
        return self._tag(number, 2) + self._padded(len(body), "lengths") + body

    def _number(self, number: int, value: int) -> bytes:
        return self._tag(number, 0) + self._padded(value, "numbers")

    def _fixed(self, number: int, value: int) -> bytes:
        return self._tag(number, 1) + struct.pack("<Q", value)

    def _unknown(self) -> bytes:
        number = self.draw.choice((4, 12, 15, 16, 99, 1000, (1 << 29) - 1, 1 << 29, 0))
        made = self.draw.choice((
            self._number(number, self.draw.getrandbits(64)),
            self._field(number, self.draw.randbytes(self.draw.randint(0, 12))),
            self._fixed(number, self.draw.getrandbits(64)),
            self._tag(number, 5) + self.draw.randbytes(4),
        ))  # fmt: skip
        if self._is("groups"):
            made = self._tag(number, 3) + made + self._tag(number, 4)
        return made

    def _message(self, fields: list[bytes], more: Callable[[], bytes] | None = None) -> bytes:
        """Return a message of these fields; one of them may stand there twice, or be followed by one `more`."""
        if self._is("order", 1):
            self.draw.shuffle(fields)
        if self._is("twice"):
            fields.append(self.draw.choice(fields) if fields else b"")
        if self._is("twice") and more is not None:
            fields.insert(self.draw.randint(0, len(fields)), more())
        if self._is("unknown"):
            fields.insert(self.draw.randint(0, len(fields)), self._unknown())
        return b"".join(fields)

    def _resource(self) -> bytes:
        def resource() -> bytes:
            return self._field(1, self._message([self._attribute(1)]))

        fields = [resource()] if self.draw.random() < 0.9 else []
        fields += [self._field(2, self._scope()) for _ in range(self.draw.randint(0, self.breadth))]
        if self.draw.random() < 0.3:
            fields.append(self._field(3, b"https://schema"))
        return self._message(fields, resource if self._is("resources", 0.5) else None)

    def _scope(self) -> bytes:
        scope = [self._field(1, self._message([self._field(1, b"a scope"), self._field(2, b"1")]))]
        spans = [self._field(2, self._span()) for _ in range(self.draw.randint(0, self.breadth + 1))]
        return self._message([*scope, *spans], lambda: self._field(3, b"https://schema"))

    def _span(self) -> bytes:
        draw = self.draw
        several: list[Callable[[], bytes]] = [
            lambda: self._field(1, draw.choice(self.traces)),
            lambda: self._field(2, self._id()),
            lambda: self._field(4, self._id()),
            lambda: self._field(3, b"s=%d" % draw.randrange(12) if "states" in self.odd else draw.choice(_STATES)),
            lambda: self._field(5, draw.choice((b"GET /", b"", b"x" * 200, b"\xff"))),
            lambda: self._number(6, 2),
            lambda: self._fixed(7, draw.choice(_TIMES)),
            lambda: self._fixed(8, draw.choice(_TIMES)),
            lambda: self._field(15, self._status()),
            lambda: self._tag(16, 5) + b"\x01\x01\0\0",
        ]
        fields = [several[0](), *[each() for each in several[1:] if draw.random() < 0.7]]
        fields += [self._attribute(9) for _ in range(draw.randint(0, self.breadth))]
        return self._message(fields, draw.choice(several))

    def _id(self) -> bytes:
        return self.draw.choice((b"four", b"nine bytes")) if self._is("ids") else self.draw.choice(self.spans)

    def _status(self) -> bytes:
        def code() -> bytes:
            return self._number(3, self.draw.choice(_CODES))

        return self._message([self._field(2, b"why"), code()][self.draw.randint(0, 1) :], code)

    def _attribute(self, number: int) -> bytes:
        key, value = self._field(1, self.draw.choice(_KEYS)), self._field(2, self._field(1, b"v"))
        return self._field(number, self._message([key, value]))


def odd_request(seed: int, breadth: int = 3) -> bytes:
    """Return the odd request of this number."""
    return OddTraces(random.Random(seed), breadth).request()


# ---- what two ways are compared by ----


def agree(native: Any, body: bytes, marks: tuple[bytes, ...] | None = MARKS, *, name: bool = True) -> bool:
    """Read a request by the extension module and in Python: both mean the same by all that they say of it.

    Return whether the module read it; it may leave any to Python, and has to leave what does not parse.
    """
    found = native.read(body, marks, name)
    try:
        request, pieces = reading.read(body, marks, name)
    except MalformedError:
        assert found is None, "what does not parse was read"
        return False
    if found is None:
        return False
    assert plain(found[1]) == plain(pieces)
    compare(found[0], request, pieces)
    return True


def plain(pieces: Sequence[Piece]) -> list[tuple[Any, ...]]:
    """Return pieces to compare, with what their roots said as it parses."""
    return [(*piece[:7], pb.Said.FromString(piece[7])) for piece in pieces]


def canonical(body: bytes) -> bytes:
    """Return a request as protobuf writes it, but for what it does not read."""
    return pb.Resources.FromString(body).SerializeToString()


def compare(quick: TraceRequest, slow: TraceRequest, pieces: Sequence[Piece]) -> None:
    """Compare what two requests say that were read from one body."""
    count = len(pieces)
    places, owner = [*range(min(count, SOME))], object()
    heads = slow.heads()
    quick_heads = quick.heads()
    assert [_head(head) for head in quick_heads] == heads
    spans = [slow.spans(place) for place in places]
    assert [quick.spans(place) for place in places] == spans
    for chosen in (places[::-1], places[:1] * 2, []):
        quick_parts, parts = quick.parts(chosen, quick_heads, owner), slow.parts(chosen, heads, owner)
        assert [[(_head(head), *rest) for head, *rest in each] for each in quick_parts] == [
            [(head, *rest) for head, *rest in each] for each in parts
        ]
    codes = bytes([place * 7 % 251 for place in range(count)])
    assert quick.spread(codes) == slow.spread(codes)
    for choices in choose(pieces, spans):
        selected = quick.select(choices)
        expected = slow.select(choices)
        assert canonical(selected) == expected
        try:
            means = meaning(Signal.TRACES, expected)
        except DecodeError:  # below the span, where neither looks
            continue
        assert meaning(Signal.TRACES, selected) == means


def choose(pieces: Sequence[Piece], spans: Sequence[list[bytes]]) -> list[list[Choice]]:
    """Return different choices for `TraceRequest.select`."""
    count = len(pieces)
    state = b"\x1a\x07ot=th:c"
    others = [[item[:-1] if place % 2 else item + state for place, item in enumerate(items)] for items in spans]
    mixed: list[Choice] = [(None, b"", state, other)[place % 4] for place, other in enumerate(others)]
    return [
        [None] * count,
        [b""] * count,
        [state * 20] * count,
        [*others, *[None] * (count - len(others))],
        [*mixed, *[b""] * (count - len(mixed))],
    ]


def _head(head: Head) -> Head:
    resource, scope = head
    return (
        pb.ResourceSlice.FromString(resource).SerializeToString(),
        pb.OpaqueScope.FromString(scope).SerializeToString(),
    )
