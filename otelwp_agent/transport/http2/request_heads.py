"""The head of a request: its fields, checked by the rules of HTTP/2 (RFC 9113, sections 8.2 and 8.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelwp_agent.transport.http2.field_decoder import Field

TIMEOUT = b"grpc-timeout"
"""The one field that is not in `RequestHead.fields`: its value may differ in each call of a client."""

_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_IN_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_CONNECTION_FIELDS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_PSEUDO = (":method", ":scheme", ":path", ":authority")
_MAX_KNOWN = 4096
_MAX_KNOWN_TEXT = 256
_known_fields: dict[Field, tuple[str, str, str]] = {}
"""Short fields that were read: the rule that each breaks, and its name and value as text."""


class RequestHead:
    """A request's head. Names are lower case; values of repeated fields are joined by `, `."""

    __slots__ = ("authority", "base", "content_length", "fields", "meaning", "method", "path", "problem", "timeout")

    def __init__(self, fields: Iterable[Field]) -> None:
        """Check `fields`; if they break a rule, `problem` says which."""
        self.method = self.path = self.authority = ""
        self.fields: dict[str, str] = {}
        self.content_length: int | None = None
        self.timeout: bytes | None = None
        """The value of `grpc-timeout`."""
        self.meaning: Any = None
        """Kept for the server: what it has found out about the head, apart from the timeout."""
        self.base: RequestHead | None = None
        """The head with the same fields, apart from the timeout, that has the meaning; `None`: this one."""
        self.problem = self._read(fields)

    def with_timeout(self, timeout: bytes) -> RequestHead:
        """Return a head with the same fields and another timeout."""
        other = RequestHead.__new__(RequestHead)
        other.method, other.path, other.authority = self.method, self.path, self.authority
        other.fields, other.content_length, other.problem = self.fields, self.content_length, self.problem
        other.meaning = None
        other.base = self
        other.timeout = timeout
        return other

    def _read(self, fields: Iterable[Field]) -> str:  # noqa: C901 - one loop, for speed
        pseudo: dict[str, str] = {}
        regular = False
        repeated: dict[str, list[str]] = {}
        for field in fields:
            known = _known_fields.get(field)
            if known is None:
                known = _read_field(field)
            problem, key, text = known
            if problem:
                return problem
            if key[0] == ":":
                if regular or key in pseudo or key not in _PSEUDO:
                    return "a pseudo-header field is unknown, repeated or after the others"
                pseudo[key] = text
                continue
            regular = True
            if key in self.fields:
                repeated.setdefault(key, [self.fields[key]]).append(text)
            else:
                self.fields[key] = text
        for key, values in repeated.items():
            self.fields[key] = ", ".join(values)
        self.method, self.path = pseudo.get(":method", ""), pseudo.get(":path", "")
        self.authority = pseudo.get(":authority", "")
        if not (self.method and self.path and pseudo.get(":scheme")):
            return "a pseudo-header field is missing or empty"
        length = self.fields.get("content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= 18):  # noqa: PLR2004 - below 2**63
                return "the content-length is invalid"
            self.content_length = int(length)
        return ""


def _read_field(field: Field) -> tuple[str, str, str]:
    """Return which rule a field breaks, its name and its value; short fields are remembered."""
    name, value = field
    found = field_problem(name, value), name.decode("latin-1"), value.decode("latin-1")
    if len(name) + len(value) <= _MAX_KNOWN_TEXT:
        if len(_known_fields) >= _MAX_KNOWN:
            _known_fields.clear()
        _known_fields[field] = found
    return found


def field_problem(name: bytes, value: bytes) -> str:
    """Return which rule a field breaks, or an empty string."""
    if not _NAME.fullmatch(name):
        return "the name of a field is invalid"
    if name in _CONNECTION_FIELDS:
        return "a field is about the connection, which HTTP/2 does not allow"
    if name == b"te" and value != b"trailers":
        return "the field te is not trailers"
    if _BAD_IN_VALUE.search(value):
        return "the value of a field is invalid"
    return ""


def trailers_problem(fields: Iterable[Field]) -> str:
    """Return which rule the fields after a body break, or an empty string."""
    for name, value in fields:
        if name.startswith(b":"):
            return "a pseudo-header field is in the trailers"
        problem = field_problem(name, value)
        if problem:
            return problem
    return ""
