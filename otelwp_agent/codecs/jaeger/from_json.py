"""Convert Jaeger's JSON to OTLP: the format of its query API and UI, and the variants of PHP senders.

The regular format is `{"data": [{"traceID", "spans": […], "processes": {"p1": {…}}}]}`. Also accepted: a trace, a span
or a list of either without the outer object; `process` inside the span or next to the spans; a span with another trace
id than its trace (the span's id is used); times in any unit and form; ids of any length; tags in any form; `[]` for a
map; text that is not UTF-8. Repairs are counted by kind. A span that cannot be repaired is dropped and counted. A body
without any usable span is refused with the position of the first problem.
"""

from __future__ import annotations

from binascii import unhexlify
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs import scalars
from otelwp_agent.codecs.jaeger import layouts, processes
from otelwp_agent.codecs.jaeger import tags as tagging
from otelwp_agent.codecs.jaeger.documents import spans_of, traces_in
from otelwp_agent.codecs.jaeger.receiving import (
    ATTRIBUTE,
    NO_ID,
    NO_SCOPE,
    PARENT,
    SAMPLED,
    SERVER,
    WARNINGS,
    WORDPRESS_REQUEST,
    Traces,
    event,
    name_field,
    names,
    references,
    scope_of,
    special_fields,
    texts,
    times,
    trace_head,
)
from otelwp_agent.codecs.jaeger.tags import has_kind, typed_tag
from otelwp_agent.codecs.lenient_json import load
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, too_many

if TYPE_CHECKING:
    from collections.abc import Generator

    from otelwp_agent.codecs.jaeger.receiving import Records, Reference, Scopes

STEP = 512
"""Number of spans that are decoded between two steps, in about a millisecond."""

_LONGEST_DURATION = 10**15
"""Microseconds, 31 years. Longer durations are checked by the slower general code."""


def decode(data: bytes, now: int, max_items: int = DEFAULT_MAX_ITEMS) -> Traces:
    """Decode a body; `now` (nanoseconds) is used for spans without a time.

    Raises `MalformedError`, or `TooLargeError` for more than `max_items` spans.
    """
    steps = decoding(data, now, max_items)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # the return value of the generator


def decoding(data: bytes, now: int, max_items: int = DEFAULT_MAX_ITEMS) -> Generator[None, None, Traces]:
    """Do the same as `decode` in steps, and return the result at the end.

    Each step after the first takes at most about a millisecond.
    """
    regular = layouts.read(data)
    if regular is not None:
        return regular
    traces = Traces()
    decoder = _Decoder(traces, now)
    document = load(data, traces.repaired, max_items)
    left, in_step = max_items, 0
    for place, trace in traces_in(document, traces.repaired, decoder.trouble):
        spans = decoder.begin(trace)
        left -= len(spans)
        if left < 0:
            raise too_many(max_items)
        in_step += 1  # a trace without spans takes time, too
        for first in range(0, len(spans), STEP):
            if in_step >= STEP:
                yield
                in_step = 0
            part = spans[first : first + STEP]
            decoder.add(part, place, first)
            in_step += len(part)
    if not traces.spans and decoder.troubles:
        raise MalformedError(decoder.first_trouble)
    if decoder.troubles:
        traces.repaired("span_dropped", decoder.troubles)
    layouts.learn(data, document)
    return traces


_regular_span = itemgetter(
    "traceID", "spanID", "operationName", "startTime", "duration", "tags", "processID", "references", "logs"
)


_regular_reference = itemgetter("refType", "traceID", "spanID")


class _Decoder:
    """Decodes the traces and spans of one body."""

    __slots__ = (
        "_known_processes",
        "_now",
        "_outer_text",
        "_process",
        "_processes",
        "_trace_head",
        "_trace_id",
        "_trace_text",
        "first_trouble",
        "traces",
        "troubles",
    )

    def __init__(self, traces: Traces, now: int) -> None:
        self.traces = traces
        self.troubles = 0
        self.first_trouble = ""
        self._now = now
        self._trace_text: Any = None
        self._trace_id = self._trace_head = b""

    def trouble(self, place: str, what: str, spans: int = 1) -> None:
        """Record a problem that makes `spans` spans unusable."""
        self.first_trouble = self.first_trouble or f"{place}: {what}"
        self.troubles += spans

    def begin(self, trace: dict[str, Any]) -> list[Any]:
        """Start a new trace; return its spans."""
        self._outer_text = trace.get("traceID", trace.get("traceId"))
        self._trace_text = None
        named = trace.get("processes")
        if named == [] or named is None:
            named = {}
        elif type(named) is not dict:
            self.traces.repaired("processes_dropped")
            named = {}
        self._processes: dict[Any, Any] = named
        self._known_processes: dict[Any, Scopes] = {}
        self._process = trace.get("process")
        return spans_of(trace, self.traces.repaired)

    # -- spans

    def add(self, spans: list[Any], place: str, first: int) -> None:  # noqa: C901, PLR0912, PLR0915 - one loop
        """Add spans of the trace; the index of the first one is `first`.

        This is the hot path: function calls are expensive here.
        """
        traces = self.traces
        repaired, join, known = traces.repaired, b"".join, tagging.known_tags.get
        seen, forward = traces.seen, traces.forward
        known_processes = self._known_processes
        records: Records = []
        last_process: Any = None
        last_text: Any = None
        head = b""
        regular = typed = True
        for index, span in enumerate(spans, first):
            if span.__class__ is not dict:
                self.trouble(f"{place}.spans[{index}]", "a span must be an object")
                continue
            get = span.get
            if regular:
                try:
                    text, number, name, start, length, tags, process, found, logs = _regular_span(span)
                except KeyError:
                    regular = False
            if not regular:
                text, number, name = get("traceID"), get("spanID"), get("operationName")
                start, length, tags = get("startTime"), get("duration"), get("tags")
                process, found, logs = get("processID"), get("references"), get("logs")
            if text is None or text != last_text:
                self._read_trace_id(text, span)
                head, last_text = self._trace_head, text
            try:
                span_id = unhexlify(number)
            except (ValueError, TypeError):
                span_id = b""
            if len(span_id) != 8 or span_id == NO_ID:  # noqa: PLR2004 - bytes of a span id
                span_id = self._id(number or get("spanId"), 8) or self._made_id(span, 8)
            field = names.get(name) if name.__class__ is str else None
            if field is None:
                field = name_field(self._name(name, span))
            if (
                start.__class__ is int
                and length.__class__ is int
                and 10**14 <= start < 10**16
                and 0 <= length < _LONGEST_DURATION
            ):
                start *= 1000
                end = start + length * 1000
            else:
                start, end = self._times(start, length)
            specials = None
            try:
                if typed:
                    tail = join(map(known, map(typed_tag, tags)))  # type: ignore[arg-type]  # None raises TypeError
                else:
                    tail, specials = tagging.decode(tags, repaired)
            except (LookupError, TypeError) as error:
                typed = type(error) is TypeError
                tail, specials = tagging.decode(tags, repaired)
            parent = b""
            if found:
                parent = _only_parent(found, text)
                if not parent:
                    parent, links = references(self._references(found), self._trace_id)
                    tail += links
            elif "parentSpanID" in span or "parentSpanId" in span:
                parent = self._id(get("parentSpanID", get("parentSpanId")), 8)
            if logs:
                tail += self._events(logs, start)
            if get("warnings"):
                tail += ATTRIBUTE + texts(WARNINGS, _texts(span["warnings"]))
            if name == WORDPRESS_REQUEST and not parent and not has_kind(tags):
                repaired("kind_missing")
                field += SERVER
                if specials:
                    tail += special_fields(specials, SERVER)
            elif specials:
                tail += special_fields(specials)
            flags = get("flags")
            if flags and flags.__class__ is int and flags & 1:
                tail += SAMPLED
            if specials or process != last_process or process is None:
                known_process = process.__class__ is str and process in known_processes
                scopes = known_processes[process] if known_process else self._scopes(span)
                records = scopes.setdefault(scope_of(specials) if specials else NO_SCOPE, [])
                last_process = None if specials else process
            ids = head + span_id
            if parent:
                fields = join((ids, PARENT, parent, field, times(0x39, start, 0x41, end), tail))
                if head + parent not in seen:
                    forward.append(ids)
            else:
                fields = join((ids, field, times(0x39, start, 0x41, end), tail))
            if ids in seen:
                traces.add(records, ids, parent, fields)
            else:
                record = seen[ids] = [fields, parent]
                records.append(record)

    def _name(self, name: Any, span: dict[str, Any]) -> str:  # noqa: ANN401 - any JSON value
        if type(name) is str and name:
            return name
        self.traces.repaired("name_missing")
        return str(span.get("name") or name or "unknown")

    def _scopes(self, span: dict[str, Any]) -> Scopes:
        """Return the spans by scope of a span's process, which it names or contains, or which its trace has."""
        number = span.get("processID", span.get("processId"))
        if type(number) is str and number in self._processes:
            scopes = self._known_processes[number] = self._read_process(self._processes[number])
            return scopes
        process = span.get("process")
        if process is not None:
            self.traces.repaired("process_inline")
            return self._read_process(process)
        if self._process is None:
            self.traces.repaired("process_missing")
        return self._read_process(self._process)

    def _read_process(self, process: Any) -> Scopes:  # noqa: ANN401 - any JSON value
        """Return the spans by scope of a process."""
        return self.traces.process(*processes.read(process, self.traces.repaired))

    def _read_trace_id(self, text: Any, span: dict[str, Any]) -> None:  # noqa: ANN401 - any JSON value
        """Use another trace id: the span's own, that of its trace, or one derived from the span."""
        self._trace_text = text
        if text is None:
            text = span.get("traceId")
        try:
            raw = unhexlify(text)
        except (ValueError, TypeError):
            raw = b""
        if len(raw) != 16 or not any(raw):  # noqa: PLR2004 - bytes of a trace id
            raw = self._id(text, 16) or scalars.identifier(self._outer_text, 16)[0] or self._made_id(span, 16)
        if text != self._outer_text and self._outer_text and raw != scalars.identifier(self._outer_text, 16)[0]:
            self.traces.repaired("trace_id_differs")
        self._trace_id = raw
        self._trace_head = trace_head(raw)

    def _id(self, value: Any, size: int) -> bytes:  # noqa: ANN401 - any JSON value
        raw, repair = scalars.identifier(value, size)
        if repair:
            self.traces.repaired(repair)
        return raw

    def _made_id(self, span: dict[str, Any], size: int) -> bytes:
        """Return an id derived from the span, so that a span that is sent twice gets the same id."""
        self.traces.repaired("id_missing")
        try:
            text = orjson.dumps(span)
        except orjson.JSONEncodeError:
            text = repr((span.get("operationName"), span.get("startTime"))).encode()
        return blake2b(text, digest_size=size).digest()

    def _times(self, start: Any, length: Any) -> tuple[int, int]:  # noqa: ANN401 - any JSON value
        """Return begin and end in nanoseconds, in the slower general way; a duration has the unit of its start."""
        begin, unit, repair = scalars.time(start)
        nanoseconds, wrong = scalars.duration(length, unit)
        for kind in (repair, wrong):
            if kind:
                self.traces.repaired(kind)
        if not begin:
            begin = max(1, self._now - nanoseconds)
        return begin, min(begin + nanoseconds, scalars.MAX_TIME)

    def _references(self, values: Any) -> list[Reference]:  # noqa: ANN401 - any JSON value
        """Return the valid references. The id of the enclosing trace stands for the span's own trace id."""
        if type(values) is dict:
            self.traces.repaired("map_for_list")
            values = [values] if "spanID" in values else list(values.values())
        found: list[Reference] = []
        for value in values if type(values) is list else ():
            if type(value) is not dict:
                self.traces.repaired("reference_dropped")
                continue
            text = value.get("traceID", value.get("traceId"))
            own = text is None or text in (self._trace_text, self._outer_text)
            trace = self._trace_id if own else self._id(text, 16)
            span = self._id(value.get("spanID", value.get("spanId")), 8)
            if trace and span:
                found.append((trace, span, str(value.get("refType", "CHILD_OF")).upper() != "FOLLOWS_FROM"))
            else:
                self.traces.repaired("reference_dropped")
        return found

    def _events(self, logs: Any, begin: int) -> bytes:  # noqa: ANN401 - any JSON value
        """Return logs as events; a log without a time gets the time of its span."""
        repaired = self.traces.repaired
        events = []
        if type(logs) is dict:
            repaired("map_for_list")
            logs = [logs] if "fields" in logs else list(logs.values())
        for log in logs if type(logs) is list else ():
            if type(log) is not dict:
                repaired("log_dropped")
                continue
            at, _, repair = scalars.time(log.get("timestamp"))
            if repair:
                repaired(repair)
            events.append(event(at or begin, tagging.pairs(log.get("fields"), repaired)))
        return b"".join(events)


def _only_parent(found: Any, text: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the parent's id if the references are in the regular form and contain nothing else; else ""."""
    try:
        (reference,) = found
        kind, trace, span = _regular_reference(reference)
        if kind == "CHILD_OF" and trace == text:
            parent = unhexlify(span)
            return parent if len(parent) == 8 and parent != NO_ID else b""  # noqa: PLR2004 - bytes of a span id
    except (LookupError, ValueError, TypeError):
        pass
    return b""


def _texts(values: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    return [value for value in values if type(value) is str] if type(values) is list else []
