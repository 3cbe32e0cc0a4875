"""OTLP in wire form → Zipkin v2, as JSON or protobuf: what both have in common.

A span is mostly its ids and times, which are its own, and then its *tail*: attributes and status, of which many spans
have the same. So there are three ways to write one, each taking what the one before it cannot:

* its head is read at fixed places (fields in their order, as every SDK writes them), and its tail found again whole;
* upb parses it, and each of its attributes is found again by its bytes (see `fragments`);
* it is made a dict, because it has something that few spans have (see `records`).

The first takes 3 µs, and 6 where one attribute is new (see `templates`); the second 7 to 9, as a tail that is new
altogether (benchmarks/zipkin.py, docs/topics/zipkin.md). What is remembered has bounds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from google.protobuf.message import DecodeError

from otelwp_agent.codecs.recurring import Recurring, Remembered, Seen
from otelwp_agent.codecs.zipkin import endpoints
from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.codecs.zipkin.fragments import (
    CAREFUL,
    MAX_SMALL,
    SCOPE_NAMES,
    SCOPE_VERSIONS,
    F,
    Shapes,
    Tags,
    places,
    tags_of,
)
from otelwp_agent.codecs.zipkin.records import KINDS, MICROSECOND, annotated, is_id, rare_tags, record, status_tags
from otelwp_agent.codecs.zipkin.templates import MAX_VOLATILE, Templates
from otelwp_agent.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otelwp_agent.codecs.zipkin.endpoints import Endpoint
    from otelwp_agent.codecs.zipkin.records import Record

MAX_CONTEXTS = 256
"""Resources and scopes that are remembered together."""

MAX_TAIL = 512
"""The longest tail of a span that is remembered, in bytes."""

MAX_TAILS_SIZE = 4 * 2**20
"""Bytes of tails that are remembered, with what was written for them; when full, they are all forgotten."""

SERVICE_NAME = "service.name"
NO_TRACE, NO_SPAN = bytes(16), bytes(8)
"""The ids that are none."""

_PARENT, _NAME = 0x22, 0x2A
"""The tags of a span's parent id and name: one of them stands behind the trace id and the span id."""
_BEHIND_IDS = 28
_ATTRIBUTE = b"\x4a"
"""The tag of a span's attributes."""
_CHILD = struct.Struct("<H16sH8sH8sBB")
"""The beginning of a span with a parent: its ids behind their tags and sizes, then the tag and the size of the name."""
_ROOT = struct.Struct("<H16sH8sBB")
"""The same of a span without a parent."""
_TIMES = struct.Struct("<BBBQBQ")
"""What follows the name: kind, start and end, behind their tags."""
_TIMES_SIZE = _TIMES.size


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a request."""

    body: bytes
    spans: int
    """Spans in `body`."""
    left_out: int
    """Spans that Zipkin cannot carry: their trace or span id is missing, or is none."""


class Context(Generic[F]):
    """What all spans of one scope share; `opened` is for the format to fill."""

    __slots__ = ("base", "opened", "service", "shapes", "tails", "templates")

    def __init__(self, service: str, base: dict[str, str], nothing: F) -> None:
        """Describe a service, and the tags that its resource and the scope give every span."""
        self.service = service
        self.base = base
        above = frozenset(base)
        self.shapes = [Shapes(above, kind) for kind in range(len(KINDS))]
        self.tails: list[dict[bytes, F]] = [{} for _ in KINDS]
        """By kind: what was written for a tail."""
        self.templates: list[Templates[F]] = [Templates(nothing) for _ in KINDS]
        self.opened: list[F] = []
        """By kind: what stands between a span's times and its own tags, the context's tags included."""


class Encoder(Generic[F]):
    """Writes one format. It remembers what it wrote, so keep it."""

    nothing: F
    """The empty string, or bytes."""

    def __init__(
        self,
        default_service_name: str,
        tag: Callable[[str, str], F],
        read: Callable[[F], tuple[str, str]],
    ) -> None:
        """Name services that have no name; write tags with `tag`, and read them again with `read`."""
        self._default = default_service_name
        self._read: Callable[[F], tuple[str, str]] = read
        self._tag: Callable[[str, str], F] = tag
        self._tags: Tags[F] = Tags(tag)
        self._names: dict[bytes, F] = Remembered(self._name, MAX_SMALL)
        self._contexts: dict[tuple[bytes, bytes], Context[F]] = Remembered(self._context, MAX_CONTEXTS)
        self._remotes: dict[Any, F] = Remembered(self._remote, MAX_SMALL)
        self._rests: dict[bytes, tuple[list[F], F] | None] = Recurring(self._rest)
        self._tails_seen = Seen()
        self._tails_size = 0

    def encode(self, body: bytes) -> Encoded:
        """Return a request in wire form as Zipkin has it; raise `MalformedError` if it does not parse."""
        out: list[bytes] = []
        total = 0
        try:
            for resource in pb.Traces.FromString(body).resource_spans:
                head = resource.resource
                for scope in resource.scope_spans:
                    spans = scope.spans[:]
                    total += len(spans)
                    self._add(out, spans, self._contexts[head, scope.scope])
        except DecodeError as error:
            message = "the body is not a serialized OTLP export request of traces"
            raise MalformedError(message) from error
        return Encoded(self._document(out), len(out), total - len(out))

    def _add(self, out: list[bytes], spans: list[bytes], context: Context[F]) -> None:
        """Write the spans of one scope; those that cannot be carried are left out. The hot loop."""
        names, tails, opened, write = self._names, context.tails, context.opened, self._write
        read_child, read_root, read_times = _CHILD.unpack_from, _ROOT.unpack_from, _TIMES.unpack_from
        for span in spans:
            try:
                if span[_BEHIND_IDS] == _PARENT:
                    tag_1, trace_id, tag_2, span_id, tag_4, parent, tag_5, size = read_child(span)
                    begin = _CHILD.size
                else:
                    tag_1, trace_id, tag_2, span_id, tag_5, size = read_root(span)
                    tag_4, parent, begin = 0x0822, b"", _ROOT.size
                after = begin + size
                tag_6, kind, tag_7, start, tag_8, end = read_times(span, after)
                if (
                    tag_1 == 0x100A  # noqa: PLR2004 - the tag of field 1, and the size of a trace id
                    and tag_2 == 0x0812  # noqa: PLR2004 - and so on
                    and tag_4 == 0x0822  # noqa: PLR2004
                    and tag_5 == _NAME
                    and tag_6 == 0x30  # noqa: PLR2004
                    and tag_7 == 0x39  # noqa: PLR2004
                    and tag_8 == 0x41  # noqa: PLR2004
                    and size < 128  # noqa: PLR2004 - in one byte
                    and MICROSECOND <= start <= end
                    and trace_id != NO_TRACE
                    and NO_SPAN not in (span_id, parent)
                ):
                    tail = span[after + _TIMES_SIZE :]
                    written = tails[kind].get(tail)
                    if written is None:
                        written = self._tail(tail, context, kind)
                    if written is not None:
                        name = names[span[begin:after]]
                        length = (end - start) // MICROSECOND or 1
                        out.append(
                            write(trace_id, span_id, parent, name, start // MICROSECOND, length, opened[kind], written)
                        )
                        continue
            except (struct.error, IndexError):
                pass  # no such head, or no such kind
            text = self._one(span, context)
            if text:
                out.append(text)

    def _tail(self, tail: bytes, context: Context[F], kind: int) -> F | None:  # noqa: C901 - one path
        """Write a tail, and remember it if it is short and comes again; `None` if its span must go another way.

        Attributes are told apart by splitting at their tag; where a value has that byte in it, some piece is not as
        long as it says, and upb finds them.
        """
        tags: Tags[F] = self._tags
        missed = tags.missed
        templates: Templates[F] = context.templates[kind]
        if templates.heads:
            templated = templates.write(tail, tags)
            if templated is not None:
                if tags.missed == missed:
                    self._remember(tail, templated, context.tails[kind])
                return templated
        pieces: list[bytes] = tail.split(_ATTRIBUTE)
        fragments: Sequence[F] = ()
        keys: tuple[str, ...] = ()
        rest = tail
        if len(pieces) > 1:
            if pieces[0]:
                return None
            del pieces[0]
            last = pieces[-1]
            size = last[0] + 1
            rest = last[size:]
            if rest:
                pieces[-1] = last[:size]
            try:
                fragments, keys = zip(*map(tags.__getitem__, pieces))  # noqa: B905 - of two each
            except ValueError:
                return self._end(tail, context, kind)
        plan = context.shapes[kind][keys]
        if plan is CAREFUL:
            return None
        remote = self.nothing if plan is None else self._remotes[plan(fragments)]
        more = self._rests[rest]
        if more is None:
            return None
        also: list[F] = more[0]
        remote += more[1]
        written = self._written(context, list(fragments) + also if also else fragments, remote)
        new = tags.missed - missed
        if not new:
            self._remember(tail, written, context.tails[kind])
        elif new <= MAX_VOLATILE and len(tail) <= MAX_TAIL:
            told = places(plan, len(keys))
            templates.learn(
                pieces, keys, fragments, tags, lambda marked: self._written(context, list(marked) + also, remote), told
            )
        return written

    def _remember(self, tail: bytes, written: F, tails: dict[bytes, F]) -> None:
        """Remember what was written for a tail, if it is short and comes again."""
        if len(tail) > MAX_TAIL or not self._tails_seen.again(tail):
            return
        self._tails_size += len(tail) + len(written)
        if self._tails_size > MAX_TAILS_SIZE:
            for known in self._contexts.values():
                for each in known.tails:
                    each.clear()
            self._tails_size = 0
        tails[tail] = written

    def _end(self, raw: bytes, context: Context[F], kind: int) -> F | None:
        """Write what `_tail` does, of a serialized span, or a part of one, however its fields are ordered."""
        span = pb.OtlpSpan.FromString(raw)
        pairs: list[tuple[F, str]] = [self._tags.of(attribute) for attribute in span.attributes]
        plan = context.shapes[kind][tuple([key for _, key in pairs])]
        if plan is CAREFUL:
            return None
        fragments: list[F] = [fragment for fragment, _ in pairs]
        remote = self.nothing if plan is None else self._remotes[plan(fragments)]
        more = self._more(span, raw)
        return self._written(context, fragments + more[0], remote + more[1])

    def _more(self, span: pb.OtlpSpan, raw: bytes) -> tuple[list[F], F]:
        """Return tags of what else a span has, and its annotations; `raw` is what was parsed as `span`."""
        tags, told = status_tags(span.status), []
        if span.WhichOneof("rare"):
            rare = pb.Rare.FromString(raw)
            tags += rare_tags(rare)
            told = annotated(rare)
        return [self._tag(key, value) for key, value in tags], self._annotations(told) if told else self.nothing

    def _one(self, raw: bytes, context: Context[F]) -> bytes:
        """Write one span however its fields are ordered, or nothing if it cannot be carried."""
        span = pb.OtlpSpan.FromString(raw)
        trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
        if not (is_id(trace_id, len(NO_TRACE)) and is_id(span_id, len(NO_SPAN))):
            return b""
        if not is_id(parent, len(NO_SPAN)):
            parent = b""
        kind = span.kind if span.kind < len(KINDS) else 0
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        written = self._end(raw, context, kind) if MICROSECOND <= start <= end else None
        if written is None:
            rare = pb.Rare.FromString(raw) if span.WhichOneof("rare") else None
            return self._from_record(record(span, rare, context.service, context.base))
        length = (end - start) // MICROSECOND or 1
        name = self._names[span.name]
        return self._write(trace_id, span_id, parent, name, start // MICROSECOND, length, context.opened[kind], written)

    def _write(  # noqa: PLR0913, PLR0917 - a record: each argument is a field
        self,
        trace_id: bytes,
        span_id: bytes,
        parent: bytes,
        name: F,
        timestamp: int,
        duration: int,
        opened: F,
        written: F,
    ) -> bytes:
        """Return a span; `parent` may be empty, the times are microseconds."""
        raise NotImplementedError

    def _written(self, context: Context[F], fragments: Sequence[F], remote: F) -> F:
        """Return a span's end: its own tags and its remote endpoint."""
        raise NotImplementedError

    def _from_record(self, made: Record) -> bytes:
        """Return a span that was made the careful way."""
        raise NotImplementedError

    def _document(self, spans: list[bytes]) -> bytes:
        """Return the whole body."""
        raise NotImplementedError

    def _fill(self, context: Context[F]) -> None:
        """Write what all spans of a context share."""
        raise NotImplementedError

    def _endpoint(self, endpoint: Endpoint) -> F:
        """Write a remote endpoint as a field of a span."""
        raise NotImplementedError

    def _annotations(self, told: list[tuple[int, str]]) -> F:
        """Write annotations, times in microseconds and texts, as a field of a span."""
        raise NotImplementedError

    def _name(self, raw: bytes) -> F:
        """Write a span's name."""
        raise NotImplementedError

    def _context(self, head: tuple[bytes, bytes]) -> Context[F]:
        """Read a resource and a scope."""
        try:
            resource, scope = pb.Resource.FromString(head[0]), pb.Scope.FromString(head[1])
        except DecodeError as error:
            message = "a resource or a scope does not parse"
            raise MalformedError(message) from error
        tags = tags_of(resource.attributes)
        service = tags.pop(SERVICE_NAME, "") or self._default
        tags.update(tags_of(scope.attributes))
        for keys, raw in ((SCOPE_NAMES, scope.name), (SCOPE_VERSIONS, scope.version)):
            if raw:
                tags.update(dict.fromkeys(keys, raw.decode(errors="replace")))
        context: Context[F] = Context(service, tags, self.nothing)
        self._fill(context)
        return context

    def _remote(self, chosen: F | tuple[F, ...]) -> F:
        fragments: Iterable[Any] = chosen if isinstance(chosen, tuple) else (chosen,)
        endpoint = endpoints.remote(dict(map(self._read, fragments)))
        return self._endpoint(endpoint) if endpoint else self.nothing

    def _rest(self, rest: bytes) -> tuple[list[F], F] | None:
        """Return what `_more` does of what follows a span's attributes; `None` if there are other attributes in it."""
        span = pb.OtlpSpan.FromString(rest)
        return None if span.attributes else self._more(span, rest)
