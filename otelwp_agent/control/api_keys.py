"""Create, parse and check API keys: `wpo_live_<id>_<secret><crc32>`.

* `id`: 16 characters of a-z and 2-7 (80 random bits). It is public: lists, logs and metrics show it.
* `secret`: 32 characters of a-z and 2-7 (160 random bits).
* `crc32`: checksum of all characters before it, 8 hexadecimal digits. Typing errors and truncated keys are found
  without the store, and scanners for leaked secrets can recognize keys.

The store keeps only HMAC-SHA-256 of the whole key, with a secret `pepper` that is not in the store: a copy of the
store does not help to guess keys. Operators' tokens have the same form with another prefix: `wpo_op_…`.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import zlib
from enum import Enum
from hashlib import sha256
from typing import NamedTuple

API_KEY = "wpo_live_"
"""Prefix of API keys."""
OPERATOR_TOKEN = "wpo_op_"  # noqa: S105 - a prefix
"""Prefix of operators' tokens."""

ID_LENGTH = 16
SECRET_LENGTH = 32
CRC_LENGTH = 8

_ID_BYTES = ID_LENGTH * 5 // 8
_SECRET_BYTES = SECRET_LENGTH * 5 // 8
_BLOCK = 64
"""Bytes in a block of SHA-256."""

_TAIL_LENGTH = ID_LENGTH + 1 + SECRET_LENGTH + CRC_LENGTH
"""Characters after the prefix."""


class Scope(Enum):
    """Permissions of an API key."""

    INGEST = "ingest"
    """Send telemetry."""
    HEARTBEAT = "heartbeat"
    """Send heartbeats of an installation."""
    OPS_READ = "ops:read"
    """Read the state of the tenant."""
    OPS_WRITE = "ops:write"
    """Change the settings of the tenant."""
    USAGE = "usage"
    """Read the usage of the tenant."""


class NewCredential(NamedTuple):
    """A new API key or operator token. `text` is shown once and never stored."""

    id: str
    text: str
    hash: bytes


class Hasher:
    """Hashes credentials with HMAC-SHA-256.

    The states of SHA-256 after the padded pepper (RFC 2104) are kept, which makes a check faster than `hmac.digest`.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, pepper: bytes) -> None:
        """Use `pepper` as the key of the HMAC."""
        key = (sha256(pepper).digest() if len(pepper) > _BLOCK else pepper).ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))

    def hash(self, text: str) -> bytes:
        """Return the HMAC-SHA-256 of a credential, 32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.digest()

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        """Return the HMAC-SHA-256 of data that are no credential; `purpose` begins like no credential."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(purpose)
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()

    def signed(self, purpose: bytes, data: bytes, signature: bytes) -> bool:
        """Return whether `signature` is that of `data`."""
        return hmac.compare_digest(self.sign(purpose, data), signature)

    def matches(self, text: str, hash_: bytes) -> bool:
        """Return whether `hash_` is the hash of `text`. The time that this takes does not depend on the result."""
        return hmac.compare_digest(self.hash(text), hash_)

    def fingerprint(self) -> str:
        """Return a text that identifies the pepper without revealing it."""
        return self.hash("fingerprint of the pepper of a control store").hex()


def generate(hasher: Hasher, prefix: str = API_KEY) -> NewCredential:
    """Return a new random API key, or an operator's token if `prefix` is `OPERATOR_TOKEN`."""
    id_ = _random(_ID_BYTES)
    body = f"{prefix}{id_}_{_random(_SECRET_BYTES)}"
    text = f"{body}{zlib.crc32(body.encode()):08x}"
    return NewCredential(id_, text, hasher.hash(text))


def parse(text: str, prefix: str = API_KEY) -> str | None:
    """Return the id in a credential, or `None` if its form or checksum is invalid."""
    start = len(prefix)
    middle = start + ID_LENGTH
    if (
        len(text) != start + _TAIL_LENGTH
        or not text.startswith(prefix)
        or text[middle] != "_"
        or not text.isascii()
        or f"{zlib.crc32(text[:-CRC_LENGTH].encode()):08x}" != text[-CRC_LENGTH:]
    ):
        return None
    return text[start:middle]


def _random(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().lower()
