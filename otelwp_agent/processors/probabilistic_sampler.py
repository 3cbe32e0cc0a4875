"""Keep a random share of spans or log records, such that all agents keep the same traces.

Place it before `batch`. The decision depends on the trace id, so all spans of a trace are kept or dropped together,
even in different agents; a trace kept with 10 % is also kept with 50 %. The threshold is written into the `tracestate`
of kept spans (`ot=th:…`; log records: `sampling.threshold`), so that backends can compute totals. Entries of other
vendors in `tracestate` stay unchanged.

`sampling.priority` on a span overrides the probability: 0 drops it, anything above keeps it. Items without randomness
(no trace id), or that an earlier sampler should have dropped, are dropped as well and counted as filtered; with
`fail_closed: false` they are kept.

Example::

    processors:
      probabilistic_sampler:
        sampling_percentage: 10
"""

from __future__ import annotations

from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from otelwp_agent.component import (
    ComponentConfig,
    Context,
    Effect,
    Factory,
    KeptPercentage,
    Kind,
    Processor,
    Reads,
    Stability,
)
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.selection import Selection
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.consistent import (
    MIN_PROBABILITY,
    NEVER,
    TraceState,
    hashed_randomness,
    hashed_threshold,
    single,
    threshold_of,
)
from otelwp_agent.sampling.items import (
    BY_HASH,
    BY_TRACE_ID,
    PRIORITY,
    ItemSampler,
    ItemVerdict,
    LogSampler,
    Mode,
    Settings,
    SpanSampler,
)
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.telemetry.metrics import Counter

_LABELS = ("policy", "processor", "sampled")
SPANS = Instrument(
    "otelcol_processor_probabilistic_sampler_count_spans_processed_total",
    "Spans sampled or not, by the policy that decided.",
    labels=_LABELS,
)
TRACES = Instrument(
    "otelcol_processor_probabilistic_sampler_count_traces_sampled",
    "Spans sampled or not, under the name that the Collector used before 0.161.",
    labels=_LABELS,
)
LOGS = Instrument(
    "otelcol_processor_probabilistic_sampler_count_logs_sampled",
    "Log records sampled or not, by the policy that decided.",
    labels=_LABELS,
)

_OUTCOMES = [
    (Outcome.SAMPLED_OUT, "") if verdict is ItemVerdict.SAMPLED_OUT else (Outcome.FILTERED, verdict.name.lower())
    for verdict in ItemVerdict
    if verdict is not ItemVerdict.KEPT
]


class Config(ComponentConfig):
    """The share to keep, and the input of the decision."""

    sampling_percentage: Annotated[float, KeptPercentage()] = Field(0.0, ge=0, allow_inf_nan=False)
    """Percentage of items to keep; 100 and above keep everything, 0 nothing."""
    mode: Mode | Literal[""] = ""
    """proportional: keep this share of the arriving items, regardless of earlier sampling. equalizing: reduce items
    that were sampled less before to this share, and leave others unchanged. hash_seed: decide by a hash of the trace id
    or attribute, as the Collector did before OpenTelemetry had a standard. "" means hash_seed if `hash_seed` is set, or
    if log records are sampled by an attribute; else proportional."""
    hash_seed: int = Field(0, ge=0, lt=2**32)
    """Seed of hashes: equal in all agents of one tier, different in each tier."""
    fail_closed: bool = True
    """Drop items whose randomness or earlier sampling is unknown; false keeps them."""
    sampling_precision: int = Field(4, ge=1, le=14)
    """Hexadecimal digits of the threshold that is written."""
    attribute_source: Literal["traceID", "record"] = "traceID"
    """Log records: decide by the trace id, or by `from_attribute`."""
    from_attribute: str = ""
    """Log records: the attribute to decide by, if the trace id is missing or `attribute_source` is record."""
    sampling_priority: str = ""
    """Log records: an attribute with the percentage that the record requests: 0 drops it, other values can raise its
    probability, but not lower it."""

    @field_validator("sampling_percentage")
    @classmethod
    def _expressible(cls, value: float) -> float:
        if 0 < value / 100 < MIN_PROBABILITY:
            message = f"{value:g} is too small: set at least {MIN_PROBABILITY * 100:g}, or 0 to keep nothing"
            raise ValueError(message)
        return value


class ProbabilisticSampler(Processor):
    """Keeps a random share of items."""

    def __init__(self, config: Config, context: Context) -> None:
        """Compute the thresholds and bind the instruments."""
        super().__init__(context)
        spans = _settings(config, by_hash=config.hash_seed != 0)
        logs = _settings(config, by_hash=config.hash_seed != 0 or config.attribute_source == "record")
        self._judges: dict[Signal, ItemSampler] = {
            Signal.TRACES: SpanSampler(spans),
            Signal.LOGS: LogSampler(
                logs,
                trace_id=config.attribute_source == "traceID",
                attribute=config.from_attribute,
                priority=config.sampling_priority,
            ),
        }
        self._quick: _QuickSampler | _QuickHasher | None = None
        self._quick_policy = BY_TRACE_ID
        if spans.mode == "hash_seed":
            self._quick, self._quick_policy = _QuickHasher(spans), BY_HASH
        elif spans.threshold < NEVER:
            self._quick = _QuickSampler(spans.threshold)
        self._counters: dict[tuple[Signal, str, bool], list[Counter]] = {}

    def consume(self, batch: Batch) -> None:
        """Forward the kept items, and settle the others once the next stage has accepted the kept ones."""
        request = parse(pb.Opaque.FromString, batch.body)
        judge = self._judges[batch.signal]
        quick = self._quick if batch.signal is Signal.TRACES and PRIORITY not in batch.body else None
        verdicts: list[bytes] = []
        counts: dict[tuple[str, bool], int] = {}
        kept_any = empty_any = False
        for resource in request.resources:
            scopes = resource.scopes
            if not scopes:
                empty_any = True
            for scope in scopes:
                items = scope.items[:]
                sampled = quick.sample(items) if quick is not None else None
                if sampled is None:
                    sampled = _judge_each(judge, items, counts)
                else:
                    _add(counts, (self._quick_policy, True), len(sampled[1]))
                    _add(counts, (self._quick_policy, False), len(items) - len(sampled[1]))
                verdicts.append(sampled[0])
                scope.ClearField("items")
                if sampled[1]:
                    scope.items.extend(sampled[1])
                    kept_any = True
                else:
                    empty_any = True
        if empty_any and kept_any:
            _remove_empty(request)
        selection = Selection(batch, request.SerializeToString() if kept_any else b"", b"".join(verdicts))
        if selection.batch is not None:
            self.next.consume(selection.batch)
        selection.settle(_OUTCOMES)
        self._count(batch.signal, counts)

    def _count(self, signal: Signal, counts: dict[tuple[str, bool], int]) -> None:
        for (policy, sampled), items in counts.items():
            key = (signal, policy, sampled)
            counters = self._counters.get(key)
            if counters is None:
                label, name = str(sampled).lower(), str(self.context.id)
                counters = self._counters[key] = [
                    self.context.registry.counter(instrument, policy=policy, sampled=label, processor=name)
                    for instrument in ((SPANS, TRACES) if signal is Signal.TRACES else (LOGS,))
                ]
            for counter in counters:
                counter.add(items)


class _QuickSampler:
    """Samples spans without parsing each; returns `None` where more than their trace ids is needed.

    The concatenated spans are parsed in one pass as one message (`JoinedSpans`). Serialized again without unknown
    fields, it contains every trace id after a tag and a length: 18 bytes a span, unless an id is missing or has another
    length, or there is a trace state. So byte 11 of each 18 is the first byte of a randomness, which decides alone
    unless it equals the threshold's first byte. The new trace state is appended to kept spans.
    """

    def __init__(self, threshold: int) -> None:
        """Keep spans whose randomness reaches `threshold`, which is below `NEVER`."""
        self._limit = threshold.to_bytes(7, "big")
        first = self._limit[0]
        exact = not any(self._limit[1:])
        self._verdicts = bytes(
            _UNDECIDED
            # An id of zeros has no randomness, so zero never decides alone.
            if byte == 0 or (byte == first and not exact)
            else ItemVerdict.KEPT
            if byte >= first
            else ItemVerdict.SAMPLED_OUT
            for byte in range(256)
        )
        self._suffix = _trace_state_field(threshold)

    def sample(self, items: Sequence[bytes]) -> tuple[bytes, list[bytes]] | None:
        """Return the verdicts and the spans to forward; `None` if each span must be parsed."""
        ids = _trace_ids(items)
        if ids is None:
            return None
        verdicts = ids[11::18].translate(self._verdicts)
        if _UNDECIDED in verdicts:
            decided = bytearray(verdicts)
            for index in [index for index, verdict in enumerate(verdicts) if verdict == _UNDECIDED]:
                trace_id = ids[18 * index + 2 : 18 * index + 18]
                if not any(trace_id):
                    return None
                decided[index] = ItemVerdict.KEPT if trace_id[9:] >= self._limit else ItemVerdict.SAMPLED_OUT
            verdicts = bytes(decided)
        suffix = self._suffix
        return verdicts, [item + suffix for item in compress(items, verdicts.translate(_INVERTED))]


class _QuickHasher:
    """A quick sampler for `hash_seed`, with cached hashes of trace ids, because a trace has many spans."""

    def __init__(self, settings: Settings) -> None:
        """Keep spans whose hash reaches the threshold of `settings`."""
        self._threshold = settings.threshold
        self._hashed = lru_cache(_REMEMBERED)(lambda trace_id: self._suffix_of(trace_id, settings.seed))

    def sample(self, items: Sequence[bytes]) -> tuple[bytes, list[bytes]] | None:
        """Return the verdicts and the spans to forward; `None` if each span must be parsed."""
        ids = _trace_ids(items)
        if ids is None:
            return None
        hashed = self._hashed
        suffixes = [hashed(ids[start : start + 16]) for start in range(2, len(ids), 18)]
        verdicts = bytes(ItemVerdict.KEPT if suffix else ItemVerdict.SAMPLED_OUT for suffix in suffixes)
        return verdicts, [item + suffix for item, suffix in zip(items, suffixes, strict=True) if suffix]

    def _suffix_of(self, trace_id: bytes, seed: int) -> bytes:
        """Return the bytes to append to spans of a kept trace; nothing for a dropped one."""
        randomness = hashed_randomness(trace_id, seed)
        return _trace_state_field(self._threshold, randomness) if randomness >= self._threshold else b""


_UNDECIDED = 255
"""Placeholder for a verdict that depends on the following bytes."""
_INVERTED = bytes([1]) + bytes(255)
"""Translates verdicts to a selector of kept spans."""
_REMEMBERED = 8192
"""Number of cached hashes of trace ids: at most 1.5 MB."""


def _trace_ids(spans: Sequence[bytes]) -> bytes | None:
    """Return the trace ids of serialized spans, each after a tag and its length, 18 bytes in all.

    Returns `None` if an id is missing or does not have 16 bytes, or if any span has a trace state.
    """
    count = len(spans)
    joined = parse(pb.JoinedSpans.FromString, b"".join(spans))
    joined.DiscardUnknownFields()
    ids = joined.SerializeToString()
    # A correct length puts the next tag in its position; additional fields would add a step.
    if ids[::18] != b"\x0a" * count or ids[1::18] != b"\x10" * count:
        return None
    return ids


def _trace_state_field(threshold: int, randomness: int | None = None) -> bytes:
    """Return a serialized field 3 of a span with a new trace state."""
    text = TraceState("").with_threshold(threshold, randomness).text.encode()
    return b"\x1a" + bytes([len(text)]) + text


def _settings(config: Config, *, by_hash: bool) -> Settings:
    percentage = single(min(config.sampling_percentage, 100.0))
    mode: Mode = config.mode or ("hash_seed" if by_hash else "proportional")
    threshold = (
        hashed_threshold(percentage)
        if mode == "hash_seed"
        else threshold_of(percentage / 100, config.sampling_precision)
    )
    return Settings(mode, threshold, percentage / 100, config.sampling_precision, config.hash_seed, config.fail_closed)


def _judge_each(
    judge: ItemSampler, items: Sequence[bytes], counts: dict[tuple[str, bool], int]
) -> tuple[bytes, list[bytes]]:
    """Return the verdicts and the items to forward."""
    judgements = [judge.judge(item) for item in items]
    for judgement in judgements:
        _add(counts, (judgement.policy, not judgement.verdict), 1)
    kept = [judgement.data for judgement in judgements if not judgement.verdict]
    return bytes(judgement.verdict for judgement in judgements), kept


def _add(counts: dict[tuple[str, bool], int], key: tuple[str, bool], items: int) -> None:
    if items:
        counts[key] = counts.get(key, 0) + items


def _remove_empty(request: pb.Opaque) -> None:
    """Remove scopes without items, and resources without scopes."""
    resources = request.resources
    for index in range(len(resources) - 1, -1, -1):
        scopes = resources[index].scopes
        for inner in range(len(scopes) - 1, -1, -1):
            if not scopes[inner].items:
                del scopes[inner]
        if not scopes:
            del resources[index]


FACTORY = Factory(
    Kind.PROCESSOR,
    "probabilistic_sampler",
    Config,
    ProbabilisticSampler,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    reads=Reads.ATTRIBUTES,
    effects=frozenset({Effect.EDITS, Effect.DROPS}),
    stability=Stability.BETA,
    instruments=(SPANS, TRACES, LOGS),
)
