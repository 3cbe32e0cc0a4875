"""What was written for an attribute, found again by the attribute's bytes.

Most of a span are its attributes, and mostly they are the same in each. So a tag is written once, as a *fragment* (in
JSON `"key":"value"`, in protobuf an entry of `tags`), and a span's tags are the fragments of its attributes, joined.

The keys that a span has, in their order, are its *shape*; there are few of them, and whatever depends on the keys alone
(does one stand there twice? which tell the other side?) is worked out once for each: its *plan*.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
from google.protobuf.message import DecodeError

from otelwp_agent.codecs.recurring import MAX_ENTRIES, Remembered, Seen
from otelwp_agent.codecs.zipkin import endpoints
from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2
from otelwp_agent.model.attributes import as_string, decode
from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Plan = Callable[[Any], Any] | None
    """`None`: nothing to do; `CAREFUL`; or what picks the fragments that tell the other side."""

F = TypeVar("F", str, bytes)

MAX_SIZE = 127
"""The largest serialized attribute that is remembered, in bytes: its lengths are one byte each."""

MAX_SHAPES = 512
"""Shapes of one scope that are remembered."""

MAX_SMALL = 1024
"""Names, status and endpoints that are remembered, of each."""


def CAREFUL(_fragments: object) -> None:  # noqa: N802 - a constant, whose identity is all that counts
    """Stand for the plan of spans that take the careful way: a tag is there twice, or becomes a field."""


SCOPE_NAMES = ("otel.scope.name", "otel.library.name")
SCOPE_VERSIONS = ("otel.scope.version", "otel.library.version")
"""What a scope's name and version are called, and were before: the specification asks for both."""
ERROR = "error"
STATUS_CODE = "otel.status_code"
TRACE_STATE = "w3c.tracestate"
DROPPED_ATTRIBUTES = "otel.dropped_attributes_count"
DROPPED_EVENTS = "otel.dropped_events_count"
DROPPED_LINKS = "otel.dropped_links_count"
ABSENT_START = "otel.zipkin.absentField.startTime"
"""The attribute that the Collector gives spans which had no timestamp."""
SHARED, DEBUG = "zipkin.shared", "zipkin.debug"
"""The attributes that Zipkin's flags are kept in."""

FIELDS = frozenset(
    {
        ERROR,
        STATUS_CODE,
        TRACE_STATE,
        DROPPED_ATTRIBUTES,
        DROPPED_EVENTS,
        DROPPED_LINKS,
        ABSENT_START,
        SHARED,
        DEBUG,
        *endpoints.LOCAL,
    }
)
"""The tags that are more than tags, or are made of other fields as well."""


class Tags(dict[bytes, tuple[F, str]], Generic[F]):
    """Serialized `KeyValue` behind its length, which is one byte → fragment and key."""

    __slots__ = ("_heads", "_seen", "missed", "tag")

    def __init__(self, tag: Callable[[str, str], F]) -> None:
        """Write fragments with `tag(key, value)`."""
        super().__init__()
        self.missed = 0
        """How often something was not remembered."""
        self.tag: Callable[[str, str], F] = tag
        self._heads: dict[bytes, str] = {}
        """Keys by what stands before a text: it tells all lengths, and so that nothing stands behind the text."""
        self._seen = Seen().again

    def __missing__(self, piece: bytes) -> tuple[F, str]:
        """Write a new one, and remember it if it comes again; `ValueError` if it is not as long as it says."""
        size = len(piece) - 1
        if size < 0 or piece[0] != size or size > MAX_SIZE:
            message = "not an attribute behind its length"
            raise ValueError(message)
        self.missed += 1
        text = piece[2] + _BEFORE_TEXT if size > 1 else 0
        head = piece[:text]
        key = self._heads.get(head)
        if key is None:
            simple = _simple(piece, size)
            key, value = simple or pair(piece[1:])
            if simple and text <= size and piece[text - 2] == _STRING:
                if len(self._heads) >= MAX_ENTRIES:
                    self._heads.clear()
                self._heads[head] = key
        else:
            value = str(piece[text:], "utf-8", "replace")
        made = self.tag(key, value), key
        if self._seen(piece):
            if len(self) >= MAX_ENTRIES:
                self.clear()
            self[piece] = made
        return made

    def of(self, attribute: bytes) -> tuple[F, str]:
        """Return the same of a serialized `KeyValue` of any length."""
        if len(attribute) <= MAX_SIZE:
            return self[b"%c%b" % (len(attribute), attribute)]
        key, value = pair(attribute)
        return self.tag(key, value), key


class Shapes(dict[tuple[str, ...], Any]):
    """A span's keys in their order → its plan, for spans of one scope and kind."""

    __slots__ = ("_above", "_careful", "_kind")

    def __init__(self, above: frozenset[str], kind: int) -> None:
        """Plan for spans below a resource and scope whose tags have the keys `above`."""
        super().__init__()
        self._above = above
        self._careful = not above.isdisjoint(FIELDS)
        self._kind = kind

    def __missing__(self, keys: tuple[str, ...]) -> Plan:
        """Make a plan."""
        if len(self) >= MAX_SHAPES:
            self.clear()
        plan = self[keys] = self._plan(keys)
        return plan

    def _plan(self, keys: tuple[str, ...]) -> Plan:
        own = frozenset(keys)
        twice = len(own) < len(keys) or not own.isdisjoint(self._above)
        if twice or self._careful or not own.isdisjoint(FIELDS):
            return CAREFUL
        told = endpoints.telling(own, self._kind)
        return itemgetter(*map(keys.index, told)) if told else None


def places(plan: Plan, keys: int) -> Sequence[int]:
    """Return where, among so many, the attributes stand that tell the other side."""
    told = plan(range(keys)) if plan is not None else ()
    return (told,) if isinstance(told, int) else told


def pair(attribute: bytes) -> tuple[str, str]:
    """Return the key of a serialized `KeyValue`, and its value as text."""
    try:
        parsed = projection_pb2.KeyValue.FromString(attribute)
    except DecodeError as error:
        message = "an attribute is not a serialized KeyValue"
        raise MalformedError(message) from error
    return parsed.key.decode(errors="replace"), as_string(decode(parsed.value))


def _simple(piece: bytes, size: int) -> tuple[str, str] | None:
    """Return what `pair` does, for a key and a string or a small integer in their order; `None` otherwise."""
    try:
        end = 3 + piece[2]
        if piece[1] != _KEY or piece[end] != _VALUE or piece[end + 1] != size - end - 1:
            return None
        kind, first = piece[end + 2], piece[end + 3]
        if kind == _STRING and first == size - end - 3:
            return str(piece[3:end], "utf-8", "replace"), str(piece[end + 4 :], "utf-8", "replace")
        if kind == _INTEGER:
            if size == end + 4 and first > _CONTINUES >= piece[end + 4]:
                first += (piece[end + 4] << 7) - 128
            elif size != end + 3 or first > _CONTINUES:
                return None
            return str(piece[3:end], "utf-8", "replace"), str(first)
    except IndexError:
        pass
    return None


_KEY, _VALUE, _STRING, _INTEGER = 0x0A, 0x12, 0x0A, 0x18
"""The tags of `KeyValue.key` and `.value`, of `AnyValue.string_value` and `.int_value` (common.proto)."""
_BEFORE_TEXT = 7
"""Bytes before a text, but for its key's: five lengths and tags of attribute, key and value, and the text's own two."""
_CONTINUES = 127
"""A varint goes on behind a byte that is larger."""


def json_tag(key: str, value: str) -> str:
    """Return a tag as a member of a JSON object."""
    return f"{_json_keys[key]}:{orjson.dumps(value).decode()}"


_json_keys: dict[str, str] = Remembered(lambda key: orjson.dumps(key).decode(), MAX_SMALL)


def json_pair(fragment: str) -> tuple[str, str]:
    """Read what `json_tag` wrote."""
    ((key, value),) = orjson.loads(f"{{{fragment}}}").items()
    return key, value


def proto_tag(key: str, value: str) -> bytes:
    """Return a tag as an entry of `Span.tags` (11)."""
    return prefixed(b"\x5a", prefixed(b"\x0a", key.encode()) + prefixed(b"\x12", value.encode()))


def proto_pair(fragment: bytes) -> tuple[str, str]:
    """Read what `proto_tag` wrote."""
    (tag,) = pb.Span.FromString(fragment).tags
    return tag.key.decode(), tag.value.decode()


def tags_of(attributes: Iterable[bytes]) -> dict[str, str]:
    """Return serialized attributes as tags; of those with one key, the last."""
    return dict(map(pair, attributes))
