"""Consistent probability sampling: the arithmetic and its representation in `tracestate`.

Every trace has a randomness R of 56 bits: the low 7 bytes of its id (W3C Trace Context level 2), or `ot=rv:` in its
trace state. A sampler of probability p has the threshold T = (1 - p) * 2**56 and keeps a trace if R >= T. So all
samplers agree, and a trace kept with a lower p is also kept with a higher one. `ot=th:` carries T to readers that
count: a kept item represents 2**56 / (2**56 - T) items. From OpenTelemetry's specification "TraceState: Probability
Sampling" (OTEP 235).

Thresholds and randomness are ints here: T from 0 (keep all) to `NEVER` (keep none), R from 0 to `NEVER` - 1.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, replace

BITS = 56
"""Bits of a randomness and of a threshold."""

DIGITS = BITS // 4
"""Hexadecimal digits that hold them."""

NEVER = 1 << BITS
"""The threshold that no randomness reaches."""

ALWAYS = 0
"""The threshold that every randomness reaches."""

MIN_PROBABILITY = 1 / NEVER
"""The smallest probability above 0 that a threshold can express."""

_SMALL = 1 / 4096
"""Probability up to which a short threshold gets more digits."""
_UNIT = 2.0**-32

_THRESHOLD = re.compile(r"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(r"[0-9a-f]{14}")

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193
_HASH_BITS = 14


def threshold_of(probability: float, precision: int = DIGITS) -> int:
    """Return the threshold of a probability from 0 to 1, with `precision` significant hexadecimal digits.

    Leading digits `0` and `f` do not count as significant: near 0 and near 1 more digits are kept, so that the relative
    error stays the same. Probabilities too small for a threshold (below 2**-56) give `NEVER`.
    """
    if probability < MIN_PROBABILITY:
        return NEVER
    if probability >= 1:
        return ALWAYS
    leading = max(-math.frexp(probability)[1], -math.frexp(1 - probability)[1]) // 4
    digits = min(DIGITS, precision + max(leading, 0))
    threshold = NEVER - round(probability * NEVER)
    unit = 1 << 4 * (DIGITS - digits)
    return (threshold + unit // 2) // unit * unit


def threshold_near(probability: float) -> int:
    """Return a threshold with a short text whose probability is within 1/8000 of `probability`.

    Each span carries the text, and `ot=` may have at most 256 bytes.
    """
    if probability >= 1:
        return ALWAYS
    if probability <= 0:
        return NEVER
    bits = 24 if probability > _SMALL else 44
    return NEVER - (max(round(probability * (1 << bits)), 1) << BITS - bits)


def lowered(threshold: int, factor: float) -> int:
    """Return `threshold_near` of a threshold's probability times `factor`, which is at most 1."""
    kept = (NEVER - threshold) * factor
    if kept > _SMALL * NEVER:  # the most frequent case: the same result in a third of the time
        return NEVER - (round(kept * _UNIT) << 32)
    return threshold_near(kept / NEVER)


def probability_of(threshold: int) -> float:
    """Return the probability with which a threshold keeps items."""
    return (NEVER - threshold) / NEVER


def adjusted_count(threshold: int) -> float:
    """Return how many items a kept item represents; 0 for `NEVER`, which keeps none."""
    return NEVER / (NEVER - threshold) if threshold < NEVER else 0.0


def format_threshold(threshold: int) -> str:
    """Return a threshold below `NEVER` in the format of `th` and `sampling.threshold`.

    That is hexadecimal without trailing zeros.
    """
    return f"{threshold:014x}".rstrip("0") or "0"


def parse_threshold(text: str) -> int | None:
    """Parse the format of `format_threshold`; return `None` if the text is invalid."""
    return int(text.ljust(DIGITS, "0"), 16) if _THRESHOLD.fullmatch(text) else None


def format_randomness(randomness: int) -> str:
    """Return a randomness in the format of `rv` and `sampling.randomness`: 14 hexadecimal digits."""
    return f"{randomness:014x}"


def parse_randomness(text: str) -> int | None:
    """Parse the format of `format_randomness`; return `None` if the text is invalid."""
    return int(text, 16) if _RANDOMNESS.fullmatch(text) else None


def randomness_of(trace_id: bytes) -> int | None:
    """Return the randomness in a trace id of 16 bytes; `None` if the id is invalid (other lengths, all zero)."""
    if len(trace_id) != 16 or not any(trace_id):  # noqa: PLR2004 - the length of a trace id
        return None
    return int.from_bytes(trace_id[9:], "big")


def hashed_randomness(data: bytes, seed: int) -> int:
    """Return a randomness computed from `data` by 32-bit FNV-1a after the seed's four bytes, least significant first.

    Only the low 14 bits of the hash decide, so that decisions agree with the Collector's `hash_seed` mode: an item
    whose 14 bits are below the accepted number of buckets is kept. Their inverse is the randomness's highest 14 bits.
    The lower bits are 28 bits mixed from the hash's other 18, then the 14 bits again.
    """
    value = _FNV_OFFSET
    for byte in seed.to_bytes(4, "little") + data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    buckets = (1 << _HASH_BITS) - 1
    low = value & buckets
    high = value >> 32 - _HASH_BITS
    return (buckets - low) << 42 | (high ^ high << 10) << 14 | low


def hashed_threshold(percentage: float) -> int:
    """Return the threshold of a percentage from 0 to 100 in the 14 bits that `hashed_randomness` uses.

    Computed in single precision and rounded down, to agree with the Collector.
    """
    accepted = int(single(single(percentage) * single((1 << _HASH_BITS) / 100)))
    return (1 << _HASH_BITS) - accepted << BITS - _HASH_BITS


def single(number: float) -> float:
    """Round a number to single precision, as the Collector does with percentages."""
    nearest: float = struct.unpack("f", struct.pack("f", number))[0]
    return nearest


@dataclass(frozen=True, slots=True)
class TraceState:
    """A W3C trace state with OpenTelemetry's entry (`ot=`) parsed and all other entries unchanged.

    `valid` is false if `th` or `rv` exists but is invalid; it then counts as absent, and the text stays unchanged.
    """

    text: str
    threshold: int | None = None
    randomness: int | None = None
    valid: bool = True

    @classmethod
    def parse(cls, text: str) -> TraceState:
        """Parse a trace state; "" is an empty one."""
        if "ot=" not in text:
            return cls(text)
        threshold = randomness = None
        valid = True
        for part in _own_entry(text)[0]:
            key, _, value = part.partition(":")
            if key == "th":
                threshold = parse_threshold(value)
                valid = valid and threshold is not None
            elif key == "rv":
                randomness = parse_randomness(value)
                valid = valid and randomness is not None
        return cls(text, threshold, randomness, valid)

    def with_threshold(self, threshold: int | None, randomness: int | None = None) -> TraceState:
        """Return a copy with `th` set (`None` removes it), and `rv` if given.

        The `ot` entry moves to the front, as W3C requires.
        """
        own, others = _own_entry(self.text)
        parts = [part for part in own if not part.startswith("th:")]
        if randomness is not None:
            parts = [f"rv:{format_randomness(randomness)}", *(part for part in parts if not part.startswith("rv:"))]
        if threshold is not None:
            parts.insert(0, f"th:{format_threshold(threshold)}")
        entries = ["ot=" + ";".join(parts), *others] if parts else others
        kept = self.randomness if randomness is None else randomness
        return replace(self, text=",".join(entries), threshold=threshold, randomness=kept)


def _own_entry(text: str) -> tuple[list[str], list[str]]:
    """Return the parts of OpenTelemetry's entry, and the other entries unchanged."""
    own: list[str] = []
    others: list[str] = []
    for raw in text.split(","):
        entry = raw.strip()
        if entry.startswith("ot="):
            own += [part for part in entry[3:].split(";") if part]
        elif entry:
            others.append(entry)
    return own, others
