"""Convert serialized OTLP to Zipkin v2: the common part of JSON and protobuf.

A span consists of its ids and times, which are unique, and its *tail*: attributes and status, which are equal in many
spans. There are three ways to write a span; each handles what the one before it cannot:

* read the ids and times at fixed offsets (in the order in which every SDK writes the fields), and look up the tail;
* parse the span with upb, and look up each attribute by its bytes (see `fragments`);
* convert the span to a dict, because it has something that few spans have (see `records`).

The first way takes 3 µs, and 6 µs where one attribute is new (see `templates`); the second 7 to 9 µs, as does an
entirely new tail (benchmarks/zipkin.py, docs/topics/zipkin.md). All caches are bounded.
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
    TagCache,
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
"""Maximum number of cached pairs of resource and scope."""

MAX_TAIL = 512
"""Maximum length of a cached tail in bytes."""

MAX_TAILS_SIZE = 4 * 2**20
"""Maximum size in bytes of cached tails with their results; when it is exceeded, all are removed."""

SERVICE_NAME = "service.name"
NO_TRACE, NO_SPAN = bytes(16), bytes(8)
"""The invalid ids."""

_PARENT, _NAME = 0x22, 0x2A
"""Tags of a span's parent id and name: one of them follows the trace id and the span id."""
_BEHIND_IDS = 28
_ATTRIBUTE = b"\x4a"
"""Tag of a span's attributes."""
_CHILD = struct.Struct("<H16sH8sH8sBB")
"""Beginning of a span with a parent: its ids with their tags and sizes, then the tag and the size of the name."""
_ROOT = struct.Struct("<H16sH8sBB")
"""Beginning of a span without a parent."""
_TIMES = struct.Struct("<BBBQBQ")
"""The fields after the name: kind, start and end, with their tags."""
_TIMES_SIZE = _TIMES.size


@dataclass(frozen=True, slots=True)
class Encoded:
    """The result of encoding a request."""

    body: bytes
    spans: int
    """Number of spans in `body`."""
    left_out: int
    """Number of spans that Zipkin cannot represent, because their trace or span id is missing or invalid."""


class ScopeContext(Generic[F]):
    """Data shared by all spans of one scope; the format's encoder fills `opened`."""

    __slots__ = ("base", "opened", "service", "shapes", "tails", "templates")

    def __init__(self, service: str, base: dict[str, str], nothing: F) -> None:
        """Set the service, and the tags that resource and scope add to every span."""
        self.service = service
        self.base = base
        above = frozenset(base)
        self.shapes = [Shapes(above, kind) for kind in range(len(KINDS))]
        self.tails: list[dict[bytes, F]] = [{} for _ in KINDS]
        """By kind: the encoded form of each cached tail."""
        self.templates: list[Templates[F]] = [Templates(nothing) for _ in KINDS]
        self.opened: list[F] = []
        """By kind: the text between a span's times and its own tags, including the context's tags."""


class Encoder(Generic[F]):
    """Writes one format. Reuse an encoder, because it caches what it wrote."""

    nothing: F
    """The empty string, or empty bytes."""

    def __init__(
        self,
        default_service_name: str,
        tag: Callable[[str, str], F],
        read: Callable[[F], tuple[str, str]],
    ) -> None:
        """Use a default name for services without a name, write tags with `tag`, and parse them with `read`."""
        self._default = default_service_name
        self._read: Callable[[F], tuple[str, str]] = read
        self._tag: Callable[[str, str], F] = tag
        self._tags: TagCache[F] = TagCache(tag)
        self._names: dict[bytes, F] = Remembered(self._name, MAX_SMALL)
        self._contexts: dict[tuple[bytes, bytes], ScopeContext[F]] = Remembered(self._context, MAX_CONTEXTS)
        self._remotes: dict[Any, F] = Remembered(self._remote, MAX_SMALL)
        self._rests: dict[bytes, tuple[list[F], F] | None] = Recurring(self._rest)
        self._tails_seen = Seen()
        self._tails_size = 0

    def encode(self, body: bytes) -> Encoded:
        """Convert a serialized request to Zipkin; raise `MalformedError` if it is not valid."""
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

    def _add(self, out: list[bytes], spans: list[bytes], context: ScopeContext[F]) -> None:
        """Write the spans of one scope, without those that Zipkin cannot represent. This is the hot loop."""
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
                    tag_1 == 0x100A  # noqa: PLR2004 - tag of field 1 and size of a trace id
                    and tag_2 == 0x0812  # noqa: PLR2004 - and so on
                    and tag_4 == 0x0822  # noqa: PLR2004
                    and tag_5 == _NAME
                    and tag_6 == 0x30  # noqa: PLR2004
                    and tag_7 == 0x39  # noqa: PLR2004
                    and tag_8 == 0x41  # noqa: PLR2004
                    and size < 128  # noqa: PLR2004 - the size takes one byte
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
                pass  # a different layout, or an unknown kind
            text = self._one(span, context)
            if text:
                out.append(text)

    def _tail(self, tail: bytes, context: ScopeContext[F], kind: int) -> F | None:  # noqa: C901 - one path
        """Write a tail, and cache it if it is short and repeated; `None` if its span needs another way.

        The attributes are found by splitting at their tag. If a value contains that byte, the length of some piece is
        wrong, and the tail is parsed with upb.
        """
        tags: TagCache[F] = self._tags
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
            peer = places(plan, len(keys))
            templates.learn(
                pieces, keys, fragments, tags, lambda marked: self._written(context, list(marked) + also, remote), peer
            )
        return written

    def _remember(self, tail: bytes, written: F, tails: dict[bytes, F]) -> None:
        """Cache the encoded form of a tail, if the tail is short and repeated."""
        if len(tail) > MAX_TAIL or not self._tails_seen.again(tail):
            return
        self._tails_size += len(tail) + len(written)
        if self._tails_size > MAX_TAILS_SIZE:
            for known in self._contexts.values():
                for each in known.tails:
                    each.clear()
            self._tails_size = 0
        tails[tail] = written

    def _end(self, raw: bytes, context: ScopeContext[F], kind: int) -> F | None:
        """Do the same as `_tail` for a serialized span, or a part of one, with its fields in any order."""
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
        """Return the tags for a span's other fields, and its annotations; `span` is the parsed `raw`."""
        tags, notes = status_tags(span.status), []
        if span.WhichOneof("rare"):
            rare = pb.Rare.FromString(raw)
            tags += rare_tags(rare)
            notes = annotated(rare)
        return [self._tag(key, value) for key, value in tags], self._annotations(notes) if notes else self.nothing

    def _one(self, raw: bytes, context: ScopeContext[F]) -> bytes:
        """Write one span with its fields in any order; return nothing if Zipkin cannot represent it."""
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
        """Return an encoded span; `parent` may be empty, the times are microseconds."""
        raise NotImplementedError

    def _written(self, context: ScopeContext[F], fragments: Sequence[F], remote: F) -> F:
        """Return the end of a span: its own tags and its remote endpoint."""
        raise NotImplementedError

    def _from_record(self, made: Record) -> bytes:
        """Return a span that was converted to a dict."""
        raise NotImplementedError

    def _document(self, spans: list[bytes]) -> bytes:
        """Return the whole body."""
        raise NotImplementedError

    def _fill(self, context: ScopeContext[F]) -> None:
        """Set the text that all spans of a context share."""
        raise NotImplementedError

    def _endpoint(self, endpoint: Endpoint) -> F:
        """Write a remote endpoint as a field of a span."""
        raise NotImplementedError

    def _annotations(self, notes: list[tuple[int, str]]) -> F:
        """Write annotations (times in microseconds, texts) as a field of a span."""
        raise NotImplementedError

    def _name(self, raw: bytes) -> F:
        """Write a span's name."""
        raise NotImplementedError

    def _context(self, head: tuple[bytes, bytes]) -> ScopeContext[F]:
        """Read a resource and a scope."""
        try:
            resource, scope = pb.Resource.FromString(head[0]), pb.Scope.FromString(head[1])
        except DecodeError as error:
            message = "a resource or a scope is not valid protobuf"
            raise MalformedError(message) from error
        tags = tags_of(resource.attributes)
        service = tags.pop(SERVICE_NAME, "") or self._default
        tags.update(tags_of(scope.attributes))
        for keys, raw in ((SCOPE_NAMES, scope.name), (SCOPE_VERSIONS, scope.version)):
            if raw:
                tags.update(dict.fromkeys(keys, raw.decode(errors="replace")))
        context: ScopeContext[F] = ScopeContext(service, tags, self.nothing)
        self._fill(context)
        return context

    def _remote(self, chosen: F | tuple[F, ...]) -> F:
        fragments: Iterable[Any] = chosen if isinstance(chosen, tuple) else (chosen,)
        endpoint = endpoints.remote(dict(map(self._read, fragments)))
        return self._endpoint(endpoint) if endpoint else self.nothing

    def _rest(self, rest: bytes) -> tuple[list[F], F] | None:
        """Do the same as `_more` for the fields after a span's attributes.

        Returns `None` if they contain further attributes.
        """
        span = pb.OtlpSpan.FromString(rest)
        return None if span.attributes else self._more(span, rest)
