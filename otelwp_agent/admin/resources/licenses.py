"""`/licenses`: the licences of agents. `license_server` and `otelwp-agent licenses sign` sign them."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from otelwp_agent.admin.models import PRINTABLE, WHOLE, ApiModel, ListPage, Name, PageQuery, Title
from otelwp_agent.admin.operation import PREFIX, ApiOperation
from otelwp_agent.admin.pages import paged
from otelwp_agent.admin.resources.plans import Tier  # noqa: TC001 - pydantic reads it
from otelwp_agent.control.operations import licenses as operations
from otelwp_agent.control.operations.operators import Role
from otelwp_agent.licensing.license import LEASE_DAYS, MAX_DOMAINS, MAX_FEATURES
from otelwp_agent.licensing.terms import MAX_LEASE_DAYS, LicenseTerms

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall


def _iso_day(value: Any) -> Any:  # noqa: ANN401 - anything that a client sends
    """Refuse forms of days that only pydantic reads, such as numbers."""
    if not isinstance(value, str) or len(value) != len("2027-12-31"):
        raise ValueError("write a day like `2027-12-31`")
    return date.fromisoformat(value)


Day = Annotated[date, BeforeValidator(_iso_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A day, in UTC."""
HostName = Annotated[str, Field(pattern=r"^[!-~]{1,253}$")]
"""A host name, or `*.example` for all hosts of a domain."""
_Limits = Annotated[
    dict[Name, Annotated[float, Field(strict=True, ge=0, le=1e12, allow_inf_nan=False)]],
    Field(max_length=MAX_FEATURES, json_schema_extra={"additionalProperties": False}),
]


class LicenseSettings(ApiModel):
    """The terms of a licence."""

    customer: Title
    tier: Tier
    expires: Day
    """Last day of the licence, in UTC."""
    not_before: Day | None = None
    """First day of the licence, in UTC. Default: immediately."""
    features: Annotated[list[Name], Field(max_length=MAX_FEATURES)] = []  # noqa: RUF012
    """Features beside the tier."""
    limits: _Limits = {}  # noqa: RUF012
    """Limits by name."""
    domains: Annotated[list[HostName], Field(max_length=MAX_DOMAINS)] = []  # noqa: RUF012
    """Host names of the sites that the licence is for; empty for all."""
    lease_days: Annotated[int, Field(strict=True, ge=1, le=MAX_LEASE_DAYS), WHOLE] | None = LEASE_DAYS
    """Days for which a renewal is valid; `null` for a licence that needs no renewals."""


class LicenseView(LicenseSettings):
    """A licence."""

    id: Name
    revoked: datetime | None
    revocation_reason: Annotated[str, Field(max_length=200, json_schema_extra={"format": PRINTABLE})]
    created: datetime


class LicenseQuery(PageQuery):
    """The licences to list."""

    customer: Title | None = None
    """Only those of this customer."""


class Revocation(ApiModel):
    """Why a licence is revoked."""

    reason: Title
    """Agents show it."""


def _list(connection: Connection, call: ApiCall) -> object:
    query: LicenseQuery = call.query
    return paged(
        query,
        lambda after, limit: operations.list_licenses(connection, after=after, limit=limit, customer=query.customer),
        lambda each: each.id,
        lambda each: each.to_json(),
    )


def _get(connection: Connection, call: ApiCall) -> object:
    return operations.get_license(connection, call.path["license"]).to_json()


def _set(connection: Connection, call: ApiCall) -> object:
    settings: LicenseSettings = call.body
    terms = LicenseTerms(**{name: getattr(settings, name) for name in LicenseSettings.model_fields})
    return operations.set_license(connection, call.actor, call.path["license"], terms).to_json()


def _revoke(connection: Connection, call: ApiCall) -> object:
    return operations.revoke_license(connection, call.actor, call.path["license"], call.body.reason).to_json()


def _restore(connection: Connection, call: ApiCall) -> object:
    return operations.restore_license(connection, call.actor, call.path["license"]).to_json()


_ONE = f"{PREFIX}/licenses/{{license}}"
_IDS = {"license": "id"}
OPERATIONS = (
    ApiOperation(
        "GET",
        f"{PREFIX}/licenses",
        "listLicenses",
        "List licences, ordered by id",
        _list,
        query=LicenseQuery,
        answer=ListPage[LicenseView],
    ),
    ApiOperation("GET", _ONE, "getLicense", "Read a licence", _get, answer=LicenseView),
    ApiOperation(
        "PUT",
        _ONE,
        "setLicense",
        "Create a licence, or replace its terms",
        _set,
        role=Role.OPERATOR,
        body=LicenseSettings,
        gives=_IDS,
        answer=LicenseView,
    ),
    ApiOperation(
        "POST",
        f"{_ONE}/revoke",
        "revokeLicense",
        "Revoke a licence: its agents get the free tier",
        _revoke,
        role=Role.OPERATOR,
        body=Revocation,
        gives=_IDS,
        answer=LicenseView,
    ),
    ApiOperation(
        "POST",
        f"{_ONE}/restore",
        "restoreLicense",
        "Undo the revocation of a licence",
        _restore,
        role=Role.OPERATOR,
        gives=_IDS,
        answer=LicenseView,
    ),
)
