"""What was decided about a trace, and how its spans say so.

Kept by chance: `tracestate` carries the threshold (`ot=th:…`), from which backends count. Kept for another reason: `th`
is erased, for nobody can count with it, and the attribute `sampling.reason` tells why. In a dry run nothing is dropped,
and the attribute `sampling.dry_run` tells what would have become of the span.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import encode, put
from otelwp_agent.model.projections import parse
from otelwp_agent.model.sampling import TraceState, randomness_of
from otelwp_agent.model.wire import prefixed

if TYPE_CHECKING:
    from collections.abc import Sequence

REASON = "sampling.reason"
DRY_RUN = "sampling.dry_run"

_TRACE_STATE = b"\x1a"
_ATTRIBUTE = b"\x4a"
"""Tags of trace.proto's Span: `trace_state` (3) and `attributes` (9)."""


class Verdict:
    """One of what can be decided; shared by all traces of which the same was."""

    __slots__ = ("_attribute", "_marks", "_plain", "filtered", "keep", "passes", "reason", "threshold")

    def __init__(self, reason: str, threshold: int | None, *, keep: bool, dry_run: bool, filtered: bool) -> None:
        """`filtered`: dropped by a rule, not by chance."""
        self.keep = keep
        self.passes = keep or dry_run
        """Whether its spans are handed on."""
        self.reason = reason
        self.threshold = threshold
        self.filtered = filtered
        self._marks = dry_run
        told = ("kept:" if keep else "dropped:") + reason if dry_run else reason
        self._attribute = (DRY_RUN if dry_run else REASON).encode(), encode(told)
        if dry_run or threshold is None:
            key, value = self._attribute
            self._plain = prefixed(_ATTRIBUTE, pb.KeyValue(key=key, value=value).SerializeToString())
        else:
            self._plain = prefixed(_TRACE_STATE, TraceState("").with_threshold(threshold).text.encode())

    def mark(self, items: Sequence[bytes], *, states: bool) -> list[bytes]:
        """Return serialized spans with the verdict on them; `states`: whether any has a trace state."""
        suffix = self._plain
        if not states and (self.threshold is not None or not any(self._attribute[0] in item for item in items)):
            return [item + suffix for item in items]
        return [self._mark(item) for item in items]

    def _mark(self, item: bytes) -> bytes:
        span = parse(pb.SampledSpan.FromString, item)
        if not self._marks:
            state = TraceState.parse(span.trace_state.decode(errors="surrogateescape"))
            span.trace_state = self._state(state, span.trace_id).text.encode(errors="surrogateescape")
        if self._marks or self.threshold is None:
            put(span.attributes, *self._attribute)
        return span.SerializeToString()

    def _state(self, state: TraceState, trace_id: bytes) -> TraceState:
        if self.threshold is None:
            return state.with_threshold(None)
        randomness = randomness_of(trace_id) if state.randomness is None else state.randomness
        arrived = state.threshold or 0
        # What should have been dropped before and was not, nobody can count with.
        honest = randomness is not None and arrived <= randomness
        return state.with_threshold(max(self.threshold, arrived if honest else 0))


@lru_cache(4096)
def verdict(
    reason: str, threshold: int | None, *, keep: bool, dry_run: bool = False, filtered: bool = False
) -> Verdict:
    """Return the verdict of these, the same one each time."""
    return Verdict(reason, threshold, keep=keep, dry_run=dry_run, filtered=filtered)


class Memory:
    """What was decided of the last traces: at least of the last half of `limit`, at most of `limit`."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, limit: int) -> None:
        """Remember at most `limit` traces."""
        self._half = max(1, limit // 2)
        self._young: dict[object, Verdict] = {}
        self._old: dict[object, Verdict] = {}

    def __len__(self) -> int:
        """Return how many are remembered; one that was asked for again may count twice."""
        return len(self._young) + len(self._old)

    def get(self, key: object) -> Verdict | None:
        """Return what was decided of a trace."""
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: object, decided: Verdict) -> None:
        """Remember; what is older than the last half is forgotten."""
        young = self._young
        if len(young) >= self._half:
            self._old = young
            young = self._young = {}
        young[key] = decided
