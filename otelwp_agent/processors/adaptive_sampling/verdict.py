"""The decision about a trace, and the marks on its spans.

Kept by probability: `tracestate` carries the threshold (`ot=th:…`), from which backends compute totals. Kept for
another reason: `th` is removed, because it does not apply, and the attribute `sampling.reason` contains the reason. In
a dry run nothing is dropped, and the attribute `sampling.dry_run` contains the decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import encode, put
from otelwp_agent.model.wire import prefixed
from otelwp_agent.sampling.consistent import TraceState, format_threshold, randomness_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.sampling.traces import Choice, TraceRequest
    from otelwp_agent.telemetry.metrics import Counter

REASON = "sampling.reason"
DRY_RUN = "sampling.dry_run"
_SAMPLING = b"sampling."

_TRACE_STATE = b"\x1a"
_ATTRIBUTE = b"\x4a"
"""Tags of trace.proto's Span: `trace_state` (3) and `attributes` (9)."""


class TraceVerdict:
    """One possible decision, shared by all traces for which it was made."""

    __slots__ = ("_suffix", "counters", "drops", "dry_run", "filtered", "keep", "passes", "reason", "threshold")

    def __init__(
        self, reason: str, threshold: int | None, *, keep: bool, dry_run: bool = False, filtered: bool = False
    ) -> None:
        """Create a verdict; `filtered` means dropped by a rule, not by probability."""
        self.keep = keep
        self.passes = keep or dry_run
        """Whether its spans are forwarded."""
        self.drops = not self.passes and not filtered
        """Whether it was dropped by probability."""
        self.reason = reason
        self.threshold = threshold
        self.filtered = filtered
        self.dry_run = dry_run
        self.counters: tuple[Counter, Counter] | None = None
        """Counters of its traces and spans, created on first use."""
        self._suffix: bytes | None = None
        """Cached value of `suffix`."""

    @property
    def attribute(self) -> tuple[str, str] | None:
        """Name and value of the attribute that carries the verdict; `None` if the trace state does."""
        if self.dry_run:
            return DRY_RUN, ("kept:" if self.keep else "dropped:") + self.reason
        return (REASON, str(self.reason)) if self.threshold is None else None

    def choose(self, request: TraceRequest, place: int, *, states: bool) -> Choice:
        """Return the choice for a trace that passes; `states`: whether any of its spans has a trace state."""
        suffix = self.suffix
        if not states and suffix[:1] != _ATTRIBUTE:
            return suffix
        return self.mark(request.spans(place), states=states)

    def mark(self, items: Sequence[bytes], *, states: bool) -> list[bytes]:
        """Return serialized spans marked with the verdict; `states`: whether any has a trace state."""
        suffix = self.suffix
        if states or (suffix[:1] == _ATTRIBUTE and any(_SAMPLING in item for item in items)):
            return [self._mark(item) for item in items]
        return [item + suffix for item in items]

    @property
    def suffix(self) -> bytes:
        """Bytes to append to a span without sampling information."""
        if self._suffix is None:
            self._suffix = self._make_suffix()
        return self._suffix

    def _make_suffix(self) -> bytes:
        attribute = self.attribute
        if attribute is None:
            assert self.threshold is not None  # noqa: S101 - without a threshold there is an attribute
            text = b"ot=th:" + format_threshold(self.threshold).encode()
            return _TRACE_STATE + bytes([len(text)]) + text
        key, value = attribute
        return prefixed(_ATTRIBUTE, pb.KeyValue(key=key.encode(), value=encode(value)).SerializeToString())

    def _mark(self, item: bytes) -> bytes:
        try:
            span = pb.SampledSpan.FromString(item)
        except DecodeError:  # the last of several equal fields applies, and lists are joined: so it can be appended
            return item + self._make_suffix()
        if not self.dry_run:
            state = TraceState.parse(span.trace_state.decode(errors="surrogateescape"))
            span.trace_state = self._state(state, span.trace_id).text.encode(errors="surrogateescape")
        attribute = self.attribute
        if attribute is not None:
            put(span.attributes, attribute[0].encode(), encode(attribute[1]))
        return span.SerializeToString()

    def _state(self, state: TraceState, trace_id: bytes) -> TraceState:
        if self.threshold is None:
            return state.with_threshold(None)
        randomness = randomness_of(trace_id) if state.randomness is None else state.randomness
        arrived = state.threshold or 0
        # A threshold that should have dropped the trace earlier cannot be used for totals.
        honest = randomness is not None and arrived <= randomness
        return state.with_threshold(max(self.threshold, arrived if honest else 0))


class Memory:
    """The verdicts of recent traces: at least the last half of `limit`, at most `limit`."""

    __slots__ = ("_half", "old", "young")

    def __init__(self, limit: int) -> None:
        """Remember at most `limit` traces."""
        self._half = max(1, limit // 2)
        self.young: dict[object, TraceVerdict] = {}
        self.old: dict[object, TraceVerdict] = {}
        """`young` has the last half, `old` the half before it."""

    def __len__(self) -> int:
        """Return the number of remembered verdicts; one that was requested again may count twice."""
        return len(self.young) + len(self.old)

    def get(self, key: object) -> TraceVerdict | None:
        """Return the verdict on a trace, `None` if it is not remembered."""
        found = self.young.get(key)
        if found is None and (found := self.old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: object, decided: TraceVerdict) -> None:
        """Remember a verdict; those older than the last half may be removed."""
        young = self.young
        if len(young) >= self._half:
            self.old = young
            young = self.young = {}
        young[key] = decided
