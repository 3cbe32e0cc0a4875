"""The encrypted data key of a file, as JSON: `{"version": 1, "slots": [{"kind": …, "key": …, "data": …}]}`.

Each slot is the data key encrypted for the key with the id `key`. This module does not need `cryptography`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.at_rest.errors import SealedDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1


def encode_slots(slots: Sequence[dict[str, Any]]) -> bytes:
    """Return the encrypted data key with these slots."""
    return orjson.dumps({"version": VERSION, "slots": slots})


def decode_slots(wrapped: bytes, where: str) -> list[dict[str, Any]]:
    """Read what `encode_slots` wrote; raise `SealedDataError`, which names the file `where`."""
    try:
        data = orjson.loads(wrapped)
        version, slots = data["version"], data["slots"]
        if version == VERSION and all(isinstance(slot, dict) for slot in slots):
            return list(slots)
    except (ValueError, KeyError, TypeError) as error:
        raise SealedDataError(f"{where}: its encrypted data key cannot be read") from error
    raise SealedDataError(f"{where}: its encrypted data key has version {version}; a newer agent wrote it")


def key_ids(wrapped: bytes) -> list[str]:
    """Return the ids of the keys that open an encrypted data key; none if it cannot be read."""
    try:
        return [str(slot.get("key", "")) for slot in decode_slots(wrapped, "")]
    except SealedDataError:
        return []
