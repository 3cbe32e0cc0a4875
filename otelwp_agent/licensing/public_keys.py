"""Public keys that verify licences: Ed25519 keys as text, by key id.

The text of a key is its 32 bytes in base64url (43 characters), the member `x` of its JWK. Its id is the thumbprint of
the JWK (RFC 7638), so that it needs no file that maps ids to keys.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.codecs.compact_jws import decode_base64url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BUNDLED: tuple[str, ...] = ()
"""Public keys of the vendor. A distributor that sells licences adds its own before it builds the package."""
KEY_LENGTH = 43
"""Characters of a public key."""
MAX_KEYS = 32
"""Most keys of an agent."""

_KEY_BYTES = 32
_MAX_FILE = 16 * 2**10


def key_id(key: str) -> str:
    """Return the id of a public key: the thumbprint of its JWK (RFC 7638)."""
    jwk = f'{{"crv":"Ed25519","kty":"OKP","x":"{key}"}}'
    return encode_base64url(hashlib.sha256(jwk.encode()).digest())


def encode_base64url(data: bytes) -> str:
    """Return `data` in base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def check_key(text: str) -> str:
    """Return the text of a public key; raise `ValueError` if it is none."""
    try:
        data = decode_base64url(text)
    except ValueError:
        data = b""
    if len(data) != _KEY_BYTES or encode_base64url(data) != text:
        message = (
            f"{text[:60]!r} is not a public key: `otelwp-agent license keygen` prints one, of {KEY_LENGTH} characters"
        )
        raise ValueError(message)
    return text


def load_keys(entries: Iterable[str], bundled: Sequence[str] = BUNDLED, *, required: bool = False) -> Mapping[str, str]:
    """Return public keys by id: the `bundled` ones, and those of `entries`, each a key or a file with a key per line.

    If a licence is `required`, only the bundled keys count, if there are any: otherwise a user could issue licences.
    Raises `ValueError` for the first entry that is invalid.
    """
    if required and bundled:
        entries = ()
    keys = [check_key(key) for key in bundled]
    for entry in entries:
        if len(entry) == KEY_LENGTH and "/" not in entry and "." not in entry:
            keys.append(check_key(entry))
        else:
            keys += _read_file(Path(entry))
    if len(keys) > MAX_KEYS:
        message = f"{len(keys)} public keys are too many: the most is {MAX_KEYS}"
        raise ValueError(message)
    return {key_id(key): key for key in keys}


def _read_file(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE + 1)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise ValueError(message) from error
    if len(content) > _MAX_FILE:
        message = f"{path} is larger than {_MAX_FILE} bytes"
        raise ValueError(message)
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    try:
        return [check_key(line) for line in lines if line and not line.startswith("#")]
    except ValueError as error:
        message = f"{path}: {error}"
        raise ValueError(message) from None
