"""`License`: the terms of a licence, as its issuer signs them.

A licence, the lease that renews it and its revocation are the same kind of document: each states all terms, and the one
that was issued last (`iat`) is valid.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from otelwp_agent.tier import Tier

PRODUCT: Literal["otelwp-agent"] = "otelwp-agent"
"""Claim `aud`: a licence of another product is refused."""
NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
"""Ids of licences and names of features and limits."""
LEASE_DAYS = 30
"""Days for which a licence is valid without contact with the licence server, if its issuer states no other."""

MAX_FEATURES = 32
"""Most features, and most limits, of a licence."""
MAX_DOMAINS = 100
"""Most domains of a licence. `*.example` is one."""

_LAST_SECOND = 253402300799
"""9999-12-31T23:59:59Z: the last time that `datetime` can hold."""


def _day(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the date in `YYYY-MM-DD`."""
    if isinstance(value, str) and len(value) == len("2027-12-31"):
        return date.fromisoformat(value)
    if type(value) is date:
        return value
    raise ValueError("write a day like `2027-12-31`")


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("use printable characters only")
    return value


def _domain(value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("write a host name like `shop.example`, or `*.example` for all hosts of a domain")
    return value


_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
_Domain = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_domain)]
_Day = Annotated[date, BeforeValidator(_day), PlainSerializer(date.isoformat)]
_Time = Annotated[int, Field(ge=0, le=_LAST_SECOND)]
_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class License(BaseModel):
    """The terms of a licence. Claims that this version does not use are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    aud: Literal["otelwp-agent"] = PRODUCT
    """The product."""
    jti: _Name
    """Id of the licence. It stays the same when the licence is renewed."""
    sub: Annotated[_Text, Field(min_length=1)]
    """The customer."""
    iat: _Time
    """When this document was signed, in seconds since 1970."""
    tier: Literal["free", "pro", "enterprise"]
    """The tier that the licence enables."""
    features: Annotated[list[_Name], Field(max_length=MAX_FEATURES)] = []
    """Features beside the tier."""
    limits: Annotated[dict[_Name, _Number], Field(max_length=MAX_FEATURES)] = {}
    """Limits by name."""
    domains: Annotated[list[_Domain], Field(max_length=MAX_DOMAINS)] = []
    """Host names of the sites that the licence is for; empty for all."""
    not_before: _Day | None = None
    """First day on which the licence is valid (UTC); `None` for immediately."""
    expires: _Day
    """Last day on which the licence is valid: it ends with this day, in UTC."""
    lease: _Time | None = None
    """When the licence must have been renewed by the licence server, in seconds since 1970; `None` for never."""
    revoked: _Text | None = None
    """Why the licence was revoked; `None` if it is valid."""
    nonce: Annotated[str, Field(max_length=64)] | None = None
    """The number of the request that this document answers; `None` if it was issued without a request."""

    @property
    def starts_at(self) -> float:
        """Time from which the licence is valid, in seconds since 1970."""
        return 0.0 if self.not_before is None else _midnight(self.not_before)

    @property
    def ends_at(self) -> float:
        """Time from which the licence is not valid, in seconds since 1970: the end of the day `expires` in UTC."""
        return _midnight(self.expires) + timedelta(days=1).total_seconds()

    @property
    def level(self) -> Tier:
        """The tier that the licence enables."""
        return Tier(self.tier)

    def to_json(self) -> dict[str, Any]:
        """Return the claims, without those that state nothing."""
        return self.model_dump(exclude_none=True)


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
