"""Sample one serialized span or log record: decide, and update its threshold and randomness."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from google.protobuf.message import DecodeError

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode, find, put
from otelwp_agent.sampling.consistent import (
    NEVER,
    TraceState,
    format_randomness,
    format_threshold,
    hashed_randomness,
    parse_randomness,
    parse_threshold,
    probability_of,
    randomness_of,
    threshold_of,
)

if TYPE_CHECKING:
    from otelwp_agent.model.attributes import Attributes

Mode = Literal["proportional", "equalizing", "hash_seed"]

PRIORITY = b"sampling.priority"
"""The span attribute that overrides the probability (OpenTracing's semantic conventions)."""
THRESHOLD = b"sampling.threshold"
RANDOMNESS = b"sampling.randomness"
"""Attributes of a log record that correspond to `th` and `rv` of a span."""

BY_TRACE_ID = "trace_id_w3c"
BY_HASH = "trace_id_hash"
"""Names of the most frequent policies in the Collector's metrics."""

_NO_TRACE_ID = bytes(16)


class ItemVerdict(IntEnum):
    """The result for an item: kept, or why not."""

    KEPT = 0
    SAMPLED_OUT = 1
    MISSING_RANDOMNESS = 2
    INCONSISTENT_THRESHOLD = 3
    """The item has a threshold that should have dropped it already."""
    MALFORMED_SAMPLING = 4
    """The sampling information of the item is invalid."""
    SAMPLING_IN_USE = 5
    """The item was sampled by trace state before, which cannot be combined with hashing (`hash_seed`)."""


class Judgement(NamedTuple):
    """A verdict, the item to forward, and the policy that decided, named as in the Collector's metrics."""

    verdict: ItemVerdict
    data: bytes
    policy: str


class _Found(NamedTuple):
    """Sampling information of an item."""

    threshold: int | None
    randomness: int | None
    fresh: bool
    """Whether the randomness must be written into the item, because later samplers cannot derive it."""
    policy: str
    error: ItemVerdict


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the samplers of both signals."""

    mode: Mode
    threshold: int
    """Threshold of the configured probability."""
    probability: float
    precision: int
    """Hexadecimal digits of thresholds, from 1 to 14."""
    seed: int = 0
    """Seed of hashes, 32 bits."""
    fail_closed: bool = True

    def decide(self, arrived: int | None) -> int:
        """Return the threshold for an item that arrived with the threshold `arrived`."""
        if arrived is None or self.mode != "proportional":
            return self.threshold
        return max(arrived, threshold_of(probability_of(arrived) * self.probability, self.precision))


class ItemSampler(ABC):
    """Samples items of one signal."""

    def __init__(self, settings: Settings) -> None:
        """Sample according to `settings`."""
        self.settings = settings

    @abstractmethod
    def judge(self, data: bytes) -> Judgement:
        """Decide about one serialized item; raise `MalformedError` if it does not parse."""


class SpanSampler(ItemSampler):
    """Samples spans by trace id and trace state."""

    def judge(self, data: bytes) -> Judgement:
        """Decide about one serialized span."""
        try:
            span = pb.SampledSpan.FromString(data)
        except DecodeError as error:
            raise MalformedError("a span is not valid protobuf") from error
        priority = _priority(span.attributes, PRIORITY)
        if priority == 0:
            return Judgement(ItemVerdict.SAMPLED_OUT, data, "sampling_priority")
        state = TraceState.parse(span.trace_state.decode(errors="surrogateescape"))
        found = self._find(span.trace_id, state)
        if priority is not None and priority > 0:
            # Kept independent of probability: without a threshold, so that it is not counted as representing others.
            state, policy = state.with_threshold(None), "sampling_priority"
        elif found.error:
            policy = found.policy
            if self.settings.fail_closed:
                return Judgement(found.error, data, policy)
            if found.error is ItemVerdict.INCONSISTENT_THRESHOLD:
                state = state.with_threshold(None)
        else:
            policy = found.policy
            threshold = self.settings.decide(found.threshold)
            assert found.randomness is not None  # noqa: S101 - else there was an error
            if found.randomness < threshold:
                return Judgement(ItemVerdict.SAMPLED_OUT, data, policy)
            state = state.with_threshold(
                max(threshold, found.threshold or 0), found.randomness if found.fresh else None
            )
        text = state.text.encode(errors="surrogateescape")
        if text == span.trace_state:
            return Judgement(ItemVerdict.KEPT, data, policy)
        span.trace_state = text
        return Judgement(ItemVerdict.KEPT, span.SerializeToString(), policy)

    def _find(self, trace_id: bytes, state: TraceState) -> _Found:
        if self.settings.mode == "hash_seed":
            in_use = state.randomness is not None or state.threshold is not None
            randomness = hashed_randomness(trace_id or _NO_TRACE_ID, self.settings.seed)
            error = ItemVerdict.SAMPLING_IN_USE if in_use else ItemVerdict.KEPT
            found = _Found(state.threshold, randomness, fresh=True, policy=BY_HASH, error=error)
        elif state.randomness is not None:
            found = _checked(state.threshold, state.randomness, policy="sampling_randomness")
        else:
            found = _checked(state.threshold, randomness_of(trace_id), policy=BY_TRACE_ID)
        return found if state.valid else found._replace(error=ItemVerdict.MALFORMED_SAMPLING)


class LogSampler(ItemSampler):
    """Samples log records by trace id or by an attribute."""

    def __init__(self, settings: Settings, *, trace_id: bool = True, attribute: str = "", priority: str = "") -> None:
        """Take the randomness from the trace id if `trace_id` is set, else (or if there is none) from `attribute`.

        The attribute `priority` is the percentage that an item requests: 0 drops it, other values can only raise its
        probability.
        """
        super().__init__(settings)
        self._trace_id = trace_id
        self._attribute = attribute
        self._priority = priority.encode()

    def judge(self, data: bytes) -> Judgement:
        """Decide about one serialized log record."""
        try:
            record = pb.SampledLog.FromString(data)
        except DecodeError as error:
            raise MalformedError("a log record is not valid protobuf") from error
        settings = self.settings
        found = self._find(record)
        threshold = settings.decide(found.threshold)
        if found.error:
            threshold = NEVER if settings.fail_closed else 0
        policy = found.policy
        priority = _priority(record.attributes, self._priority) if self._priority else None
        if priority is not None and priority >= 0:
            asked = threshold_of(min(priority / 100, 1.0), settings.precision)
            if priority == 0 or asked < threshold:
                threshold, policy = asked, "sampling_priority"
        if (NEVER - 1 if found.randomness is None else found.randomness) < threshold:
            sampled_out = policy == "sampling_priority" or not found.error
            return Judgement(ItemVerdict.SAMPLED_OUT if sampled_out else found.error, data, policy)
        changed = False
        if found.error is ItemVerdict.INCONSISTENT_THRESHOLD:
            changed = _remove(record.attributes, THRESHOLD)
        elif not found.error:
            text = format_threshold(max(threshold, found.threshold or 0))
            changed = put(record.attributes, THRESHOLD, _string(text))
            if found.fresh:
                assert found.randomness is not None  # noqa: S101 - else there was an error
                changed |= put(record.attributes, RANDOMNESS, _string(format_randomness(found.randomness)))
        return Judgement(ItemVerdict.KEPT, record.SerializeToString() if changed else data, policy)

    def _find(self, record: pb.SampledLog) -> _Found:
        hashing = self.settings.mode == "hash_seed"
        threshold_text = _text_of(record.attributes, THRESHOLD)
        randomness_text = _text_of(record.attributes, RANDOMNESS)
        threshold = parse_threshold(threshold_text)
        randomness = parse_randomness(randomness_text)
        malformed = bool(threshold_text) is (threshold is None) or bool(randomness_text) is (randomness is None)
        if randomness is not None and not hashing:
            found = _checked(threshold, randomness, policy="sampling_randomness")
        elif self._trace_id and any(record.trace_id) and hashing:
            hashed = hashed_randomness(record.trace_id, self.settings.seed)
            found = _checked(threshold, hashed, policy=BY_HASH, fresh=True)
        elif self._trace_id and any(record.trace_id):
            found = _checked(threshold, randomness_of(record.trace_id), policy=BY_TRACE_ID)
        else:
            found = _checked(threshold, self._hashed(record.attributes), policy=self._attribute, fresh=True)
        if malformed:
            return found._replace(error=ItemVerdict.MALFORMED_SAMPLING)
        if hashing and (threshold is not None or randomness is not None):
            return found._replace(error=ItemVerdict.SAMPLING_IN_USE)
        return found

    def _hashed(self, attributes: Attributes) -> int | None:
        """Return the randomness computed from the configured attribute, or `None`."""
        attribute = find(attributes, self._attribute.encode()) if self._attribute else None
        if attribute is None:
            return None
        value = decode(attribute.value)
        data = value.bytes_value if value.WhichOneof("value") == "bytes_value" else as_string(value).encode()
        return hashed_randomness(data, self.settings.seed) if data else None


def _checked(threshold: int | None, randomness: int | None, *, policy: str, fresh: bool = False) -> _Found:
    """Return the sampling information, with an error if it is missing or inconsistent."""
    if randomness is None:
        return _Found(threshold, None, fresh=False, policy="missing_randomness", error=ItemVerdict.MISSING_RANDOMNESS)
    inconsistent = threshold is not None and randomness < threshold
    error = ItemVerdict.INCONSISTENT_THRESHOLD if inconsistent else ItemVerdict.KEPT
    return _Found(threshold, randomness, fresh=fresh, policy=policy, error=error)


def _priority(attributes: Attributes, key: bytes) -> float | None:
    """Return a priority, which senders write as an integer, a double or text; `None` if there is none."""
    attribute = find(attributes, key)
    if attribute is None:
        return None
    value = decode(attribute.value)
    kind = value.WhichOneof("value")
    if kind not in ("int_value", "double_value", "string_value"):
        return None
    try:
        number = float(as_string(value))
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _text_of(attributes: Attributes, key: bytes) -> str:
    """Return an attribute's text; "" if it is missing or not text."""
    attribute = find(attributes, key)
    return "" if attribute is None else decode(attribute.value).string_value.decode(errors="replace")


def _string(text: str) -> bytes:
    return pb.AnyValue(string_value=text.encode()).SerializeToString()


def _remove(attributes: Attributes, key: bytes) -> bool:
    indexes = [index for index, attribute in enumerate(attributes) if attribute.key == key]
    for index in reversed(indexes):
        del attributes[index]
    return bool(indexes)
