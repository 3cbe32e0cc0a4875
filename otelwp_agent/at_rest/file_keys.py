"""Open the data key of a file, with keys or without. This module does not need `cryptography`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.at_rest.errors import FileKeyError
from otelwp_agent.at_rest.slots import key_ids

if TYPE_CHECKING:
    from otelwp_agent.at_rest.cipher import FileCipher
    from otelwp_agent.at_rest.keys import StorageKeys


def open_file_key(keys: StorageKeys | None, wrapped: bytes, binding: bytes, where: str) -> FileCipher:
    """Return the cipher of a file as `StorageKeys.open` does; raise `FileKeyError` if there are no keys."""
    if keys is None:
        raise FileKeyError(where, key_ids(wrapped), ())
    return keys.open(wrapped, binding, where)
