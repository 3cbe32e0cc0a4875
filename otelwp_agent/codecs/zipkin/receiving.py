"""Convert Zipkin spans to OTLP, from dicts in the form of v2 JSON (v1 and protobuf are converted to such dicts first).

Problems that can be repaired are repaired and counted by kind. Spans with invalid ids are dropped and counted. A body
without any usable span is refused with the position of the first problem.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from binascii import unhexlify
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs import scalars
from otelwp_agent.codecs.key_value import attribute
from otelwp_agent.codecs.zipkin import endpoints, events
from otelwp_agent.codecs.zipkin.assembly import CLIENT, SERVER, Assembly, Span
from otelwp_agent.codecs.zipkin.fragments import ABSENT_START, DEBUG, SCOPE_NAMES, SCOPE_VERSIONS, SHARED
from otelwp_agent.codecs.zipkin.specials import ATTRIBUTE, SPAN_KIND, SPECIAL, fields, scope
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.wire import prefixed, varint

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from otelwp_agent.codecs.key_value import Value

STEP = 512
"""Number of spans that are decoded between two steps, in about three milliseconds."""

MAX_ENTRIES = 8192
"""Maximum number of cached tags, about 3 MB; when it is reached, all are removed."""

MAX_SIZE = 128
"""Maximum size in bytes of a cached serialized attribute."""

RESOURCE_PREFIXES = (
    "cloud.", "container.", "deployment.", "device.", "host.", "k8s.", "os.", "process.", "service.",
    "telemetry.distro.", "telemetry.sdk.", "webengine.",
)  # fmt: skip
"""Prefixes of resource attributes (semantic conventions 1.37, "Resource"). Tags with such names were resource
attributes before an exporter made them tags, and become resource attributes again."""

KINDS = {"internal": b"0\1", "server": SERVER, "client": CLIENT, "producer": b"0\4", "consumer": b"0\5"}
_times = struct.Struct("<BQBQ").pack
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,3})?")
_TRACE_SIZE, _SPAN_SIZE = 16, 8
_INT64 = range(-(1 << 63), 1 << 63)


class Decoder:
    """Collects the spans of one body and builds an OTLP request."""

    __slots__ = (
        "_first",
        "_halves",
        "_known",
        "_memory",
        "_now",
        "_parse",
        "_processes",
        "_shared",
        "traces",
        "troubles",
    )

    def __init__(self, now: int, *, parse_string_tags: bool = False) -> None:
        """Use `now` (nanoseconds) for spans without a time; parse numbers in tags if `parse_string_tags` is set."""
        self.traces = Assembly()
        self.troubles = 0
        self._first = ""
        self._now = now
        self._parse = parse_string_tags
        self._memory = _parsed if parse_string_tags else _strings

    def decoding(self, spans: Iterable[Any]) -> Generator[None, None, None]:
        """Take spans, in steps of a few milliseconds; raise `MalformedError` if there are some and none can be used."""
        for index, span in enumerate(spans):
            if index and not index % STEP:
                yield
            if type(span) is dict:
                self._add(span, index)
            else:
                self._trouble(f"[{index}]", "a span must be an object")
        if self.troubles:
            if not self.traces.spans:
                raise MalformedError(self._first)
            self.traces.repaired("span_dropped", self.troubles)

    def _trouble(self, place: str, what: str) -> None:
        self._first = self._first or f"{place}: {what}"
        self.troubles += 1

    # -- a span

    def _add(self, span: dict[str, Any], index: int) -> None:
        trace_id = self._id(span.get("traceId"), _TRACE_SIZE)
        span_id = self._id(span.get("id"), _SPAN_SIZE)
        if not trace_id or not span_id:
            field, what = ("traceId", "16 or 32") if not trace_id else ("id", "16")
            self._trouble(f"[{index}].{field}", f"must be an id of {what} hex digits that are not all 0")
            return
        tags = span.get("tags")
        if type(tags) is not dict:
            tags = self._tags_of(tags) if tags is not None else {}
        if SCOPE_NAMES[0] in span:  # this is how the OpenTelemetry PHP SDK writes it
            tags = {**tags, **{key: span[key] for key in (*SCOPE_NAMES, *SCOPE_VERSIONS) if key in span}}
            self.traces.repaired("scope_beside_tags")
        resource: list[tuple[str, Value]] = []
        specials: dict[str, Value] = {}
        parts = self._tags(tags, specials, resource)
        service = self._add_endpoints(span, tags, parts)
        for flag, key in (("shared", SHARED), ("debug", DEBUG)):
            if span.get(flag) is True and key not in tags:
                parts.append(ATTRIBUTE + attribute(key, value=True))
        start, end, annotations = self._times(span, parts)
        kind = self._kind(span.get("kind"), specials)
        within = ("", "")
        if specials:
            parts.append(fields(specials))
            within = scope(specials)
        parent = self._id(span.get("parentId"), _SPAN_SIZE) if span.get("parentId") else b""
        name = self._name(span.get("name"))
        rest = b"".join((name, kind, _times(0x39, start, 0x41, end), *parts, *annotations))
        self.traces.add((service, tuple(resource)), within, Span(trace_id + span_id, parent, kind, rest))

    def _id(self, value: Any, size: int) -> bytes:  # noqa: ANN401 - any JSON value
        """Return an id of `size` bytes; empty if there is none."""
        if not value:
            return b""
        try:
            raw = unhexlify(value)
        except (ValueError, TypeError):
            raw = b""
        if len(raw) == size or (len(raw) == _SPAN_SIZE < size):
            return raw.rjust(size, b"\0") if any(raw) else b""
        raw, repair = scalars.identifier(value, size)
        if repair:
            self.traces.repaired(repair)
        return raw

    def _name(self, value: Any) -> bytes:  # noqa: ANN401 - any JSON value
        if value is not None and type(value) is not str:
            self.traces.repaired("name_type")
            value = scalars.text(value)
        return prefixed(b"\x2a", (value or "").encode())

    def _kind(self, value: Any, specials: dict[str, Value]) -> bytes:  # noqa: ANN401 - any JSON value
        """Return the kind as a field of a span: Zipkin's kind, or the one in a tag of a span without a kind."""
        if value is None:
            return KINDS.get(str(specials.get(SPAN_KIND, "internal")).lower(), KINDS["internal"])
        kind = _ZIPKINS.get(value) if type(value) is str else None
        if kind is None:
            self.traces.repaired("kind")
            kind = KINDS.get(str(value).strip().lower().removeprefix("span_kind_"), KINDS["internal"])
        return kind

    # -- times

    def _times(self, span: dict[str, Any], parts: list[bytes]) -> tuple[int, int, list[bytes]]:
        """Return start and end in nanoseconds, and the events."""
        stamp, length = span.get("timestamp"), span.get("duration")
        annotations = span.get("annotations")
        notes = self._annotations(annotations) if annotations else []
        if type(stamp) is int and 10**14 <= stamp < 10**17:
            begin, unit = stamp * 1000, 1000
        else:
            begin, unit = self._begin(stamp)
        if length is None:
            duration = 0
        elif type(length) is int and 0 <= length < 10**15 and unit == scalars.MICROSECOND:
            duration = length * 1000
        else:
            duration, repair = scalars.duration(length, unit)
            if repair:
                self.traces.repaired(repair)
        if not begin:
            begin = min([at for at, _ in notes if at], default=0) or max(1, self._now - duration)
            parts.append(ATTRIBUTE + attribute(ABSENT_START, value=True))
        end = min(begin + duration, scalars.MAX_TIME)
        return begin, end, [_event(at or begin, value) for at, value in notes]

    def _begin(self, stamp: Any) -> tuple[int, int]:  # noqa: ANN401 - any JSON value
        if stamp is None or stamp == 0:
            return 0, scalars.MICROSECOND
        begin, unit, repair = scalars.time(stamp)
        if repair:
            self.traces.repaired(repair)
        return begin, unit

    def _annotations(self, annotations: Any) -> list[tuple[int, str]]:  # noqa: ANN401 - any JSON value
        """Return annotations as times in nanoseconds (0 if missing) and texts."""
        notes = []
        for each in annotations if type(annotations) is list else [annotations]:
            if type(each) is not dict:
                self.traces.repaired("annotation_dropped")
                continue
            at, value = each.get("timestamp"), each.get("value")
            if at is None and value is None:
                self.traces.repaired("annotation_dropped")
                continue
            if type(value) is not str:
                self.traces.repaired("annotation_type")
                value = scalars.text(value)
            notes.append((self._begin(at)[0], value))
        return notes

    # -- tags and endpoints

    def _tags(self, tags: dict[Any, Any], specials: dict[str, Value], resource: list[tuple[str, Value]]) -> list[bytes]:
        """Return tags as fields of a span, except those that are added to `specials` or `resource`."""
        known = self._memory.get
        parts = []
        for item in tags.items():
            try:
                field = known(item)
            except TypeError:  # a list or an object
                field = None
            parts.append(self._tag(*item, specials, resource) if field is None else field)
        return parts

    def _tags_of(self, tags: Any) -> dict[Any, Any]:  # noqa: ANN401 - any JSON value
        """Convert tags that are not an object: PHP's `[]`, or a list of keys and values."""
        if type(tags) is not list:
            self.traces.repaired("tags_dropped")
            return {}
        if not tags:
            return {}
        self.traces.repaired("tags_list")
        pairs = [each for each in tags if type(each) is dict and type(each.get("key")) is str]
        return {each["key"]: each.get("value") for each in pairs}

    def _tag(self, key: str, value: Any, specials: dict[str, Value], resource: list[tuple[str, Value]]) -> bytes:  # noqa: ANN401
        """Return a tag as a field of a span; or nothing, after adding it to `specials` or `resource`."""
        if value is None:
            self.traces.repaired("null_value")
            return b""
        if type(value) is not str:
            value = self._scalar(value)
        if key in SPECIAL:
            specials[key] = value
            return b""
        if self._parse and type(value) is str:
            value = _number_or(value)
        if key.startswith(RESOURCE_PREFIXES):
            resource.append((key, value))
            return b""
        return self._plain(key, value)

    def _scalar(self, value: Any) -> Value:  # noqa: ANN401 - any JSON value
        """Return a value that is not a string, unchanged if it can be an attribute, else as text."""
        self.traces.repaired("tag_type")
        if type(value) is bool or type(value) is float or (type(value) is int and value in _INT64):
            return value
        return scalars.text(value)

    def _plain(self, key: str, value: Value) -> bytes:
        """Return an attribute as a field of a span, and cache it if it is a string."""
        field = ATTRIBUTE + attribute(key, value)
        if type(value) is str and len(field) <= MAX_SIZE:
            if len(self._memory) >= MAX_ENTRIES:
                self._memory.clear()
            self._memory[key, value] = field
        return field

    def _add_endpoints(self, span: dict[str, Any], tags: dict[Any, Any], parts: list[bytes]) -> str:
        """Return the service's name; add other data of the endpoints as attributes, except where a tag contains it."""
        service = ""
        if span.get("localEndpoint"):
            service, found = self._endpoint(span["localEndpoint"], endpoints.LOCAL)
            parts += [self._plain(key, value) for key, value in found if key not in tags]
        if span.get("remoteEndpoint"):
            peer, found = self._endpoint(span["remoteEndpoint"], endpoints.PEER)
            if peer:
                found.append((endpoints.PEER_SERVICE, peer))
            parts += [self._plain(key, value) for key, value in found if key not in tags]
        return service

    def _endpoint(self, value: Any, keys: tuple[str, str]) -> tuple[str, list[tuple[str, Value]]]:  # noqa: ANN401
        """Return the service's name and the other data of an endpoint as attributes."""
        if type(value) is not dict:
            if value != []:
                self.traces.repaired("endpoint_dropped")
            return "", []
        name = value.get("serviceName")
        if name is not None and type(name) is not str:
            self.traces.repaired("service_name")
            name = scalars.text(name)
        found: list[tuple[str, Value]] = []
        for field in ("ipv4", "ipv6"):
            address = value.get(field)
            if address:
                text = self._address(address)
                if text and not found:
                    found.append((keys[0], text))
        port = value.get("port")
        if port:
            if type(port) is str and port.isascii() and port.isdigit():
                port = int(port[:6])
            if type(port) is int and 0 < port < 1 << 16:
                found.append((keys[1], port))
            else:
                self.traces.repaired("port")
        return name or "", found

    def _address(self, value: Any) -> str:  # noqa: ANN401 - any JSON value
        """Return an IP address as text. It may be a number, as from PHP's `ip2long`."""
        try:
            text = str(ipaddress.ip_address(value))
        except ValueError:
            text = ""
        if type(value) is not str or not text:
            self.traces.repaired("address")
        return text


_ZIPKINS = {name.upper(): field for name, field in KINDS.items() if name != "internal"}
_strings: dict[tuple[Any, Any], bytes] = {}
_parsed: dict[tuple[Any, Any], bytes] = {}


def _number_or(text: str) -> Value:
    """Return the number or boolean in a string, or the string itself."""
    if text in {"true", "false"}:
        return text == "true"
    if _NUMBER.fullmatch(text):
        number = orjson.loads(text)
        if type(number) is float or number in _INT64:
            return number  # type: ignore[no-any-return]  # an int or a float
    return text


def _event(at: int, value: str) -> bytes:
    """Return an annotation as an event, a field of a span; `at` in nanoseconds."""
    name, pairs, dropped = events.read(value)
    parts = [b"\x09", at.to_bytes(8, "little")]
    if name:
        parts.append(prefixed(b"\x12", name.encode()))
    parts += [prefixed(b"\x1a", events.key_value(key, raw)) for key, raw in pairs.items()]
    if dropped:
        parts.append(b"\x20" + varint(dropped))
    return prefixed(b"\x5a", b"".join(parts))
