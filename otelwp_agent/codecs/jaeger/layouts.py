"""Read bodies with a known layout without a JSON parser, which takes most of the time for a small body.

A sender writes all its spans in one way: the same fields in the same order, without spaces. That is a *layout*. It is
learned from a body that was fully parsed, as a regular expression for one span, which then splits all spans of such a
body in one call. The results for tags, lists of tags, processes and ends of bodies are cached by their text.

The expressions accept only regular spans: ids of full length, times in microseconds, no logs, at most one parent, which
is in the same trace, names in plain ASCII. They must match the body without a gap, and every text that they do not
check was parsed as JSON earlier, or is parsed now. So the result is the same as that of a JSON parser; any other body
is parsed as JSON.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs import scalars
from otelwp_agent.codecs.jaeger import processes
from otelwp_agent.codecs.jaeger.receiving import (
    NO_ID,
    NO_SCOPE,
    PARENT,
    SAMPLED,
    SERVER,
    WORDPRESS_REQUEST,
    Traces,
    scope_of,
    special_fields,
    times,
    trace_head,
)
from otelwp_agent.codecs.jaeger.tag_lists import PLAIN, TagLists
from otelwp_agent.codecs.recurring import Remembered
from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otelwp_agent.codecs.jaeger.processes import Process
    from otelwp_agent.codecs.jaeger.receiving import Records
    from otelwp_agent.codecs.jaeger.tag_lists import TagList
    from otelwp_agent.codecs.jaeger.tags import OnRepair

    Span = tuple[bytes, ...]
    """The texts of a span's fields in the order of `_GROUPS`, "" for those that its layout does not have."""

MAX_BODY = 64 * 1024
"""Maximum size in bytes of a body that is read in this way; larger ones are read in steps."""

MAX_LAYOUTS, MAX_TRIED = 8, 64
"""Maximum number of layouts, and of attempts to learn one during the life of a process: each takes one or two
milliseconds."""

MAX_TEXTS, MAX_TEXT = 256, 2048
"""Maximum number of cached processes, and of cached ends of bodies, and the maximum length of each in bytes."""

_PLAIN = PLAIN + b"+"
_HEAD = re.compile(rb'\{"data":\[\{"traceID":"(%b)","spans":\[' % _PLAIN)
_TAIL, _PROCESSES = b"]}]}", b'],"processes":'
_REFERENCE = rb'\{"refType":"CHILD_OF","traceID":"(?P<above>[0-9a-f]{32})","spanID":"(?P<parent>[0-9a-f]{16})"\}'
_REFERENCE_SIZE = len(b'{"refType":"CHILD_OF","traceID":"","spanID":""}') + 48
_FIELDS = {
    "traceID": (rb'"(?P<trace>[0-9a-f]{32})"', 34),
    "spanID": (rb'"(?P<span>[0-9a-f]{16})"', 18),
    "operationName": (rb'"(?P<name>%b)"' % _PLAIN, 2),
    "references": (rb"\[(?:%b)?\]" % _REFERENCE, 2),
    "startTime": (rb"(?P<start>[1-9][0-9]{15})", 16),
    "duration": (rb"(?P<length>0|[1-9][0-9]{0,14})", 0),
    "tags": (rb"\[(?P<tags>[^\]]*)\]", 2),
    "processID": (rb'"(?P<process>%b)"' % _PLAIN, 2),
    "process": (rb"(?P<process>\{[^\[\]]*\[[^\[\]]*\]\})", 0),
    "flags": (rb"(?P<flags>0|[1-9][0-9]{0,8})", 0),
    "logs": (rb"\[\]", 2),
    "warnings": (rb"null", 4),
}
"""By field: the expression for its value, and the bytes of its fixed part."""
_GROUPS = ("trace", "span", "name", "above", "parent", "start", "length", "tags", "process", "flags")
_NEEDED = frozenset({"traceID", "spanID", "operationName", "startTime", "duration", "tags"})


class _IrregularError(Exception):
    """The body must be read with a JSON parser."""


class Layout:
    """The way in which a sender writes its spans."""

    __slots__ = ("_find", "_in_order", "inline", "size")

    def __init__(self, keys: Sequence[str]) -> None:
        """Build an expression for spans with these fields in their order."""
        members = [b'"%b":%b' % (key.encode(), _FIELDS[key][0]) for key in keys]
        pattern = re.compile(rb"\{%b\}(?:,(?=\{)|\Z)()" % b",".join(members))
        groups = [pattern.groupindex.get(group, pattern.groups) - 1 for group in _GROUPS]
        self._find = pattern.findall
        self._in_order = itemgetter(*groups)
        self.inline = "process" in keys
        """Whether a span contains its process."""
        self.size = len("{},") + len(keys) - 1 + sum(len(f'"{key}":') + _FIELDS[key][1] for key in keys)
        """Bytes of a span and the following comma, without the parts of variable length."""

    def spans(self, data: bytes, begin: int, end: int) -> Iterable[Span]:
        """Return the spans of this layout between `begin` and `end`."""
        return map(self._in_order, self._find(data, begin, end))


_layouts: list[Layout] = []
_tried: set[tuple[str, ...]] = set()
_lists = TagLists()
_names: dict[bytes, bytes] = Remembered(lambda name: prefixed(b"\x2a", name), 1024)


def learn(data: bytes, document: Any) -> None:  # noqa: ANN401 - any JSON value
    """Learn the layout of a body that was parsed as `document`, if it is regular."""
    try:
        first = document["data"][0]["spans"][0]
    except (LookupError, TypeError):
        return
    if not isinstance(first, dict):
        return
    keys = tuple(first)
    if keys in _tried or len(_tried) >= MAX_TRIED or len(_layouts) >= MAX_LAYOUTS or len(data) > MAX_BODY:
        return
    if _NEEDED.issubset(keys) and _FIELDS.keys() >= set(keys) and ("process" in keys) != ("processID" in keys):
        _tried.add(keys)
        layout = Layout(keys)
        _, begin, end = _bounds(data)
        if any(layout.spans(data, begin, end)):
            _layouts.append(layout)


def read(data: bytes) -> Traces | None:
    """Return the spans of a body; `None` if it has no known layout."""
    if not _layouts or len(data) > MAX_BODY:
        return None
    outer, begin, end = _bounds(data)
    if end < begin:
        return None
    try:
        tail = data[end:]
        named = None if tail == _TAIL else _named(tail)
        for layout in _layouts:
            reading = _Reading(outer, named)
            size = reading.add(layout, layout.spans(data, begin, end))
            if size:
                return reading.traces if size == end - begin + 1 else None
    except _IrregularError:
        pass
    return None


def _bounds(data: bytes) -> tuple[bytes, int, int]:
    """Return the trace id of the body, and the begin and end of its spans; the end is -1 if it is unknown."""
    head = _HEAD.match(data)
    if head is None:
        return b"", 0, -1
    end = data.rfind(_PROCESSES)
    return head[1], head.end(), end if end >= 0 else len(data) - len(_TAIL)


class _Reading:
    """A body that is being read."""

    __slots__ = ("_named", "_outer", "traces")

    def __init__(self, outer: bytes, named: Mapping[bytes, Process] | None) -> None:
        """Start with the trace id before the spans, and the processes after them."""
        self.traces = Traces()
        self._outer = outer
        self._named = named

    def add(self, layout: Layout, spans: Iterable[Span]) -> int:  # noqa: C901, PLR0912 - one loop
        """Add spans; return their size in bytes, each with the following comma. Raises `_IrregularError`."""
        traces, inline = self.traces, layout.inline
        repaired, join, known, seen, forward = traces.repaired, b"".join, _lists.known.get, traces.seen, traces.forward
        records: Records = []
        last_trace = last_process = head = b""
        size = 0
        for trace, span, name, above, parent, start, length, tags, process, flags in spans:
            size += layout.size + len(name) + len(length) + len(tags) + len(process) + len(flags)
            if trace != last_trace:
                head, last_trace = self._trace(trace), trace
            span_id = unhexlify(span)
            field = _names[name]
            begin = int(start) * 1000
            tail, has_kind, untyped, specials = known(tags) or _list(tags, repaired)
            if untyped:
                repaired("tag_without_type")
            if name == _WORDPRESS_REQUEST and not parent and not has_kind:
                repaired("kind_missing")
                field += SERVER
                if specials:
                    tail += special_fields(specials, SERVER)
            elif specials:
                tail += special_fields(specials)
            if flags and int(flags) & 1:
                tail += SAMPLED
            if inline:
                repaired("process_inline")
            if specials or process != last_process:
                scopes = traces.process(*self._process(process, inline=inline))
                records = scopes.setdefault(scope_of(specials) if specials else NO_SCOPE, [])
                last_process = b"" if specials else process
            ids = head + span_id
            moments = times(0x39, begin, 0x41, begin + int(length) * 1000)
            above_id = b""
            if parent:
                above_id = unhexlify(parent)
                size += _REFERENCE_SIZE
                if above != trace or above_id == NO_ID:
                    raise _IrregularError
                fields = join((ids, PARENT, above_id, field, moments, tail))
            else:
                fields = join((ids, field, moments, tail))
            if span_id == NO_ID:
                raise _IrregularError
            if ids in seen:
                traces.add(records, ids, above_id, fields)
            else:
                if above_id and head + above_id not in seen:
                    forward.append(ids)
                record = seen[ids] = [fields, above_id]
                records.append(record)
        return size

    def _trace(self, text: bytes) -> bytes:
        """Return the bytes before the span ids of a trace."""
        raw = unhexlify(text)
        if not any(raw):
            raise _IrregularError
        if text != self._outer and raw != scalars.identifier(self._outer.decode(), 16)[0]:
            self.traces.repaired("trace_id_differs")
        return trace_head(raw)

    def _process(self, text: bytes, *, inline: bool) -> Process:
        if inline:
            return _inline.get(text) or _read_inline(text)
        if self._named is None or text not in self._named:
            raise _IrregularError
        return self._named[text]


_WORDPRESS_REQUEST = WORDPRESS_REQUEST.encode()


def _list(text: bytes, repaired: OnRepair) -> TagList:
    """Return the result for an unknown list of tags."""
    try:
        return _lists.read(text, repaired)
    except ValueError:
        raise _IrregularError from None


_inline: dict[bytes, Process] = {}
"""Processes by their texts inside spans."""
_ends: dict[bytes, dict[bytes, Process]] = {}
"""Processes by name, by the text after the spans of a body."""


def _read_inline(text: bytes) -> Process:
    process = _process_of(_loaded(text))
    if len(text) <= MAX_TEXT:
        if len(_inline) >= MAX_TEXTS:
            _inline.clear()
        _inline[text] = process
    return process


def _named(text: bytes) -> Mapping[bytes, Process]:
    """Return the processes after the spans; `text` is everything from the end of the spans."""
    found = _ends.get(text)
    if found is None:
        document = _loaded(b'{"data":[{"spans":[' + text)
        try:
            ((trace,),) = document.values()
            named = trace["processes"]
            if len(trace) != len(("spans", "processes")):
                raise _IrregularError
            found = {name.encode(): _process_of(process) for name, process in named.items()}
        except (LookupError, TypeError, ValueError, AttributeError):
            raise _IrregularError from None
        if len(text) <= MAX_TEXT:
            if len(_ends) >= MAX_TEXTS:
                _ends.clear()
            _ends[text] = found
    return found


def _process_of(process: Any) -> Process:  # noqa: ANN401 - any JSON value
    repairs: list[str] = []
    found = processes.read(process, repairs.append)
    if repairs or type(process) is not dict:
        raise _IrregularError
    return found


def _loaded(text: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _IrregularError from None
