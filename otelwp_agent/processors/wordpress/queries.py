"""Find repeated queries and slow queries among the spans of a request."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from otelwp_agent.model.wire import prefixed
from otelwp_agent.processors.wordpress import sql
from otelwp_agent.processors.wordpress.attributes import key_value

if TYPE_CHECKING:
    from collections.abc import Iterator

N_PLUS_ONE = "wordpress.db.n_plus_one"
SLOW = "wordpress.db.slow_query"
"""Names of the events, equal to those of this project's plugin."""
MOST = 10
"""Maximum number of events with the same name on one span."""

_EVENT, _TIME, _NAME, _ATTRIBUTE = b"\x5a", b"\x09", b"\x12", b"\x1a"
"""Tags of trace.proto: Span.events, Event.time_unix_nano, .name, .attributes."""
_fixed64 = struct.Struct("<Q").pack


class Queries:
    """The queries of one batch."""

    __slots__ = ("_groups", "_least", "_slow", "_slowest")

    def __init__(self, least: int, slow: int) -> None:
        """Find `least` equal queries under one span, and queries of at least `slow` nanoseconds.

        0 disables a search.
        """
        self._least = least
        self._slow = slow
        self._groups: dict[tuple[bytes, bytes, str], list[int]] = {}
        self._slowest: dict[tuple[bytes, bytes], list[tuple[int, int, str]]] = {}

    def add(self, trace_id: bytes, parent: bytes, shape: str, start: int, end: int) -> None:
        """Add a query of `shape` that ran from `start` to `end` (nanoseconds)."""
        took = max(end - start, 0)
        group = self._groups.get((trace_id, parent, shape))
        if group is None:
            self._groups[trace_id, parent, shape] = [1, took, start]
        else:
            group[0] += 1
            group[1] += took
        if self._slow and took >= self._slow:
            self._slowest.setdefault((trace_id, parent), []).append((took, start, shape))

    def findings(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Yield the trace id, the parent's span id, and an event as a field of the span that it belongs to."""
        for (trace_id, parent), slowest in self._slowest.items():
            for took, start, shape in sorted(slowest, reverse=True)[:MOST]:
                yield trace_id, parent, event(SLOW, start, shape, took)
        repeated: dict[tuple[bytes, bytes], int] = {}
        for (trace_id, parent, shape), (times, took, start) in self._groups.items():
            if not self._least or times < self._least or sql.is_option(shape):
                continue
            found = repeated[trace_id, parent] = repeated.get((trace_id, parent), 0) + 1
            if found <= MOST:
                yield trace_id, parent, event(N_PLUS_ONE, start, shape, took, times)


def event(name: str, at: int, shape: str, took: int, times: int = 0) -> bytes:
    """Return a finding as a field of a span."""
    attributes = [key_value("db.query.text", shape), key_value("wordpress.db.duration_ms", round(took / 1e6, 3))]
    if times:
        attributes.append(key_value("wordpress.db.query_count", times))
    body = [_TIME, _fixed64(at), prefixed(_NAME, name.encode()), *(prefixed(_ATTRIBUTE, each) for each in attributes)]
    return prefixed(_EVENT, b"".join(body))
