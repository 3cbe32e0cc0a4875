"""Ids, times and values as they come in JSON, from senders who never heard what belongs there.

Those that mend return the kind of mending that it took, too, "" for none.
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
"""Ranges of a time stamp between 1973 and 5138 in seconds, milliseconds and nanoseconds: from, to, nanoseconds each."""

MICROSECOND = 1000
"""Nanoseconds of the unit that Jaeger's JSON has."""

MAX_TIME = (1 << 64) - 1
"""The last nanosecond of a `fixed64`."""

_MIN_HEX = 16
"""Digits of a 64-bit id: short trace ids of that length are Jaeger's own."""


def identifier(value: Any, size: int) -> tuple[bytes, str]:  # noqa: ANN401 - whatever stands in the JSON
    """Return an id of `size` bytes; empty if there is none.

    Shorter ones are padded on the left, of longer ones the end is kept; what is not hex is hashed, so that whoever
    refers to it still does.
    """
    if type(value) is int and value > 0:
        return (value & ((1 << 8 * size) - 1)).to_bytes(size, "big"), "id_number"
    if type(value) is not str:
        return b"", ""
    digits = value.strip().lower().removeprefix("0x").replace("-", "")
    mended = "" if digits == value.lower() else "id_spelling"
    try:
        raw = unhexlify(digits.zfill(len(digits) + len(digits) % 2))
    except ValueError:
        return blake2b(value.encode(), digest_size=size).digest(), "id_hashed"
    if len(raw) < size:
        mended = mended or ("" if len(digits) == _MIN_HEX else "id_padded")
        raw = raw.rjust(size, b"\0")
    elif len(raw) > size:
        raw, mended = raw[-size:], "id_cut"
    return (raw, mended) if any(raw) else (b"", "")


def number(value: Any) -> int | float | None:  # noqa: ANN401 - whatever stands in the JSON
    """Return the number that `value` is, or is the text of; `None` if it is none."""
    if type(value) is str:
        try:
            value = orjson.loads(value.strip())
        except orjson.JSONDecodeError:
            return None
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    return None


def time(value: Any) -> tuple[int, int, str]:  # noqa: ANN401 - whatever stands in the JSON
    """Return a time in nanoseconds, the nanoseconds of its unit, which its magnitude tells, and what was mended.

    0 if there is none. Numbers, their text, and ISO 8601.
    """
    stamp = number(value)
    if stamp is None:
        moment = _iso(value)
        return moment, MICROSECOND, "time_text" if moment else "time_missing"
    mended = "" if type(value) is int else "time_float" if type(value) is float else "time_text"
    for low, high, unit, kind in _UNITS:
        if low <= stamp < high and stamp * unit <= MAX_TIME:
            return nanoseconds(stamp, unit), unit, kind
    if not 0 < stamp * MICROSECOND <= MAX_TIME:
        return 0, MICROSECOND, "time_missing"
    return nanoseconds(stamp, MICROSECOND), MICROSECOND, mended


def nanoseconds(value: float, unit: int) -> int:
    """Return `value` units in nanoseconds; a float's are rounded to microseconds, below which a float holds nothing."""
    if type(value) is int:
        return value * unit
    if unit > MICROSECOND:
        return round(value * (unit // MICROSECOND)) * MICROSECOND
    return int(value) * unit + round(value % 1 * unit)


def duration(value: Any, unit: int) -> tuple[int, str]:  # noqa: ANN401 - whatever stands in the JSON
    """Return a duration of `unit`s in nanoseconds, and what was mended: a negative one is 0."""
    length = number(value)
    if length is None:
        return 0, "duration_missing"
    if length < 0:
        return 0, "negative_duration"
    if length * unit > MAX_TIME:
        return 0, "duration_out_of_range"
    mended = "" if type(value) is not str else "time_text"
    if unit == 1 or type(length) is int:
        return nanoseconds(length, unit), mended
    return round(length * unit), mended


def text(value: Any) -> str:  # noqa: ANN401 - whatever stands in the JSON
    """Return a JSON value as text; what is nested too deeply to be written has none."""
    if type(value) is str:
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "…"


def _iso(value: Any) -> int:  # noqa: ANN401 - whatever stands in the JSON
    """Return a date and time as nanoseconds since 1970, or 0."""
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        microseconds = (moment - _EPOCH) // datetime.resolution
    except (ValueError, AttributeError, TypeError, OverflowError):
        return 0
    return max(0, microseconds) * MICROSECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
