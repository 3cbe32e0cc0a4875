"""Sign the toggles of an installation, so that only the owner of the key can control its plugin.

The signature is a JWS in the compact form (EdDSA). A plugin obeys toggles only if the signature is valid, `sub` is its
own installation and `exp` has not passed; in all other cases it works as if no toggle were on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from otelwp_agent.codecs.ed25519_jws import ALGORITHM
from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import public_text, read_private_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from otelwp_agent.control.fleet.toggles import Toggle

TYPE = "otelwp-toggles+jwt"
"""Header `typ`: another document that was signed with the same key does not contain toggles."""
AUDIENCE = "plugin"


class ToggleSigner:
    """Signs with a private key, which is loaded from a file."""

    def __init__(self, lifetime: float) -> None:
        """Sign for `lifetime` seconds."""
        self._lifetime = lifetime
        self._key: Ed25519PrivateKey | None = None
        self.key_id = ""
        """The id of the public key, "" before one was loaded."""

    def use(self, pem: str) -> Mapping[str, object]:
        """Sign with the private key in a PEM text from now on; raise `ValueError`."""
        key = read_private_key(pem.encode())
        self._key, self.key_id = key, key_id(public_text(key))
        return {"key": self.key_id}

    def sign(self, installation: str, state: Mapping[str, bool], active: Sequence[Toggle], now: float) -> str:
        """Return the signed text of `state`; it expires with the first of the toggles that are `active`."""
        import jwt  # noqa: PLC0415 - only with a key

        ends = [toggle.expires_at.timestamp() for toggle in active if toggle.expires_at is not None]
        claims = {
            "aud": AUDIENCE,
            "sub": installation,
            "iat": int(now),
            "exp": int(min([now + self._lifetime, *ends])),
            "toggles": dict(state),
        }
        return jwt.encode(claims, cast("Any", self._key), ALGORITHM, headers={"kid": self.key_id, "typ": TYPE})
