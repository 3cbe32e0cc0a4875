"""A bounded store of the last traces, by trace id.

Invariant: the bytes of all stored spans, plus `OVERHEAD` for each trace, never exceed the limit. The oldest traces are
removed first. Spans of a trace that is larger than `LARGEST_TRACE` are not stored, but counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.traces.blame import PageTime
from otelwp_agent.traces.spans import TracePart, self_times, spans_of
from otelwp_agent.traces.usage import CORE, OwnerUsage, add_rest_to_core

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OVERHEAD = 2048
"""Bytes that a trace takes in addition to its spans: its summary and its place in the store."""
LARGEST_TRACE = 1024 * 1024
"""Bytes of the spans that are stored of one trace."""
MOST_SPANS = 2000
"""Most spans in one answer."""
MOST_FOUND = 200
"""Most traces in one answer."""


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """Conditions that a trace must meet, all of them; "" and 0 mean any."""

    trace_id: str = ""
    """Beginning of the trace id, in hexadecimal digits."""
    text: str = ""
    """A part of the route, path or name of the root span, in any case."""
    site: str = ""
    """Site or service."""
    plugin: str = ""
    """Plugin or theme that a span belongs to."""
    error: bool = False
    """Only traces with a failed span."""
    route: str = ""
    """The whole route."""
    min_ms: float = 0.0
    limit: int = 50


@dataclass(slots=True)
class _StoredTrace:
    summary: TracePart
    bodies: list[bytes] = field(default_factory=list)
    size: int = OVERHEAD
    left_out: int = 0
    """Spans that are not stored, because the trace is too large."""

    def add(self, part: TracePart) -> int:
        """Add the spans of `part`; return the number of added bytes."""
        known, size = self.summary, len(part.body)
        if known is not part:
            known.spans += part.spans
            known.errors += part.errors
            known.start, known.end = min(known.start, part.start), max(known.end, part.end)
            known.owners |= part.owners
            if part.root and not known.root:
                known.root, known.attributes = part.root, part.attributes
                known.service, known.site = part.service, part.site or known.site
                known.weight = part.weight
            self._add_usage(part)
        if self.size - OVERHEAD + size > LARGEST_TRACE:
            self.left_out += part.spans
            return 0
        self.bodies.append(part.body)
        self.size += size
        return size

    def _add_usage(self, part: TracePart) -> None:
        """Add the usage of `part`; what the root span reports covers the whole trace."""
        known = self.summary
        if known.measure != "spans":
            return
        if part.measure != "spans":
            known.usage, known.measure = part.usage, part.measure
            return
        for owner, used in part.usage.items():
            sums = known.usage.setdefault(owner, OwnerUsage())
            sums.us, sums.queries, sums.errors = (
                sums.us + used.us,
                sums.queries + used.queries,
                sums.errors + used.errors,
            )

    def page(self) -> PageTime | None:
        """Return the trace as a page; `None` if its root span is missing."""
        known = self.summary
        if not known.root:
            return None
        us = max(0, known.end - known.start) // 1000
        return PageTime(
            known.site or known.service,
            known.attributes.get("http.route", "") or known.root,
            known.start // 1000,
            us,
            known.errors > 0,
            known.weight,
            known.measure,
            add_rest_to_core(known.usage, us) if known.measure == "profiled" else known.usage,
        )

    def to_json(self) -> dict[str, Any]:
        known = self.summary
        attributes = known.attributes
        return {
            "trace_id": known.trace_id.hex(),
            "name": known.root,
            "service": known.service,
            "site": known.site or known.service,
            "route": attributes.get("http.route", ""),
            "path": attributes.get("url.path", ""),
            "method": attributes.get("http.request.method", ""),
            "status": attributes.get("http.response.status_code", ""),
            "type": attributes.get("wordpress.request.type", ""),
            "start": known.start // 1000,
            "duration": max(0, known.end - known.start) // 1000,
            "spans": known.spans,
            "errors": known.errors,
            "plugins": sorted(known.owners),
        }

    def meets(self, query: TraceQuery) -> bool:
        known = self.summary
        if query.trace_id and not known.trace_id.hex().startswith(query.trace_id.lower()):
            return False
        if (query.error and not known.errors) or (known.end - known.start) / 1e6 < query.min_ms:
            return False
        if query.site and query.site not in (known.site, known.service):
            return False
        if query.plugin and query.plugin not in known.owners:
            return False
        if query.route and query.route != (known.attributes.get("http.route", "") or known.root):
            return False
        text = query.text.lower()
        return not text or any(text in each.lower() for each in (known.root, *known.attributes.values()))


class TraceStore:
    """The last traces, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self.removed = 0
        """Number of traces that were removed for newer ones."""
        self._traces: dict[bytes, _StoredTrace] = {}

    def __len__(self) -> int:
        """Return the number of stored traces."""
        return len(self._traces)

    def add(self, parts: Iterable[TracePart]) -> None:
        """Store the parts of a request, and remove the oldest traces beyond the limit."""
        for part in parts:
            known = self._traces.get(part.trace_id)
            if known is None:
                known = self._traces[part.trace_id] = _StoredTrace(part)
                self.bytes += OVERHEAD
            self.bytes += known.add(part)
        while self.bytes > self.max_bytes:
            self._remove(next(iter(self._traces)))

    def search(self, query: TraceQuery) -> list[dict[str, Any]]:
        """Return the summaries of the traces that meet `query`, the newest first."""
        found: list[dict[str, Any]] = []
        for trace in reversed(self._traces.values()):
            if len(found) >= min(query.limit, MOST_FOUND):
                break
            if trace.meets(query):
                found.append(trace.to_json())
        return found

    def trace(self, trace_id: bytes) -> dict[str, Any] | None:
        """Return a trace with its spans, or `None` if it is not stored.

        `owners` has the microseconds of each plugin, theme and core: the sums of their spans' own times.
        """
        stored = self._traces.get(trace_id)
        if stored is None:
            return None
        spans, resource = spans_of(stored.bodies, MOST_SPANS)
        return {
            **stored.to_json(),
            "left_out": stored.summary.spans - len(spans),
            "resource": resource,
            "owners": self_times(spans),
            "items": spans,
        }

    def pages(self, query: TraceQuery) -> list[PageTime]:
        """Return the pages of the traces that meet `query`, the oldest first; its `limit` does not apply."""
        found = [trace.page() for trace in self._traces.values() if trace.meets(query)]
        return [page for page in found if page is not None]

    def plugins(self) -> list[str]:
        """Return the plugins and themes of all stored traces, sorted."""
        return sorted({owner for trace in self._traces.values() for owner in trace.summary.owners} - {CORE})

    def state(self) -> dict[str, int]:
        """Return the number of traces, their bytes and the limit."""
        return {"traces": len(self), "bytes": self.bytes, "max_bytes": self.max_bytes, "removed": self.removed}

    def _remove(self, trace_id: bytes) -> None:
        self.bytes -= self._traces.pop(trace_id).size
        self.removed += 1


class TraceSource:
    """A component that keeps the last traces. Others find it with `Host.providers(TraceSource)`."""

    store: TraceStore

    @staticmethod
    def find(stores: Iterable[TraceStore], trace_id: bytes) -> dict[str, Any] | None:
        """Return a trace from the first of `stores` that has it."""
        found: Iterator[dict[str, Any]] = (trace for store in stores if (trace := store.trace(trace_id)) is not None)
        return next(found, None)
