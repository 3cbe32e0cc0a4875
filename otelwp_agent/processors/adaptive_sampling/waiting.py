"""Traces that wait until they can be decided about, and how much memory that takes.

A trace is a list of parts, one for each scope of each request that brought spans of it: the serialized spans, what
stood around them, and the receipt that they are to be settled on. No clock and no I/O.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.projections import parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.traces import ERROR, Heads, enclose, frame, is_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.model.batch import Origin, Share
    from otelwp_agent.model.receipt import Receipt
    from otelwp_agent.processors.adaptive_sampling.verdict import Verdict

TRACE_COST, PART_COST, SPAN_COST = 420, 210, 48
"""Bytes that Python takes for a trace that waits, for a part and for a span, beside the span itself; measured."""


class Part(NamedTuple):
    """Spans of one trace from one scope of one request."""

    heads: Heads
    spans: Sequence[bytes]
    receipt: Receipt

    @property
    def size(self) -> int:
        """Memory that it takes."""
        return PART_COST + SPAN_COST * len(self.spans) + sum(map(len, self.spans))


class Waiting:
    """One trace."""

    __slots__ = (
        "cut",
        "deadline",
        "error",
        "key",
        "origin",
        "parts",
        "root",
        "root_at",
        "size",
        "spans",
        "states",
        "trace_id",
    )

    def __init__(self, key: object, trace_id: bytes, origin: Origin, deadline: float) -> None:
        self.key = key
        self.trace_id = trace_id
        self.origin = origin
        self.deadline = deadline
        """When it is decided about, at the latest."""
        self.parts: list[Part] = []
        self.root = -1
        """The part that has the root; -1 if it has not come."""
        self.root_at = 0
        """Where it stands among the spans of that part."""
        self.spans = 0
        self.size = TRACE_COST
        self.error = False
        self.cut = False
        """Whether spans were left out because it became too large."""
        self.states: set[bytes] | None = None
        """Trace states of its spans."""

    def find_root(self) -> tuple[bytes | None, bytes, Origin]:
        """Return the root, serialized, its resource and its origin; without a root, the first resource."""
        root = self.root
        if root < 0:
            return None, self.parts[0].heads.of, self.origin
        part = self.parts[root]
        return part.spans[self.root_at], part.heads.of, self.origin

    def extent(self) -> float:
        """Return seconds from the first start to the last end."""
        spans = [parse(pb.RootSpan.FromString, item) for part in self.parts for item in part.spans]
        start = min(span.start_time_unix_nano for span in spans)
        return (max(span.end_time_unix_nano for span in spans) - start) * 1e-9

    def body(self, verdict: Verdict | None) -> bytes:
        """Return a request of all its spans, with the verdict on them if there is one."""
        states = self.states is not None
        return b"".join(
            [
                enclose(part.heads, frame(part.spans if verdict is None else verdict.mark(part.spans, states=states)))
                for part in self.parts
            ]
        )

    def batch(self, verdict: Verdict) -> Batch:
        """Return it as a batch, with the verdict on its spans."""
        shares: list[Share] = [(part.receipt, len(part.spans)) for part in self.parts]
        return Batch(Signal.TRACES, self.body(verdict), self.spans, self.origin, shares)

    def cut_to_spine(self) -> list[Share]:
        """Leave nothing but roots, errors and what leads to those; return what the rest is to be settled on."""
        rows = [[parse(pb.TraceSpan.FromString, item) for item in part.spans] for part in self.parts]
        parents = {span.span_id: span.parent_span_id for part in rows for span in part}
        spine: set[bytes] = set()
        for part in rows:
            for span in part:
                if is_root(span.parent_span_id):
                    spine.add(span.span_id)
                elif span.status.code == ERROR:
                    place: bytes | None = span.span_id
                    while place is not None and place not in spine:
                        spine.add(place)
                        place = parents.get(place)
        root = self.parts[self.root] if self.root >= 0 else None
        top = b"" if root is None else root.spans[self.root_at]
        left: list[Part] = []
        gone: list[Share] = []
        self.root = -1
        for each, spans in zip(self.parts, rows, strict=True):
            kept = tuple([item for item, span in zip(each.spans, spans, strict=True) if span.span_id in spine])
            if len(kept) < len(spans):
                gone.append((each.receipt, len(spans) - len(kept)))
            if kept:
                if each is root:
                    self.root, self.root_at = len(left), kept.index(top)
                left.append(each._replace(spans=kept))
        self.parts = left
        self.spans = sum([len(part.spans) for part in left])
        self.size = TRACE_COST + sum([part.size for part in left])
        self.cut = True
        return gone


class WaitingRoom:
    """All traces that wait, in the order in which they came."""

    def __init__(self) -> None:
        """Start empty."""
        self.traces: dict[object, Waiting] = {}
        self.size = 0
        """Bytes of memory."""
        self._rooted: deque[tuple[float, Waiting]] = deque()
        """Those whose root has come, and when they are due."""

    def find(self, key: object) -> Waiting | None:
        """Return a trace that waits."""
        return self.traces.get(key)

    def open(self, key: object, trace_id: bytes, origin: Origin, deadline: float) -> Waiting:
        """Begin a trace."""
        trace = self.traces[key] = Waiting(key, trace_id, origin, deadline)
        self.size += TRACE_COST
        return trace

    def add(self, trace: Waiting, part: Part) -> None:
        """Add spans to a trace."""
        spans = part.spans
        count = len(spans)
        size = PART_COST + SPAN_COST * count + sum(map(len, spans))
        trace.parts.append(part)
        trace.spans += count
        trace.size += size
        self.size += size

    def rooted(self, trace: Waiting, at: int, due: float) -> None:
        """Note that the part added last has the root of a trace, which makes it due earlier."""
        trace.root, trace.root_at = len(trace.parts) - 1, at
        if due < trace.deadline:
            trace.deadline = due
            self._rooted.append((due, trace))

    def cut(self, trace: Waiting) -> list[Share]:
        """Cut a trace to its error spine; return what is to be settled."""
        before = trace.size
        gone = trace.cut_to_spine()
        self.size += trace.size - before
        return gone

    def take(self, trace: Waiting) -> None:
        """Take a trace out."""
        if self.traces.pop(trace.key, None) is not None:
            self.size -= trace.size

    def due(self, now: float) -> Iterator[Waiting]:
        """Yield what is due. Whoever asks takes each out before the next."""
        rooted = self._rooted
        while rooted and rooted[0][0] <= now:
            trace = rooted.popleft()[1]
            if self.traces.get(trace.key) is trace:
                yield trace
        while self.traces:
            trace = next(iter(self.traces.values()))
            # One whose root has come is due before its turn here, and was found above.
            if trace.deadline > now:
                break
            yield trace

    def oldest(self) -> Waiting | None:
        """Return the trace that came first."""
        return next(iter(self.traces.values()), None)
