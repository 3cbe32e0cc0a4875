"""Sign and verify licences: JWS in the compact form with EdDSA (RFC 8037), through PyJWT.

PyJWT and `cryptography` are imported only when a licence is signed or verified: an agent without one never loads them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from otelwp_agent.codecs.compact_jws import MalformedJwsError, read_jws
from otelwp_agent.codecs.ed25519_jws import ALGORITHM, is_signed_by
from otelwp_agent.licensing.license import PRODUCT, License
from otelwp_agent.licensing.public_keys import encode_base64url, key_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_LICENSE = 7 * 2**10
"""Maximum length of a licence in characters: it must fit into a request header of 8 KiB."""
TYPE = "license+jwt"
"""Header `typ` (RFC 8725, 3.11): another document that was signed with the same key is not a licence."""

_MAX_SHOWN = 60
_HEADER_AND_SIGNATURE = 256


class LicenseError(ValueError):
    """A text is not a licence that this agent accepts; `reason` is a constant for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason and the message, which says what to do."""
        super().__init__(message)
        self.reason = reason


def verify_license(text: str, keys: Mapping[str, str]) -> License:
    """Return the terms of a licence that one of `keys` (public keys by id) has signed; raise `LicenseError`.

    No time is checked.
    """
    text = text.strip()
    try:
        jws = read_jws(text, max_length=MAX_LICENSE)
    except MalformedJwsError as error:
        raise LicenseError("malformed", f"this is not a licence: {error}: copy the whole text") from None
    algorithm, kid = jws.header.get("alg"), jws.header.get("kid")
    if algorithm != ALGORITHM:
        raise LicenseError("algorithm", f"it is signed with {_short(algorithm)}, but licences are signed with EdDSA")
    if jws.header.get("typ") != TYPE:
        raise LicenseError("product", f"it is a {_short(jws.header.get('typ'))}, not a licence ({TYPE})")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise LicenseError(
            "unknown_key",
            f"it is signed with key {_short(kid)}, which this agent does not have: add the issuer's public key to "
            "`service.license.public_keys`",
        )
    if not is_signed_by(text, key):
        raise LicenseError("signature", "its signature is not valid: it was changed or truncated after it was issued")
    return read_terms(jws.claims)


def read_terms(claims: Mapping[str, Any]) -> License:
    """Return the terms in the claims of a licence; raise `LicenseError`. The signature is not verified."""
    audience = claims.get("aud")
    if audience != PRODUCT:
        raise LicenseError("product", f"it is a licence for {_short(audience)}, not for {PRODUCT}")
    try:
        return License.model_validate(dict(claims))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"its claim `{where}` is not valid ({first['msg']}): ask the issuer for a new licence"
        raise LicenseError("claims", message) from None


def sign_license(terms: License, private_key: Ed25519PrivateKey) -> str:
    """Return the signed text of a licence; raise `LicenseError` if it becomes too long."""
    import jwt  # noqa: PLC0415 - only for licences

    kid = key_id(public_text(private_key))
    text = jwt.encode(terms.to_json(), cast("Any", private_key), ALGORITHM, headers={"kid": kid, "typ": TYPE})
    if len(text) > MAX_LICENSE:
        message = f"the licence has {len(text)} characters, but the most is {MAX_LICENSE}: give fewer domains"
        raise LicenseError("malformed", message)
    return text


def signed_length(terms: License) -> int:
    """Return an upper bound of the length of a licence when it is signed."""
    payload = json.dumps(terms.to_json(), separators=(",", ":"))
    return (len(payload) + 2) * 4 // 3 + _HEADER_AND_SIGNATURE


def generate_key() -> Ed25519PrivateKey:
    """Return a new private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - for licences

    return Ed25519PrivateKey.generate()


def public_text(private_key: Ed25519PrivateKey) -> str:
    """Return the text of the public key that belongs to a private key."""
    return encode_base64url(private_key.public_key().public_bytes_raw())


def private_pem(private_key: Ed25519PrivateKey) -> bytes:
    """Return a private key as PEM (PKCS #8), not encrypted."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only for licences

    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Return the private key in a PEM file; raise `ValueError`."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only for licences
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - the same

    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(  # noqa: TRY004 - the contents of a file
            "it is not an Ed25519 private key in PEM without a password: `license keygen` writes one"
        )
    return key


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
