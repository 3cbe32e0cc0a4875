"""Sign and verify statements: JWS in the compact form with EdDSA, in the manner of licences and key sets."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from otelwp_agent.codecs.compact_jws import MalformedJwsError, read_jws
from otelwp_agent.codecs.ed25519_jws import ALGORITHM, is_signed_by
from otelwp_agent.licensing.public_keys import encode_base64url, key_id
from otelwp_agent.licensing.signatures import public_text
from otelwp_agent.statements.statement import DeliveryStatement, StatementError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TYPE = "otelwp-statement+jwt"
"""Header `typ`: another document that was signed with the same key is not a statement."""
MAX_STATEMENT = 2**20
"""Maximum length of a statement in characters."""


def digest(text: str) -> str:
    """Return the hash by which the next statement names this one."""
    return hashlib.sha256(text.encode()).hexdigest()


def sign_statement(statement: DeliveryStatement, private_key: Ed25519PrivateKey) -> str:
    """Return the signed text of a statement."""
    import jwt  # noqa: PLC0415 - only for statements

    headers = {"kid": key_id(public_text(private_key)), "typ": TYPE}
    return jwt.encode(statement.to_claims(), cast("Any", private_key), ALGORITHM, headers=headers)


def verify_statement(text: str, keys: Mapping[str, str]) -> DeliveryStatement:
    """Return the statement that one of `keys` (public keys by id) has signed; raise `StatementError`."""
    try:
        jws = read_jws(text, max_length=MAX_STATEMENT)
    except MalformedJwsError as error:
        message = f"this is not a statement: {error}"
        raise StatementError(message) from None
    if jws.header.get("alg") != ALGORITHM or jws.header.get("typ") != TYPE:
        message = f"this is not a statement: its header does not have `alg` {ALGORITHM} and `typ` {TYPE}"
        raise StatementError(message)
    if encode_base64url(jws.signature) != text.rpartition(".")[2]:
        raise StatementError("its signature is not valid: it was changed after it was signed")
    kid = jws.header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        message = f"it is signed with key {str(kid)[:60]!r}, which was not given"
        raise StatementError(message)
    if not is_signed_by(text, key):
        raise StatementError("its signature is not valid: it was changed after it was signed")
    return DeliveryStatement.from_claims(jws.claims)
