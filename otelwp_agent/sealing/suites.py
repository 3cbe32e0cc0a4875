"""Cipher suites of sealed envelopes: how keys are made, read and written, and how bodies are encrypted.

Keys are raw bytes outside this module. Both suites use HPKE in base mode with HKDF-SHA256 and AES-256-GCM; they
differ in the key encapsulation:

* `X25519` (RFC 9180, DHKEM): public and private keys of 32 bytes.
* `MLKEM768_X25519` (X-Wing, draft-connolly-cfrg-xwing-kem): hybrid with a post-quantum part. The public key is the
  ML-KEM-768 key followed by the X25519 key (1216 bytes), the private key a seed of 32 bytes.

`cryptography` is imported when a suite is first used.
"""

from __future__ import annotations

import hashlib
import os
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hpke

TAG_BYTES = 16
"""Bytes of the authentication tag of AES-256-GCM, at the end of the ciphertext."""

_X25519_BYTES = 32
_MLKEM768_PUBLIC_BYTES = 1184
_MLKEM768_SEED_BYTES = 64
_SEED_BYTES = 32


class BadKeyError(ValueError):
    """The bytes are not a key of the suite."""


class NotDecryptedError(Exception):
    """The ciphertext was not made for this key and this `info`, or was changed."""


class SealingSuite(Enum):
    """A cipher suite. `value` is its number in the header of envelopes."""

    X25519 = 1
    MLKEM768_X25519 = 2

    @property
    def encapsulated_bytes(self) -> int:
        """Bytes of the encapsulated key before the ciphertext."""
        return _ENCAPSULATED_BYTES[self]

    @property
    def overhead(self) -> int:
        """Bytes that encryption adds to a body."""
        return self.encapsulated_bytes + TAG_BYTES

    def generate(self) -> bytes:
        """Return a new private key."""
        return os.urandom(_SEED_BYTES)  # X25519 accepts any 32 bytes (RFC 7748); X-Wing expands a seed of 32 bytes

    def private_key(self, raw: bytes) -> Any:  # noqa: ANN401 - each suite has its own class of keys
        """Return the private key for `decrypt`; raise `BadKeyError`."""
        from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 - only sealing needs its memory
        from cryptography.hazmat.primitives.asymmetric import mlkem, x25519  # noqa: PLC0415 - the same

        if len(raw) != _SEED_BYTES:
            raise BadKeyError(f"a private key of suite {self.name} has {_SEED_BYTES} bytes, this has {len(raw)}")
        if self is SealingSuite.X25519:
            return x25519.X25519PrivateKey.from_private_bytes(raw)
        expanded = hashlib.shake_256(raw).digest(_MLKEM768_SEED_BYTES + _X25519_BYTES)
        return hpke.MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM768_SEED_BYTES]),
            x25519.X25519PrivateKey.from_private_bytes(expanded[_MLKEM768_SEED_BYTES:]),
        )

    def public_key(self, raw: bytes) -> Any:  # noqa: ANN401 - each suite has its own class of keys
        """Return the public key for `encrypt`; raise `BadKeyError`."""
        from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 - only sealing needs its memory
        from cryptography.hazmat.primitives.asymmetric import mlkem, x25519  # noqa: PLC0415 - the same

        wanted = _PUBLIC_BYTES[self]
        if len(raw) != wanted:
            raise BadKeyError(f"a public key of suite {self.name} has {wanted} bytes, this has {len(raw)}")
        try:
            curve = x25519.X25519PublicKey.from_public_bytes(raw[-_X25519_BYTES:])
            x25519.X25519PrivateKey.generate().exchange(curve)  # fails for points that give a known secret
            if self is SealingSuite.X25519:
                return curve
            lattice = mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM768_PUBLIC_BYTES])
            return hpke.MLKEM768X25519PublicKey(lattice, curve)
        except ValueError as error:
            raise BadKeyError(f"this is not a public key of suite {self.name}: {error}") from error

    def public_bytes(self, private: bytes) -> bytes:
        """Return the public key of a private key; raise `BadKeyError`."""
        from cryptography.hazmat.primitives.asymmetric import mlkem, x25519  # noqa: PLC0415 - see above

        self.private_key(private)
        if self is SealingSuite.X25519:
            return x25519.X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        expanded = hashlib.shake_256(private).digest(_MLKEM768_SEED_BYTES + _X25519_BYTES)
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM768_SEED_BYTES])
        curve = x25519.X25519PrivateKey.from_private_bytes(expanded[_MLKEM768_SEED_BYTES:])
        return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def encrypt(self, key: Any, plain: bytes, info: bytes) -> bytes:  # noqa: ANN401 - see `public_key`
        """Return the encapsulated key followed by the ciphertext of `plain`; `info` is authenticated too."""
        return _hpke(self).encrypt(plain, key, info)

    def decrypt(self, key: Any, sealed: bytes | memoryview, info: bytes) -> bytes:  # noqa: ANN401 - see `private_key`
        """Return the plain bytes of what `encrypt` returned; raise `NotDecryptedError`."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see above

        try:
            return _hpke(self).decrypt(sealed, key, info)
        except (InvalidTag, ValueError) as error:
            raise NotDecryptedError from error


_ENCAPSULATED_BYTES = {SealingSuite.X25519: _X25519_BYTES, SealingSuite.MLKEM768_X25519: 1088 + _X25519_BYTES}
_PUBLIC_BYTES = {
    SealingSuite.X25519: _X25519_BYTES,
    SealingSuite.MLKEM768_X25519: _MLKEM768_PUBLIC_BYTES + _X25519_BYTES,
}


@cache
def _hpke(suite: SealingSuite) -> hpke.Suite:
    """Return the HPKE implementation of a suite."""
    from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 - only sealing needs its memory

    kem = hpke.KEM.X25519 if suite is SealingSuite.X25519 else hpke.KEM.MLKEM768_X25519
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
