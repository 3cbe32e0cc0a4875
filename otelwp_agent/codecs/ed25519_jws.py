"""Verify the EdDSA signature of a JWS. The libraries are imported when a signature is verified."""

from __future__ import annotations

from typing import Any, cast

from otelwp_agent.codecs.compact_jws import decode_base64url

ALGORITHM = "EdDSA"
"""Header `alg` of the signatures."""


def is_signed_by(text: str, key: str) -> bool:
    """Return whether a compact JWS has a valid signature of an Ed25519 public key (32 bytes in base64url)."""
    import jwt  # noqa: PLC0415 - only where something signed is configured
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - the same

    public = Ed25519PublicKey.from_public_bytes(decode_base64url(key))
    try:
        jwt.api_jws.decode(text, cast("Any", public), algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True
