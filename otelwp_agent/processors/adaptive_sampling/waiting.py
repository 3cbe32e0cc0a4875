"""Traces that wait for a decision, and their memory.

A trace is a list of parts, one for each scope of each request with spans of it: the serialized spans, their head
(resource and scope), and the receipt on which they will be settled. There is no clock and no I/O.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from otelwp_agent.fair_share import TenantUse
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.projections import parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.traces.framing import enclose, frame, unframe
from otelwp_agent.sampling.traces.reading import STATUS_ERROR, is_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otelwp_agent.model.batch import Origin, Share
    from otelwp_agent.model.receipt import Receipt
    from otelwp_agent.processors.adaptive_sampling.facts import Facts
    from otelwp_agent.processors.adaptive_sampling.verdict import TraceVerdict
    from otelwp_agent.sampling.traces import Part
    from otelwp_agent.sampling.traces.framing import Head

TRACE_COST, PART_COST, HEAD_COST = 390, 160, 200
"""Bytes that Python needs for a waiting trace, for a part, and for a head, in addition to their content; measured."""


class Waiting:
    """One waiting trace."""

    __slots__ = (
        "cut",
        "deadline",
        "duration",
        "error",
        "facts",
        "key",
        "origin",
        "parts",
        "size",
        "spans",
        "states",
        "trace_id",
        "weight",
    )

    def __init__(self, key: object, trace_id: bytes, origin: Origin, deadline: float) -> None:
        self.key = key
        self.trace_id = trace_id
        self.origin = origin
        self.deadline = deadline
        """Time of the decision, at the latest."""
        self.parts: list[Part[Receipt]] = []
        self.facts: Facts | None = None
        """Facts of its root, once that has arrived."""
        self.duration = 0.0
        """Duration of its root in seconds."""
        self.spans = 0
        self.weight = 0
        """Bytes of its spans."""
        self.size = TRACE_COST
        """Bytes of memory."""
        self.error = False
        self.cut = False
        """Whether spans were removed because it became too large."""
        self.states: tuple[bytes, ...] = ()
        """Trace states of its spans."""

    def resource(self) -> bytes:
        """Return the serialized resource of its first span."""
        return parse(pb.ResourceSlice.FromString, self.parts[0][0][0]).resource

    def extent(self) -> float:
        """Return the seconds from the earliest start to the latest end."""
        spans = [parse(pb.TraceSpan.FromString, item) for _, framed, _, _ in self.parts for item in unframe(framed)]
        start = min(span.start_time_unix_nano for span in spans)
        return (max(span.end_time_unix_nano for span in spans) - start) * 1e-9

    def body(self) -> bytes:
        """Return a request of all its spans."""
        return enclose([(head, framed) for head, framed, _, _ in self.parts])

    def batch(self, verdict: TraceVerdict) -> Batch:
        """Return the trace as a batch, with its spans marked with the verdict."""
        states = bool(self.states)
        marked = [(head, frame(verdict.mark(unframe(framed), states=states))) for head, framed, _, _ in self.parts]
        shares: list[Share] = [(receipt, spans) for _, _, spans, receipt in self.parts]
        return Batch(Signal.TRACES, enclose(marked), self.spans, self.origin, shares)

    def cut_to_spine(self) -> list[Share]:
        """Keep only roots, errors and their ancestors; return the receipts and counts of the removed spans."""
        items = [unframe(framed) for _, framed, _, _ in self.parts]
        rows = [[parse(pb.TraceSpan.FromString, item) for item in spans] for spans in items]
        parents = {span.span_id: span.parent_span_id for part in rows for span in part}
        spine: set[bytes] = set()
        for part in rows:
            for span in part:
                if is_root(span.parent_span_id):
                    spine.add(span.span_id)
                elif span.status.code == STATUS_ERROR:
                    place: bytes | None = span.span_id
                    while place is not None and place not in spine:
                        spine.add(place)
                        place = parents.get(place)
        left: list[Part[Receipt]] = []
        removed: list[Share] = []
        self.weight = 0
        for (head, _, _, receipt), own, spans in zip(self.parts, items, rows, strict=True):
            kept = [item for item, span in zip(own, spans, strict=True) if span.span_id in spine]
            if len(kept) < len(spans):
                removed.append((receipt, len(spans) - len(kept)))
            if kept:
                left.append((head, frame(kept), len(kept), receipt))
                self.weight += sum(map(len, kept))
        self.parts = left
        self.spans = sum([spans for _, _, spans, _ in left])
        self.size = TRACE_COST + sum([PART_COST + len(framed) for _, framed, _, _ in left])
        self.cut = True
        return removed


class Heads:
    """Heads of waiting spans: equal ones are stored once, as long as parts use them."""

    def __init__(self) -> None:
        """Start without heads."""
        self.size = 0
        """Bytes of memory."""
        self._uses: dict[Head, list[Any]] = {}
        """By head: itself, and the number of parts that use it."""

    def shared(self, heads: list[Head]) -> list[Head]:
        """Return equal heads, replaced by the stored objects."""
        uses = self._uses
        return [uses[head][0] if head in uses else head for head in heads]

    def hold(self, parts: Iterable[Part[Receipt]]) -> None:
        """Count these parts as users of their heads."""
        uses = self._uses
        for head, _, _, _ in parts:
            use = uses.get(head)
            if use is None:
                use = uses[head] = [head, 0]
                self.size += _size_of(head)
            use[1] += 1

    def release(self, parts: Iterable[Part[Receipt]]) -> None:
        """Remove these parts as users of their heads."""
        uses = self._uses
        for head, _, _, _ in parts:
            use = uses[head]
            use[1] -= 1
            if not use[1]:
                del uses[head]
                self.size -= _size_of(head)


class WaitingTraces:
    """All waiting traces in the order of arrival, and those of each tenant."""

    def __init__(self) -> None:
        """Start empty."""
        self.traces: dict[object, Waiting] = {}
        self.heads = Heads()
        self.use = TenantUse()
        """Bytes of the traces of each tenant, without heads."""
        self._of_tenants: dict[str, dict[object, Waiting]] = {}
        self._size = 0
        """Bytes of memory without heads."""
        self._rooted: deque[tuple[float, Waiting]] = deque()
        """Traces whose root has arrived, and when they are due."""

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self._size + self.heads.size

    def add(self, trace: Waiting, parts: Sequence[Part[Receipt]], spans: int, weight: int) -> None:
        """Add parts with `spans` spans and `weight` bytes to a trace."""
        size = PART_COST * len(parts)
        for part in parts:
            size += len(part[1])
        if not trace.parts:
            self.traces[trace.key] = trace
            self._size += TRACE_COST
            if trace.origin.tenant:
                self._of_tenants.setdefault(trace.origin.tenant, {})[trace.key] = trace
                self.use.add(trace.origin.tenant, TRACE_COST)
        self.heads.hold(parts)
        trace.parts += parts
        trace.spans += spans
        trace.weight += weight
        trace.size += size
        self._size += size
        self.use.add(trace.origin.tenant, size)

    def rooted(self, trace: Waiting, facts: Facts, duration: float, due: float) -> None:
        """Record that the root of a trace has arrived, which makes it due earlier."""
        trace.facts, trace.duration = facts, duration
        if due < trace.deadline:
            trace.deadline = due
            self._rooted.append((due, trace))

    def cut(self, trace: Waiting) -> list[Share]:
        """Reduce a trace to its error spine; return what is to be settled."""
        before, parts = trace.size, trace.parts
        removed = trace.cut_to_spine()
        self.heads.hold(trace.parts)
        self.heads.release(parts)
        self._size += trace.size - before
        self.use.add(trace.origin.tenant, trace.size - before)
        return removed

    def take(self, trace: Waiting) -> None:
        """Remove a trace."""
        if self.traces.pop(trace.key, None) is not None:
            self._size -= trace.size
            self.heads.release(trace.parts)
            tenant = trace.origin.tenant
            if tenant:
                self.use.add(tenant, -trace.size)
                traces = self._of_tenants[tenant]
                del traces[trace.key]
                if not traces:
                    del self._of_tenants[tenant]

    def take_due(self, now: float) -> Iterator[Waiting]:
        """Remove and yield the traces that are due."""
        traces, rooted = self.traces, self._rooted
        while rooted and rooted[0][0] <= now:
            trace = rooted.popleft()[1]
            if traces.get(trace.key) is trace:
                self.take(trace)
                yield trace
        while traces:
            trace = next(iter(traces.values()))
            # One whose root has arrived is due before its turn here, and was found above.
            if trace.deadline > now:
                break
            self.take(trace)
            yield trace

    def oldest(self) -> Waiting | None:
        """Return the trace that arrived first."""
        return next(iter(self.traces.values()), None)

    def oldest_of(self, tenant: str) -> Waiting | None:
        """Return the trace of a tenant that arrived first."""
        traces = self._of_tenants.get(tenant)
        return next(iter(traces.values()), None) if traces is not None else None


def _size_of(head: Head) -> int:
    return HEAD_COST + len(head[0]) + len(head[1])
