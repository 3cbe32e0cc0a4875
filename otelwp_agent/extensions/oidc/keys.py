"""Public keys of an issuer: a JWK set (RFC 7517), as a table by key id and algorithm.

The table decides which algorithm a key may be used with. So a token cannot select another one, such as HMAC with the
public key as secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.transport.documents import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

MAX_KEYS = 100
"""Maximum number of keys in a set; issuers publish a few."""
MAX_KID = 256
"""Maximum length of a key id."""
RSA_BITS = range(2048, 8192 + 1)
"""Accepted sizes of RSA keys: at least as in RFC 7518, 3.3; larger ones take too long to verify."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
ALGORITHMS = frozenset({*_RSA, *(name for names in _CURVES.values() for name in names)})
"""The accepted algorithms (RFC 7518, 3.1; RFC 8037). All are asymmetric."""


class KeySet:
    """The keys of an issuer at one time. Immutable."""

    __slots__ = ("_keys", "_prints", "ids", "ignored")

    def __init__(self, keys: Mapping[tuple[str, str], tuple[PublicKeyTypes, bytes]], ignored: int = 0) -> None:
        """Keep keys by (key id, algorithm), each with its DER bytes; `ignored` is the number of unusable keys."""
        self._keys = {place: key for place, (key, _) in keys.items()}
        self._prints = {place: der for place, (_, der) in keys.items()}
        self.ids = frozenset(kid for kid, _ in keys)
        self.ignored = ignored

    def get(self, kid: str, algorithm: str) -> PublicKeyTypes | None:
        """Return the key with an id, if it may be used with `algorithm`."""
        return self._keys.get((kid, algorithm))

    def has_all_of(self, other: KeySet) -> bool:
        """Return whether every key of `other` is in this set and has not changed."""
        return self._prints.items() >= other._prints.items()


NO_KEYS = KeySet({})
"""The set before the first fetch."""


def parse_key_set(content: bytes | str) -> KeySet:
    """Return the usable keys of a JWK set; raise `ValueError` if the document is no JWK set.

    As RFC 7517, 5 requires, keys are ignored that are incomplete or of an unknown type. Ignored too are keys without an
    id, for encryption, of an unsafe size, and symmetric ones.
    """
    if len(content) > MAX_DOCUMENT:
        message = f"is larger than {MAX_DOCUMENT} bytes"
        raise ValueError(message)
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        message = f"is not JSON: {error.msg}"
        raise ValueError(message) from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('is not a JWK set: it must be an object with a list `keys` (`{"keys": […]}`)')  # noqa: TRY004
    if len(entries) > MAX_KEYS:
        message = f"contains more than {MAX_KEYS} keys"
        raise ValueError(message)
    found: dict[tuple[str, str], tuple[PublicKeyTypes, bytes]] = {}
    ignored = 0
    for entry in entries:
        usable = False
        for place, key, der in _usable(entry):
            usable = True
            found.setdefault(place, (key, der))
        ignored += not usable
    return KeySet(found, ignored)


def _usable(entry: Any) -> Iterator[tuple[tuple[str, str], PublicKeyTypes, bytes]]:  # noqa: ANN401 - any JSON value
    """Yield the key of an entry for each algorithm that it may be used with: (kid, algorithm), key, DER bytes."""
    if not isinstance(entry, dict):
        return
    kid, algorithm = entry.get("kid"), entry.get("alg")
    operations = entry.get("key_ops", ["verify"])
    verifies = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID or not verifies:
        return
    key = _public_key(entry)
    if key is None:
        return
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - may be missing

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for name in _RSA if entry["kty"] == "RSA" else _CURVES[entry["crv"]]:
        if algorithm in (None, name):
            yield (kid, name), key, der


def _public_key(entry: dict[str, Any]) -> PublicKeyTypes | None:
    """Return the key of an entry, or `None` if it cannot be used. Private members of an entry are not read."""
    import jwt  # noqa: PLC0415 - the packages may be missing
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - the same
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm  # noqa: PLC0415 - the same

    kty, curve = entry.get("kty"), entry.get("crv")
    public: dict[str, Any] = {name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}
    try:
        if kty == "RSA":
            key: Any = RSAAlgorithm.from_jwk(public)
            return key if key.key_size in RSA_BITS else None
        if kty == "EC" and isinstance(curve, str) and curve in _CURVES and curve != "Ed25519":
            return ECAlgorithm.from_jwk(public)  # type: ignore[return-value] # without "d" it is a public key
        if kty == "OKP" and curve == "Ed25519":
            return OKPAlgorithm.from_jwk(public)  # type: ignore[return-value] # the same
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        return None  # its values are malformed
    return None
