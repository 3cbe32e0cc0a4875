"""Make the ids of messages: random, or of the content, so that the same content has the same id after a restart.

An agent with a journal sends what it had not finished again after a crash, in new envelopes. If their ids are made of
the content, the collector recognizes what it has accepted before. The ids are a keyed hash, which cannot be compared
with a guess of the content without the key.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError
from otelwp_agent.sealing.envelope import MESSAGE_ID_BYTES
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch

KEY_BYTES = 32


class MessageIds:
    """Makes message ids: random ones without a `key`."""

    def __init__(self, key: bytes = b"") -> None:
        """Use a secret key of `KEY_BYTES` bytes for ids of the content."""
        self._key = key

    def of(self, batch: Batch, customer: str) -> bytes:
        """Return the id for a batch that is sealed for a customer. It may be called in a thread."""
        if not self._key:
            return os.urandom(MESSAGE_ID_BYTES)
        about = "\n".join((customer, batch.signal.value, *batch.encodings, "")).encode()
        return blake2b(about + batch.body, digest_size=MESSAGE_ID_BYTES, key=self._key).digest()


def read_or_create_key(path: Path, name: str) -> bytes:
    """Return the key in a file, which is created with a random key if there is none; raise `StartError`.

    `name` is the setting (`processors/encryption: message_id_key_file`) in messages.
    """
    try:
        if not path.exists():
            files.make_directory(path.parent)
            files.replace_file(path, os.urandom(KEY_BYTES))
        key = Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"{name}: cannot use {path}: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise StartError(f"{name}: {path} has {len(key)} bytes, not {KEY_BYTES}: delete it, so that it is created")
    return key
