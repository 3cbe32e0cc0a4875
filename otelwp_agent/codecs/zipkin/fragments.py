"""Cache the encoded form of attributes by their bytes.

A span consists mostly of attributes, which are usually equal in many spans. So a tag is written once, as a *fragment*
(in JSON `"key":"value"`, in protobuf an entry of `tags`), and the tags of a span are the joined fragments of its
attributes.

The keys of a span, in their order, are its *shape*. There are few shapes, and everything that depends only on the keys
(Does a key occur twice? Which keys describe the peer?) is computed once for each shape: its *plan*.
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
    """`None`: nothing to do; `CAREFUL`; or a function that picks the fragments that describe the peer."""

F = TypeVar("F", str, bytes)

MAX_SIZE = 127
"""Maximum size in bytes of a cached attribute: so each of its lengths takes one byte."""

MAX_SHAPES = 512
"""Maximum number of cached shapes of one scope."""

MAX_SMALL = 1024
"""Maximum number of cached names, of cached status, and of cached endpoints."""


def CAREFUL(_fragments: object) -> None:  # noqa: N802 - a constant, only its identity is used
    """Plan of spans that must be converted to a dict: a tag occurs twice, or becomes a field."""


SCOPE_NAMES = ("otel.scope.name", "otel.library.name")
SCOPE_VERSIONS = ("otel.scope.version", "otel.library.version")
"""Current and former names of the attributes for a scope's name and version: the specification requires both."""
ERROR = "error"
STATUS_CODE = "otel.status_code"
TRACE_STATE = "w3c.tracestate"
DROPPED_ATTRIBUTES = "otel.dropped_attributes_count"
DROPPED_EVENTS = "otel.dropped_events_count"
DROPPED_LINKS = "otel.dropped_links_count"
ABSENT_START = "otel.zipkin.absentField.startTime"
"""Attribute that the Collector sets on spans without a timestamp."""
SHARED, DEBUG = "zipkin.shared", "zipkin.debug"
"""Attributes for Zipkin's flags."""

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
"""Tags that become other fields, or are made from other fields."""


class TagCache(dict[bytes, tuple[F, str]], Generic[F]):
    """Maps a serialized `KeyValue` with its length, which takes one byte, to its fragment and key."""

    __slots__ = ("_heads", "_seen", "missed", "tag")

    def __init__(self, tag: Callable[[str, str], F]) -> None:
        """Write fragments with `tag(key, value)`."""
        super().__init__()
        self.missed = 0
        """Number of lookups that were not cached."""
        self.tag: Callable[[str, str], F] = tag
        self._heads: dict[bytes, str] = {}
        """Keys by the bytes before a text value: they contain all lengths, so nothing can follow the text."""
        self._seen = Seen().again

    def __missing__(self, piece: bytes) -> tuple[F, str]:
        """Write a new fragment, and cache it if it is repeated; raise `ValueError` if the length is wrong."""
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
        """Return the fragment and key of a serialized `KeyValue` of any length."""
        if len(attribute) <= MAX_SIZE:
            return self[b"%c%b" % (len(attribute), attribute)]
        key, value = pair(attribute)
        return self.tag(key, value), key


class Shapes(dict[tuple[str, ...], Any]):
    """Maps the keys of a span, in their order, to its plan, for spans of one scope and kind."""

    __slots__ = ("_above", "_careful", "_kind")

    def __init__(self, above: frozenset[str], kind: int) -> None:
        """Make plans for spans whose resource and scope have tags with the keys `above`."""
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
        peer = endpoints.peer_keys(own, self._kind)
        return itemgetter(*map(keys.index, peer)) if peer else None


def places(plan: Plan, keys: int) -> Sequence[int]:
    """Return the positions, among `keys` attributes, of those that describe the peer."""
    peer = plan(range(keys)) if plan is not None else ()
    return (peer,) if isinstance(peer, int) else peer


def pair(attribute: bytes) -> tuple[str, str]:
    """Return the key of a serialized `KeyValue`, and its value as text."""
    try:
        parsed = projection_pb2.KeyValue.FromString(attribute)
    except DecodeError as error:
        message = "an attribute is not a serialized KeyValue"
        raise MalformedError(message) from error
    return parsed.key.decode(errors="replace"), as_string(decode(parsed.value))


def _simple(piece: bytes, size: int) -> tuple[str, str] | None:
    """Do the same as `pair` for a key and a string or small integer in this order; return `None` for anything else."""
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
"""Tags of `KeyValue.key` and `.value`, and of `AnyValue.string_value` and `.int_value` (common.proto)."""
_BEFORE_TEXT = 7
"""Bytes before a text besides its key: five lengths and tags of attribute, key and value, and two of the text."""
_CONTINUES = 127
"""A larger byte means that the varint continues."""


def json_tag(key: str, value: str) -> str:
    """Return a tag as a member of a JSON object."""
    return f"{_json_keys[key]}:{orjson.dumps(value).decode()}"


_json_keys: dict[str, str] = Remembered(lambda key: orjson.dumps(key).decode(), MAX_SMALL)


def json_pair(fragment: str) -> tuple[str, str]:
    """Parse the result of `json_tag`."""
    ((key, value),) = orjson.loads(f"{{{fragment}}}").items()
    return key, value


def proto_tag(key: str, value: str) -> bytes:
    """Return a tag as an entry of `Span.tags` (11)."""
    return prefixed(b"\x5a", prefixed(b"\x0a", key.encode()) + prefixed(b"\x12", value.encode()))


def proto_pair(fragment: bytes) -> tuple[str, str]:
    """Parse the result of `proto_tag`."""
    (tag,) = pb.Span.FromString(fragment).tags
    return tag.key.decode(), tag.value.decode()


def tags_of(attributes: Iterable[bytes]) -> dict[str, str]:
    """Return serialized attributes as tags; for equal keys, the last one."""
    return dict(map(pair, attributes))
