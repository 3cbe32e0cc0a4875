"""The files of a recipient: its private keys, its signed key set, and the key that signs it.

A directory has three files. `opening-keys.json` is secret and is what a collector opens envelopes with. `signing.key`
is secret too and is only needed to publish a new key set; it need not be on the collector. `key-set.jws` is public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from otelwp_agent.codecs.compact_jws import decode_base64url
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.sealing.key_ring import KeyRing, OpeningKey
from otelwp_agent.sealing.suites import BadKeyError, SealingSuite

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OPENING_KEYS = "opening-keys.json"
KEY_SET = "key-set.jws"
SIGNING_KEY = "signing.key"

MAX_FILE = 2**20
"""Maximum size of a file in bytes."""


class _StoredKey(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    key_id: str = Field(min_length=1, max_length=128)
    suite: str
    private_key: str
    not_before: float = Field(0.0, ge=0)
    not_after: float | None = Field(None, ge=0)


class _KeyFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    version: int = Field(ge=1)
    keys: list[_StoredKey]


def read_opening_keys(text: str) -> tuple[int, list[OpeningKey]]:
    """Return the version of the key set and the private keys in the text of `opening-keys.json`.

    Raises `ValueError` with a message that contains nothing of the keys.
    """
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        message = "is not JSON: `otelwp-agent keys generate` writes such a file"
        raise ValueError(message) from None
    try:
        found = _KeyFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = f"has an invalid member `{'.'.join(map(str, first['loc']))}` ({first['msg']})"
        raise ValueError(message) from None
    keys = []
    for key in found.keys:
        suite = SealingSuite.__members__.get(key.suite)
        if suite is None:
            message = (
                f"has a key of the unknown suite {key.suite[:40]!r}: known are {', '.join(SealingSuite.__members__)}"
            )
            raise ValueError(message)
        try:
            private = decode_base64url(key.private_key)
            keys.append(OpeningKey(key.key_id, suite, private, key.not_before, key.not_after))
        except (BadKeyError, ValueError) as error:
            kind = error if isinstance(error, BadKeyError) else "it is not base64url"
            message = f"has an invalid private key {key.key_id!r}: {kind}"
            raise ValueError(message) from None
    if len({key.key_id for key in keys}) < len(keys):
        raise ValueError("has two keys with the same `key_id`")
    return found.version, keys


def read_key_ring(text: str) -> KeyRing:
    """Return the keys in the text of `opening-keys.json`; raise `ValueError`."""
    return KeyRing(read_opening_keys(text)[1])


def opening_keys_text(version: int, keys: Iterable[OpeningKey]) -> bytes:
    """Return the content of `opening-keys.json`."""
    data = {
        "version": version,
        "keys": [
            {
                "key_id": key.key_id,
                "suite": key.suite.name,
                "private_key": encode_base64url(key.private),
                "not_before": key.not_before,
                "not_after": key.not_after,
            }
            for key in keys
        ],
    }
    return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load_text(path: Path) -> str:
    """Return the text of a small file; raise `ValueError` with the path and the cause."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE + 1)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise ValueError(message) from error
    if len(content) > MAX_FILE:
        message = f"{path}: is larger than {MAX_FILE} bytes"
        raise ValueError(message)
    return content.decode("utf-8", "replace")
