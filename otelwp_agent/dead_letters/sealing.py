"""Encrypt letters and open them.

One run of the agent encrypts the letters that it writes with one data key, whose nonces are counted. A later run has
another data key. The data keys are in the file, encrypted for the configured keys.
"""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from otelwp_agent.at_rest.errors import SealedDataError
from otelwp_agent.at_rest.file_keys import open_file_key
from otelwp_agent.dead_letters.records import associated_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.at_rest.cipher import FileCipher
    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.dead_letters.records import Letter

_LENGTH = struct.Struct("<I")
_ID_BYTES = 8
_BINDING = b"dead letters "


class LetterSealer:
    """Encrypts the letters of one run with a data key of its own."""

    def __init__(self, keys: StorageKeys) -> None:
        """Create the data key `key`, which `wrapped` contains encrypted for `keys`."""
        self.key = os.urandom(_ID_BYTES).hex()
        self._cipher, self.wrapped = keys.new_cipher(_BINDING + self.key.encode())
        self._count = 0

    def seal(self, letter: Letter, body: bytes) -> tuple[Letter, bytes]:
        """Return an encrypted letter and its encrypted body."""
        error = letter.error.encode()
        plain = _LENGTH.pack(len(error)) + error + body
        sealed = replace(letter, sealed=(self.key, self._count), stored=len(plain) + self._cipher.overhead)
        self._count += 1
        return sealed, self._cipher.encrypt(self._count - 1, plain, associated_data(sealed))


class LetterOpener:
    """Opens letters with the data keys of a file: `data_keys` are encrypted, by id. `keys` open them."""

    def __init__(self, data_keys: Mapping[str, bytes], keys: StorageKeys | None) -> None:
        """Open nothing yet."""
        self._data_keys = data_keys
        self._keys = keys
        self._ciphers: dict[str, FileCipher] = {}

    def open(self, letter: Letter, body: bytes) -> tuple[Letter, bytes]:
        """Return a letter with its error, and its body in clear; both unchanged if they are not encrypted.

        Raises `FileKeyError` if no key opens it, `SealedDataError` if it was changed.
        """
        if letter.sealed is None:
            return letter, body
        key, number = letter.sealed
        cipher = self._ciphers.get(key)
        if cipher is None:
            wrapped = self._data_keys.get(key)
            if wrapped is None:
                raise SealedDataError(f"letter {letter.id} cannot be opened: its data key is damaged; purge it")
            binding = _BINDING + key.encode()
            cipher = self._ciphers[key] = open_file_key(self._keys, wrapped, binding, f"letter {letter.id}")
        plain = cipher.decrypt(number, body, associated_data(letter))
        if plain is None:
            raise SealedDataError(f"letter {letter.id} was changed after it was written; purge it")
        (length,) = _LENGTH.unpack_from(plain)
        end = _LENGTH.size + length
        return replace(letter, error=plain[_LENGTH.size : end].decode()), plain[end:]
