"""Consistent probability sampling: the arithmetic, and the words for it in `tracestate`.

Every trace has a randomness R of 56 bits: the low 7 bytes of its id (W3C Trace Context level 2), or `ot=rv:` in its
trace state. A sampler of probability p has the threshold T = (1 - p) * 2**56 and keeps what has R >= T: samplers agree
everywhere, and what a lower p keeps, a higher one keeps as well. `ot=th:` tells T to whoever counts: an item stands for
2**56 / (2**56 - T) of them. From OpenTelemetry's specification "TraceState: Probability Sampling" (OTEP 235).

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
"""The threshold that nothing reaches."""

ALWAYS = 0
"""The threshold that everything reaches."""

MIN_PROBABILITY = 1 / NEVER
"""The smallest probability above 0 that a threshold can express."""

_SMALL = 1 / 4096
"""Probabilities up to which a threshold that is to be short gets more digits."""
_UNIT = 2.0**-32

_THRESHOLD = re.compile(r"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(r"[0-9a-f]{14}")

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193
_HASH_BITS = 14


def threshold_of(probability: float, precision: int = DIGITS) -> int:
    """Return the threshold of a probability from 0 to 1, to `precision` significant hexadecimal digits.

    Leading digits `0` and `f` do not count as significant: near 0 and near 1 more digits are kept, so that the relative
    error stays. Probabilities too small for a threshold (below 2**-56) give `NEVER`.
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
    """Return a threshold whose probability is within 1/8000 of `probability`, and whose text is short.

    Tracestate has 256 bytes for all of `ot=`, and each span carries it.
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
    if kept > _SMALL * NEVER:  # as it mostly is: the same, for a third of the time
        return NEVER - (round(kept * _UNIT) << 32)
    return threshold_near(kept / NEVER)


def probability_of(threshold: int) -> float:
    """Return the probability with which a threshold keeps."""
    return (NEVER - threshold) / NEVER


def adjusted_count(threshold: int) -> float:
    """Return how many items one that was kept stands for; 0 for `NEVER`, which keeps none."""
    return NEVER / (NEVER - threshold) if threshold < NEVER else 0.0


def format_threshold(threshold: int) -> str:
    """Return a threshold below `NEVER` as `th` and `sampling.threshold` write it: hexadecimal, trailing zeros off."""
    return f"{threshold:014x}".rstrip("0") or "0"


def parse_threshold(text: str) -> int | None:
    """Read what `format_threshold` writes; `None` if it is not that."""
    return int(text.ljust(DIGITS, "0"), 16) if _THRESHOLD.fullmatch(text) else None


def format_randomness(randomness: int) -> str:
    """Return a randomness as `rv` and `sampling.randomness` write it: 14 hexadecimal digits."""
    return f"{randomness:014x}"


def parse_randomness(text: str) -> int | None:
    """Read what `format_randomness` writes; `None` if it is not that."""
    return int(text, 16) if _RANDOMNESS.fullmatch(text) else None


def randomness_of(trace_id: bytes) -> int | None:
    """Return the randomness in a trace id of 16 bytes; `None` if it is no valid one (other lengths, all zero)."""
    if len(trace_id) != 16 or not any(trace_id):  # noqa: PLR2004 - the length of a trace id
        return None
    return int.from_bytes(trace_id[9:], "big")


def hashed_randomness(data: bytes, seed: int) -> int:
    """Return a randomness made from `data` by 32-bit FNV-1a after the seed's four bytes, least significant first.

    Only the low 14 bits of the hash decide, so that decisions agree with the Collector's `hash_seed` mode: an item
    whose 14 bits are below the accepted number of buckets is kept. Inverted, they are the randomness's highest 14 bits;
    below them follow 28 bits mixed from the hash's other 18, and the 14 bits again.
    """
    value = _FNV_OFFSET
    for byte in seed.to_bytes(4, "little") + data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    buckets = (1 << _HASH_BITS) - 1
    low = value & buckets
    high = value >> 32 - _HASH_BITS
    return (buckets - low) << 42 | (high ^ high << 10) << 14 | low


def hashed_threshold(percentage: float) -> int:
    """Return the threshold of a percentage from 0 to 100 in the 14 bits that `hashed_randomness` decides by.

    In single precision and rounded down, to agree with the Collector.
    """
    accepted = int(single(single(percentage) * single((1 << _HASH_BITS) / 100)))
    return (1 << _HASH_BITS) - accepted << BITS - _HASH_BITS


def single(number: float) -> float:
    """Return the nearest number of single precision, which the Collector reads percentages in."""
    nearest: float = struct.unpack("f", struct.pack("f", number))[0]
    return nearest


@dataclass(frozen=True, slots=True)
class TraceState:
    """A W3C trace state, with OpenTelemetry's entry (`ot=`) read and everyone else's left as it is.

    `valid` is false if `th` or `rv` is there but cannot be read; it then counts as absent, and the text stays.
    """

    text: str
    threshold: int | None = None
    randomness: int | None = None
    valid: bool = True

    @classmethod
    def parse(cls, text: str) -> TraceState:
        """Read a trace state; "" is an empty one."""
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
        """Return it with `th` set (`None` erases it), and `rv` if given; our entry moves to the front, as W3C asks."""
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
    """Return the parts of OpenTelemetry's entry, and the other entries as they stand."""
    own: list[str] = []
    others: list[str] = []
    for raw in text.split(","):
        entry = raw.strip()
        if entry.startswith("ot="):
            own += [part for part in entry[3:].split(";") if part]
        elif entry:
            others.append(entry)
    return own, others
