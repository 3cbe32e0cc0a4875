"""Signed sets of public keys that senders seal to: a JWS (RFC 7515) in the compact form with EdDSA.

The payload is a JSON object::

    {"version": 3, "issued_at": 1764500000, "keys": [
      {"key_id": "…", "suite": "X25519", "public_key": "…", "not_before": 1764500000, "not_after": 1772276000}]}

Times are seconds since 1970, keys are in base64url. `version` grows with each set, so that an older set with a valid
signature, perhaps with a key that was stolen, is refused (`SealingKeySet.check_follows`). Unknown members are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from otelwp_agent.codecs.compact_jws import MalformedJwsError, decode_base64url, read_jws
from otelwp_agent.codecs.ed25519_jws import ALGORITHM, is_signed_by
from otelwp_agent.licensing.public_keys import encode_base64url, key_id
from otelwp_agent.licensing.signatures import public_text
from otelwp_agent.sealing.freshness import WINDOW
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import BadKeyError, SealingSuite

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_KEY_SET = 2**18
"""Maximum length of a key set in characters."""
MAX_KEYS = 100
TYPE = "otelwp-key-set+jwt"
"""Header `typ` (RFC 8725, 3.11): another document that was signed with the same key is not a key set."""

_LAST = 253402300799
"""9999-12-31T23:59:59Z."""


class KeySetError(ValueError):
    """A text is not a key set that this agent accepts; `reason` is a constant for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason and the message, which says what to do."""
        super().__init__(message)
        self.reason = reason


class _PublishedKey(BaseModel):
    model_config = ConfigDict(strict=True)

    key_id: str = Field(min_length=1, max_length=128)
    suite: str
    public_key: str
    not_before: int = Field(ge=0, le=_LAST)
    not_after: int | None = Field(None, ge=0, le=_LAST)


class _KeySetClaims(BaseModel):
    model_config = ConfigDict(strict=True)

    version: int = Field(ge=1, lt=2**53)
    issued_at: int = Field(ge=0, le=_LAST)
    keys: list[_PublishedKey] = Field(max_length=MAX_KEYS)


@dataclass(frozen=True, slots=True)
class SealingKeySet:
    """The public keys of a recipient at one time."""

    version: int
    issued_at: int
    """Seconds since 1970."""
    recipients: Sequence[Recipient]
    text: str = ""
    """The signed text that it was read from."""

    def recipient(self, now: float, suites: Collection[SealingSuite] = tuple(SealingSuite)) -> Recipient | None:
        """Return the key to seal to: the newest of these suites that is valid at `now`; `None` if there is none.

        A key that ends soon is used only if there is no other, because an envelope must still open when it arrives.
        """
        valid = [
            one
            for one in self.recipients
            if one.suite in suites and one.not_before <= now and (one.not_after is None or now < one.not_after)
        ]
        lasting = [one for one in valid if one.not_after is None or now + 2 * WINDOW < one.not_after]
        newest_first = reversed(lasting or valid)  # of equal ones, the last in the set
        return max(newest_first, key=lambda one: (one.not_before, one.suite.value), default=None)

    def check_follows(self, known: SealingKeySet) -> None:
        """Raise `KeySetError` (`rolled_back`) if this set is older than `known`, or another one of the same version."""
        if self.version > known.version or (self.version == known.version and self.recipients == known.recipients):
            return
        if self.version == known.version:
            message = f"it differs from the known key set, but has its version {self.version} too: "
        else:
            message = f"it has version {self.version}, but version {known.version} is known: "
        raise KeySetError("rolled_back", f"{message}publish the newest key set")


def verify_key_set(text: str, signers: Mapping[str, str]) -> SealingKeySet:
    """Return the key set that one of `signers` (public keys by id, `load_keys`) has signed; raise `KeySetError`.

    Keys of suites that this version does not have are left out.
    """
    text = text.strip()
    try:
        jws = read_jws(text, max_length=MAX_KEY_SET)
    except MalformedJwsError as error:
        raise KeySetError("malformed", f"this is not a key set: {error}") from None
    algorithm, kid = jws.header.get("alg"), jws.header.get("kid")
    if algorithm != ALGORITHM:
        raise KeySetError("algorithm", f"it is signed with {_short(algorithm)}, but key sets are signed with EdDSA")
    if jws.header.get("typ") != TYPE:
        raise KeySetError("product", f"it is a {_short(jws.header.get('typ'))}, not a key set ({TYPE})")
    signer = signers.get(kid) if isinstance(kid, str) else None
    if signer is None:
        raise KeySetError("unknown_signer", f"it is signed with key {_short(kid)}, which is not in `public_keys`")
    if not is_signed_by(text, signer):
        raise KeySetError("signature", "its signature is not valid: it was changed after it was signed")
    return _read(jws.claims, text)


def sign_key_set(key_set: SealingKeySet, private_key: Ed25519PrivateKey) -> str:
    """Return the signed text of a key set."""
    import jwt  # noqa: PLC0415 - only who publishes keys needs it

    claims = {
        "version": key_set.version,
        "issued_at": key_set.issued_at,
        "keys": [
            {
                "key_id": one.key_id,
                "suite": one.suite.name,
                "public_key": encode_base64url(one.public),
                "not_before": int(one.not_before),
                **({} if one.not_after is None else {"not_after": int(one.not_after)}),
            }
            for one in key_set.recipients
        ],
    }
    headers = {"kid": key_id(public_text(private_key)), "typ": TYPE}
    return jwt.encode(claims, cast("Any", private_key), ALGORITHM, headers=headers)


def _read(claims: Mapping[str, Any], text: str) -> SealingKeySet:
    try:
        read = _KeySetClaims.model_validate(dict(claims))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise KeySetError("claims", f"its member `{where}` is not valid ({first['msg']})") from None
    recipients = []
    for key in read.keys:
        suite = SealingSuite.__members__.get(key.suite)
        if suite is None:
            continue
        try:
            public = decode_base64url(key.public_key)
            recipients.append(Recipient(key.key_id, suite, public, key.not_before, key.not_after))
        except (BadKeyError, ValueError) as error:
            raise KeySetError("claims", f"its key {_short(key.key_id)} is not valid: {error}") from None
    if len({one.key_id for one in recipients}) < len(recipients):
        raise KeySetError("claims", "two of its keys have the same `key_id`")
    return SealingKeySet(read.version, read.issued_at, tuple(recipients), text)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"  # noqa: PLR2004 - long enough for a key id
