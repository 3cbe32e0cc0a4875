"""Parse JSON Web Signatures in the compact form (RFC 7515, 7.1) strictly, without cryptography.

The caller verifies the signature afterwards. Everything in a `CompactJws` is unverified until then.
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEADER = 4 * 2**10
"""Maximum length of the encoded header."""

_PARTS = 3


class MalformedJwsError(ValueError):
    """A text is not a JWS in the compact form."""


@dataclass(frozen=True, slots=True)
class CompactJws:
    """The parts of a JWS whose signature has not been verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    """The bytes that the signature covers."""
    signature: bytes


def read_jws(text: str, *, max_length: int) -> CompactJws:
    """Parse a JWS whose payload is a JSON object; raise `MalformedJwsError` with the reason.

    A text longer than `max_length` is not parsed. Refused too are repeated names, which two parsers could read
    differently (RFC 7519, 4), and the header fields `crit` and `b64`: no extension is supported (RFC 7515, 4.1.11).
    """
    if len(text) > max_length:
        message = f"it is longer than {max_length} characters"
        raise MalformedJwsError(message)
    parts = text.split(".", _PARTS)
    if len(parts) != _PARTS or len(parts[0]) > MAX_HEADER:
        raise MalformedJwsError("it does not have three parts separated by dots, as a JWS has")
    header = _object(parts[0], "header")
    if "crit" in header or "b64" in header:
        raise MalformedJwsError("its header requires an extension (`crit`, `b64`)")
    claims = _object(parts[1], "payload")
    signed, _, signature = text.rpartition(".")
    try:
        return CompactJws(header, claims, signed.encode("ascii"), decode_base64url(signature))
    except ValueError:
        raise MalformedJwsError("its signature is not base64url") from None


def decode_base64url(text: str) -> bytes:
    """Return the bytes of base64url without padding (RFC 7515, 2); raise `ValueError`."""
    raw = text.encode("ascii")
    if b"+" in raw or b"/" in raw:  # Python accepts both alphabets
        raise ValueError("this is base64, not base64url")
    return b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)


def _object(part: str, what: str) -> dict[str, Any]:
    """Return the JSON object in an encoded part."""
    try:
        text = decode_base64url(part).decode("utf-8")
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        message = f"its {what} is not JSON in base64url"
        raise MalformedJwsError(message) from None
    if not isinstance(found, dict):
        message = f"its {what} is not a JSON object"
        raise MalformedJwsError(message)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)
