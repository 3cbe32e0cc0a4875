"""Encrypt the data key of a file for the configured keys, and open it with one of them.

The encrypted data key has a slot for each key (`slots`). The `data` of a slot is the data key encrypted, in base64:

* kind `local`: AES-256-GCM with a secret key: a random nonce of 12 bytes, then the ciphertext.
* kind `hpke`: HPKE for a public key, with the `suite` of sealed envelopes: the encapsulated key, then the ciphertext.

`LABEL` and the `binding`, bytes that identify the file, are authenticated (associated data, `info` of HPKE), so that a
data key cannot be moved to another file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from otelwp_agent.at_rest.cipher import KEY_BYTES, FileCipher
from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.slots import decode_slots, encode_slots, key_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

LABEL = b"otelwp data key 1\n"
"""First bytes of what is authenticated with a data key."""
_ID_LABEL = b"otelwp key id 1\n"
_NONCE_BYTES = 12
_HEX_DIGITS = 64


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A secret key that encrypts and decrypts data keys."""

    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> LocalKey:
        """Read 32 bytes in base64 or hexadecimal; raise `ValueError` that does not contain the text."""
        text = "".join(text.split())
        try:
            secret = bytes.fromhex(text) if len(text) == _HEX_DIGITS else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            secret = b""
        if len(secret) != KEY_BYTES:
            message = f"this is not a key of {KEY_BYTES} bytes in base64 or hexadecimal"
            raise ValueError(message)
        return cls(secret)

    @classmethod
    def new(cls) -> LocalKey:
        """Return a random key."""
        return cls(os.urandom(KEY_BYTES))

    @property
    def text(self) -> str:
        """The key in base64, the form that key files have."""
        return base64.b64encode(self.secret).decode()

    @property
    def key_id(self) -> str:
        """Its id: 16 hexadecimal digits of a hash, from which the key cannot be computed."""
        return hashlib.sha256(_ID_LABEL + self.secret).hexdigest()[:16]

    def wrap(self, data_key: bytes, binding: bytes) -> dict[str, Any]:
        """Return the slot with `data_key`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self.secret).encrypt(nonce, data_key, LABEL + binding)
        return {"kind": "local", "key": self.key_id, "data": base64.b64encode(nonce + sealed).decode()}

    def unwrap(self, slot: dict[str, Any], binding: bytes) -> bytes | None:
        """Return the data key in a slot; `None` if the slot is for another key. Raise `SealedDataError` if altered."""
        if slot.get("kind") != "local" or slot.get("key") != self.key_id:
            return None
        data = base64.b64decode(slot["data"])
        try:
            return AESGCM(self.secret).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], LABEL + binding)
        except (InvalidTag, ValueError) as error:
            raise SealedDataError("its data key was changed") from error


class WrappingKey(Protocol):
    """A key that data keys are encrypted for."""

    @property
    def key_id(self) -> str:
        """Its id."""

    def wrap(self, data_key: bytes, binding: bytes) -> dict[str, Any]:
        """Return the slot with `data_key`."""


class UnwrappingKey(Protocol):
    """A key that opens data keys."""

    @property
    def key_id(self) -> str:
        """Its id."""

    def unwrap(self, slot: dict[str, Any], binding: bytes) -> bytes | None:
        """Return the data key in a slot; `None` if the slot is for another key. Raise `SealedDataError` if altered."""


class StorageKeys:
    """The keys for the files of one kind.

    The data keys of new files are encrypted for all keys of `writing`; the keys of `reading` open files.
    """

    def __init__(self, writing: Sequence[WrappingKey], reading: Sequence[UnwrappingKey]) -> None:
        """Hold the keys."""
        self.writing = tuple(writing)
        self.reading = tuple(reading)
        """The keys that read files, in the order in which they are tried."""

    @property
    def ids(self) -> list[str]:
        """The ids of the keys that read files."""
        return [key.key_id for key in self.reading]

    @property
    def writing_ids(self) -> list[str]:
        """The ids of the keys that new files are encrypted for."""
        return [key.key_id for key in self.writing]

    @property
    def reads_its_own(self) -> bool:
        """Whether a key that new files are encrypted for is one that reads them."""
        return not set(self.writing_ids).isdisjoint(self.ids)

    def new_cipher(self, binding: bytes) -> tuple[FileCipher, bytes]:
        """Return a cipher with a new data key, and that key encrypted, to be written to the file."""
        cipher = FileCipher.new()
        slots = [key.wrap(cipher.key, binding) for key in self.writing]
        return cipher, encode_slots(slots)

    def open(self, wrapped: bytes, binding: bytes, where: str) -> FileCipher:
        """Return the cipher that decrypts a file, from its encrypted data key; `where` names the file in errors.

        Raises `FileKeyError` if no key opens it, `SealedDataError` if it was changed.
        """
        slots = decode_slots(wrapped, where)
        for key in self.reading:
            for slot in slots:
                try:
                    data_key = key.unwrap(slot, binding)
                except (KeyError, TypeError, ValueError) as error:
                    raise SealedDataError(f"{where}: its data key cannot be read") from error
                except SealedDataError as error:
                    raise SealedDataError(f"{where}: {error}") from error
                if data_key is not None:
                    return FileCipher(data_key)
        raise FileKeyError(where, key_ids(wrapped), self.ids)
