"""Encrypt parts of a file with the data key of that file.

Invariant: no two parts of a file are encrypted with the same nonce, because the nonce is the offset of the part in the
file, offsets only grow, and a data key is used for one file by one run of the agent. A run never writes to a file
that an earlier run has begun: it can only decrypt that.
"""

from __future__ import annotations

import os
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
TAG_BYTES = 16
"""Bytes that encryption adds to a part."""
_NONCE_BYTES = 12
_NEVER = 2**63


class FileCipher:
    """AES-256-GCM with the data key of one file."""

    __slots__ = ("_aead", "_end", "key")

    overhead = TAG_BYTES
    """Bytes that encryption adds to a part."""

    def __init__(self, key: bytes) -> None:
        """Decrypt the parts of a file that was written before."""
        self.key = key
        self._aead = AESGCM(key)
        self._end = _NEVER

    @classmethod
    def new(cls) -> Self:
        """Return a cipher for a new file, with a new key."""
        cipher = cls(os.urandom(KEY_BYTES))
        cipher._end = 0
        return cipher

    def may_encrypt(self, offset: int) -> bool:
        """Return whether no part at `offset` or behind it has been encrypted."""
        return offset >= self._end

    def encrypt(self, offset: int, plain: bytes, header: bytes) -> bytes:
        """Return the part that is to be written at `offset`; `header` is authenticated with it.

        Each offset must be larger than the one before; raises `ValueError` if it is not.
        """
        if offset < self._end:
            message = f"offset {offset} of this file has been encrypted before"
            raise ValueError(message)
        self._end = offset + 1
        return self._aead.encrypt(offset.to_bytes(_NONCE_BYTES, "little"), plain, header)

    def decrypt(self, offset: int, sealed: bytes | memoryview, header: bytes) -> bytes | None:
        """Return the plain bytes of the part at `offset`, or `None` if it or its header was changed."""
        try:
            return self._aead.decrypt(offset.to_bytes(_NONCE_BYTES, "little"), sealed, header)
        except InvalidTag:
            return None
