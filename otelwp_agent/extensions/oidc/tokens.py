"""Check JSON Web Tokens (RFC 7519): first their form, without cryptography, then signature and claims with PyJWT.

Every check that fails raises `BadTokenError`. Its reason is for metrics only: all clients get the same answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from otelwp_agent.codecs.compact_jws import MalformedJwsError, read_jws
from otelwp_agent.extensions.oidc.keys import ALGORITHMS, MAX_KID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from otelwp_agent.codecs.compact_jws import CompactJws

MAX_TOKEN = 16 * 2**10
"""Maximum length of a token in bytes; a longer one is not parsed. Tokens with 200 groups have about 12 KiB."""

_TIMES = ("exp", "nbf", "iat")


class BadTokenError(Exception):
    """A token is not valid; `reason` is a constant for metrics."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """The contents of a token whose signature has not been verified."""

    text: str
    jws: CompactJws
    kid: str
    algorithm: str
    issuer: str
    claims: Mapping[str, Any]


def read_token(text: str) -> UnverifiedToken:
    """Parse a token in the compact form (RFC 7515, 3.1), without verifying it; raise `BadTokenError`."""
    try:
        jws = read_jws(text, max_length=MAX_TOKEN)
    except MalformedJwsError:
        raise BadTokenError("malformed") from None
    algorithm, kid, claims = jws.header.get("alg"), jws.header.get("kid"), jws.claims
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadTokenError("algorithm")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise BadTokenError("key")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise BadTokenError("issuer")
    for name in _TIMES:
        time = claims.get(name, 0)
        if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
            raise BadTokenError("malformed")
    return UnverifiedToken(text, jws, kid, algorithm, issuer, claims)


def verify_token(token: UnverifiedToken, key: PublicKeyTypes, *, audience: str | None, clock_skew: float) -> None:
    """Verify the signature with the issuer's key, the times and the audience (`None`: any); raise `BadTokenError`.

    `key` must be a key of `token.issuer`. PyJWT decides on the whole token. The signature is checked once before,
    because PyJWT parses a token before it verifies it, which takes ten times as long for a large token; a client could
    use that with forged tokens.
    """
    import jwt  # noqa: PLC0415 - the package may be missing

    if not _is_signed(token, key):
        raise BadTokenError("signature")
    try:
        jwt.decode(
            token.text,
            cast("Any", key),
            algorithms=[token.algorithm],
            issuer=token.issuer,
            audience=audience,
            leeway=clock_skew,
            options={"require": ["exp", "iss"], "verify_aud": audience is not None},
        )
    except jwt.ExpiredSignatureError:
        raise BadTokenError("expired") from None
    except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
        raise BadTokenError("not_yet_valid") from None
    except jwt.InvalidAudienceError:
        raise BadTokenError("audience") from None
    except jwt.MissingRequiredClaimError as error:
        raise BadTokenError("audience" if error.claim == "aud" else "claims") from None
    except jwt.InvalidSignatureError:
        raise BadTokenError("signature") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise BadTokenError("claims") from None


def _is_signed(token: UnverifiedToken, key: PublicKeyTypes) -> bool:
    """Return whether the signature is right."""
    import jwt  # noqa: PLC0415 - the package may be missing

    try:
        algorithm = jwt.get_algorithm_by_name(token.algorithm)
        return algorithm.verify(token.jws.signed, key, token.jws.signature)
    except (jwt.PyJWTError, ValueError):
        return False
