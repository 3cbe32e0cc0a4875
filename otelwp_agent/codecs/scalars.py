"""Convert ids, times and values in JSON, in every form that senders use.

Functions that repair invalid values also return the kind of the repair, "" for none.
"""

from __future__ import annotations

import math
from binascii import unhexlify
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

_UNITS = (
    (10**8, 10**11, 10**9, "time_in_s"),
    (10**11, 10**14, 10**6, "time_in_ms"),
    (10**17, 1 << 64, 1, "time_in_ns"),
)
"""Ranges of time stamps between 1973 and 5138 in seconds, milliseconds and nanoseconds: from, to, unit in nanoseconds.
"""

MICROSECOND = 1000
"""Nanoseconds in a microsecond, the unit of Jaeger's JSON."""

MAX_TIME = (1 << 64) - 1
"""The largest time that a `fixed64` can contain, in nanoseconds."""

_MIN_HEX = 16
"""Number of digits of a 64-bit id: Jaeger itself uses trace ids of this length."""


def identifier(value: Any, size: int) -> tuple[bytes, str]:  # noqa: ANN401 - any JSON value
    """Return an id of `size` bytes, and the kind of the repair; the id is empty if `value` contains none.

    Shorter ids are padded on the left, and of longer ids the end is kept. A value that is not hexadecimal is hashed, so
    that references to it still match.
    """
    if type(value) is int and value > 0:
        return (value & ((1 << 8 * size) - 1)).to_bytes(size, "big"), "id_number"
    if type(value) is not str:
        return b"", ""
    digits = value.strip().lower().removeprefix("0x").replace("-", "")
    repair = "" if digits == value.lower() else "id_spelling"
    try:
        raw = unhexlify(digits.zfill(len(digits) + len(digits) % 2))
    except ValueError:
        return blake2b(value.encode(), digest_size=size).digest(), "id_hashed"
    if len(raw) < size:
        repair = repair or ("" if len(digits) == _MIN_HEX else "id_padded")
        raw = raw.rjust(size, b"\0")
    elif len(raw) > size:
        raw, repair = raw[-size:], "id_cut"
    return (raw, repair) if any(raw) else (b"", "")


def number(value: Any) -> int | float | None:  # noqa: ANN401 - any JSON value
    """Return the number in `value`, which is a number or its text; `None` without a number."""
    if type(value) is str:
        try:
            value = orjson.loads(value.strip())
        except orjson.JSONDecodeError:
            return None
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    return None


def time(value: Any) -> tuple[int, int, str]:  # noqa: ANN401 - any JSON value
    """Return a time in nanoseconds, its unit in nanoseconds, and the kind of the repair.

    The time is 0 if there is none. `value` may be a number, the text of a number, or ISO 8601. The magnitude of a
    number determines the unit.
    """
    if value is None:
        return 0, MICROSECOND, "time_missing"
    stamp = number(value)
    if stamp is None:
        moment = _iso(value)
        return moment, MICROSECOND, "time_text" if moment else "time_missing"
    repair = "" if type(value) is int else "time_float" if type(value) is float else "time_text"
    for low, high, unit, kind in _UNITS:
        if low <= stamp < high and stamp * unit <= MAX_TIME:
            return nanoseconds(stamp, unit), unit, kind
    if not 0 < stamp * MICROSECOND <= MAX_TIME:
        return 0, MICROSECOND, "time_missing"
    return nanoseconds(stamp, MICROSECOND), MICROSECOND, repair


def nanoseconds(value: float, unit: int) -> int:
    """Convert `value` units to nanoseconds.

    A float is rounded to microseconds, because it has no higher precision.
    """
    if type(value) is int:
        return value * unit
    if unit > MICROSECOND:
        return round(value * (unit // MICROSECOND)) * MICROSECOND
    return int(value) * unit + round(value % 1 * unit)


def duration(value: Any, unit: int) -> tuple[int, str]:  # noqa: ANN401 - any JSON value
    """Return a duration in nanoseconds, and the kind of the repair; `unit` is in nanoseconds.

    A negative duration becomes 0.
    """
    length = number(value)
    if length is None:
        return 0, "duration_missing"
    if length < 0:
        return 0, "negative_duration"
    if length * unit > MAX_TIME:
        return 0, "duration_out_of_range"
    repair = "" if type(value) is not str else "time_text"
    if unit == 1 or type(length) is int:
        return nanoseconds(length, unit), repair
    return round(length * unit), repair


def text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return a JSON value as text; "…" if it is nested too deeply to be serialized."""
    if type(value) is str:
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "…"


def _iso(value: Any) -> int:  # noqa: ANN401 - any JSON value
    """Return a date and time in ISO 8601 as nanoseconds since 1970, or 0."""
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        microseconds = (moment - _EPOCH) // datetime.resolution
    except (ValueError, AttributeError, TypeError, OverflowError):
        return 0
    return max(0, microseconds) * MICROSECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
