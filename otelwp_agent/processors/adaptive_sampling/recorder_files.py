"""The bytes of a file of the flight recorder: a line of JSON that describes the content, then the content.

An encrypted file begins with the encrypted data key (`at_rest.slots`) and a line feed. The rest is what is described
above, encrypted with AES-256-GCM; the first line is authenticated with it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otelwp_agent.at_rest.errors import SealedDataError
from otelwp_agent.at_rest.file_keys import open_file_key

if TYPE_CHECKING:
    from otelwp_agent.at_rest.cipher import FileCipher
    from otelwp_agent.at_rest.keys import StorageKeys

_BINDING = b"flight recorder"
_ENCRYPTED = b'{"version":'


def encode_recording(head: dict[str, Any], data: bytes, keys: StorageKeys | None) -> tuple[bytes, FileCipher | None]:
    """Return the bytes of a file, encrypted if there are `keys`, and the cipher that decrypts them."""
    plain = json.dumps(head).encode() + b"\n" + data
    if keys is None:
        return plain, None
    cipher, wrapped = keys.new_cipher(_BINDING)
    return wrapped + b"\n" + cipher.encrypt(len(wrapped) + 1, plain, wrapped), cipher


def decode_recording(
    content: bytes, keys: StorageKeys | None, where: str, cipher: FileCipher | None = None
) -> tuple[dict[str, Any], bytes, FileCipher | None]:
    """Return the description, the content, and the cipher of a file. `cipher` opens it, or else `keys` do.

    Raises `FileKeyError` if it is encrypted for none of `keys`, `SealedDataError` if it was changed, `ValueError`.
    """
    if content.startswith(_ENCRYPTED):
        wrapped, _, sealed = content.partition(b"\n")
        cipher = cipher or open_file_key(keys, wrapped, _BINDING, where)
        plain = cipher.decrypt(len(wrapped) + 1, sealed, wrapped)
        if plain is None:
            raise SealedDataError(f"{where} was changed after it was written")
        content = plain
    head, _, data = content.partition(b"\n")
    return json.loads(head), data, cipher
