"""`SealedError`: an envelope that is refused, with the reason as metric label."""

from __future__ import annotations

from enum import StrEnum

from otelwp_agent.errors import PermanentError


class SealedReason(StrEnum):
    """Why an envelope is refused. The values are metric labels, and the sender gets them in the answer."""

    MALFORMED = "malformed"
    """The bytes are not an envelope of this version."""
    TOO_LARGE = "too_large"
    """The envelope, its header or its content has more bytes than allowed."""
    UNKNOWN_KEY = "unknown_key"
    """There is no key with its key id, or the key is not valid now: the sender must refresh the key set."""
    WRONG_SUITE = "wrong_suite"
    """The suite is unknown, or is not the suite of the key: the sender must refresh the key set."""
    ALTERED = "altered"
    """The ciphertext or the header differs from what was sealed, or it was sealed to another key."""
    STALE = "stale"
    """Its time is too far from the time of the recipient: the sender must seal again, or correct its clock."""
    REPLAYED = "replayed"
    """A message with its id has been accepted before."""
    OTHER_TENANT = "other_tenant"
    """The customer in the header is not the tenant of the sender's credential."""


class SealedError(PermanentError):
    """An envelope is refused; `reason` is a value of `SealedReason`."""

    def __init__(self, reason: SealedReason, message: str) -> None:
        """Refuse for `reason`; the message says what is wrong and what the sender can do."""
        super().__init__(message, reason=reason.value)
