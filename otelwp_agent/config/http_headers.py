"""Rules for the HTTP headers that a configuration may add to requests."""

from __future__ import annotations

import re

FRAMING = frozenset({"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers that frame a message (RFC 9112). Only the HTTP client may write them."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def is_header_name(name: str) -> bool:
    """Whether `name` is a valid header name (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def header_problem(name: str, value: str) -> str | None:
    """Return why a header cannot be sent (RFC 9110, 5) without quoting its value; `None` if it can."""
    if not is_header_name(name):
        return f"{name!r} is not a header name: use letters, digits, `-` and `_`"
    if name.lower() in FRAMING:
        return f"{name!r} is written by the client itself: remove it"
    if not _VALUE.fullmatch(value):
        return f"the value of {name!r} contains a line break or another character that a header cannot carry"
    return None
