"""`LicenseTerms`: the terms of a licence as its issuer sets them, and the document that is signed for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from pydantic import ValidationError

from otelwp_agent.licensing.license import LEASE_DAYS, License
from otelwp_agent.licensing.signatures import MAX_LICENSE, signed_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

MAX_LEASE_DAYS = 366

_DAY = 86400
_NONCE = 64
"""Characters of the longest nonce."""


@dataclass(frozen=True, slots=True)
class LicenseTerms:
    """The terms of a licence."""

    customer: str
    tier: str
    expires: date
    """Last day of the licence, in UTC."""
    not_before: date | None = None
    """First day of the licence, in UTC; `None` for immediately."""
    features: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    domains: Sequence[str] = ()
    lease_days: int | None = LEASE_DAYS
    """Days for which a renewal is valid; `None` for a licence that needs no renewals."""

    def signable(self, id_: str, now: float, *, revoked: str | None = None, nonce: str | None = None) -> License:
        """Return the document of the licence `id_` to sign at the time `now`, in seconds since 1970.

        `revoked` is the reason of a revocation; `nonce` is that of the request. Raises `ValidationError`.
        """
        issued = int(now)
        return License(
            jti=id_,
            sub=self.customer,
            iat=issued,
            tier=cast("Literal['free', 'pro', 'enterprise']", self.tier),
            features=list(self.features),
            limits=dict(self.limits),
            domains=list(self.domains),
            not_before=self.not_before,
            expires=self.expires,
            lease=None if self.lease_days is None else issued + self.lease_days * _DAY,
            revoked=revoked,
            nonce=nonce,
        )

    def check(self, id_: str, now: float) -> None:
        """Check that a licence with these terms can be signed; raise `ValueError` that names the wrong value."""
        if self.lease_days is not None and not 1 <= self.lease_days <= MAX_LEASE_DAYS:
            message = f"lease_days must be from 1 to {MAX_LEASE_DAYS}, not {self.lease_days}"
            raise ValueError(message)
        if self.not_before is not None and self.not_before > self.expires:
            message = f"not_before ({self.not_before}) is after expires ({self.expires})"
            raise ValueError(message)
        try:
            length = signed_length(self.signable(id_, now, nonce="n" * _NONCE))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = {"jti": "id", "sub": "customer"}.get(str(first["loc"][0]), ".".join(map(str, first["loc"])))
            message = f"{name}: {first['msg']}"
            raise ValueError(message) from None
        if length > MAX_LICENSE:
            message = f"the licence would have {length} characters, but the most is {MAX_LICENSE}: give fewer domains"
            raise ValueError(message)
