"""Check the values of operations; each function returns the value or raises `InvalidValueError`."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from otelwp_agent.control.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PAGE = 1000
"""Most rows in one page of a list."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_LONGEST_TITLE = 200
_MAX_ATTRIBUTES = 32
_LONGEST_ATTRIBUTE = 256


def name(value: str, what: str) -> str:
    """Check the identifier of a `what`: 1 to 63 of a-z, 0-9, `.`, `_` and `-`; a letter or digit at both ends."""
    if not _NAME.fullmatch(value):
        raise InvalidValueError(
            f"{_short(value)} is not a valid {what}: use 1 to 63 of a-z, 0-9, `.`, `_` and `-`, with a letter or digit "
            "at both ends"
        )
    return value


def title(value: str, what: str) -> str:
    """Check a name for people: 1 to 200 printable characters."""
    value = value.strip()
    if not value or len(value) > _LONGEST_TITLE or not value.isprintable():
        raise InvalidValueError(
            f"{_short(value)} is not a valid {what}: use 1 to {_LONGEST_TITLE} printable characters"
        )
    return value


def attributes(value: Mapping[str, str]) -> dict[str, str]:
    """Check the attributes of a tenant: up to 32 texts of up to 256 printable characters."""
    if len(value) > _MAX_ATTRIBUTES:
        raise InvalidValueError(f"{len(value)} attributes are too many: the most is {_MAX_ATTRIBUTES}")
    for key, text in value.items():
        for part in (key, text):
            if not isinstance(part, str) or len(part) > _LONGEST_ATTRIBUTE or not part.isprintable():
                raise InvalidValueError(
                    f"attribute {_short(key)}: names and values are texts of up to {_LONGEST_ATTRIBUTE} printable "
                    "characters"
                )
        if not key:
            raise InvalidValueError("an attribute needs a name: write NAME=VALUE")
    return dict(value)


def number(value: object, what: str) -> float:
    """Check a limit: a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise InvalidValueError(f"{what} must be a number above 0, not {_short(value)}; leave it out for no limit")
    return value


def future(value: datetime | None, now: datetime) -> datetime | None:
    """Check a time of expiry: aware and later than `now`, or `None`. Returns it in UTC."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise InvalidValueError(f"the time {value} has no time zone: append `Z` for UTC")
    if value <= now:
        raise InvalidValueError(f"the time of expiry {value.isoformat()} has passed: give a later one")
    return value.astimezone(UTC)


def page(limit: int) -> int:
    """Check the number of rows in a page."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidValueError(f"limit must be from 1 to {MAX_PAGE}, not {limit}")
    return limit


def _short(value: Any) -> str:  # noqa: ANN401 - of any type
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004 - a line
