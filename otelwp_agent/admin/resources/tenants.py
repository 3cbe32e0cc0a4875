"""`/tenants`: create, list, read and change tenants."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's annotation
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field, model_validator

from otelwp_agent.admin.models import ApiModel, Attributes, ListPage, Name, PageQuery, Title
from otelwp_agent.admin.operation import PREFIX, TENANT, ApiOperation
from otelwp_agent.admin.pages import paged
from otelwp_agent.admin.problems import InvalidValue, ProblemError
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.errors import UnknownNameError
from otelwp_agent.control.operations import plans
from otelwp_agent.control.operations import tenants as operations
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall

Status = Literal["active", "suspended"]


class TenantView(ApiModel):
    """A tenant."""

    id: Name
    name: str
    plan: Name
    """Name of its plan."""
    status: Status
    """The requests of a suspended tenant are refused."""
    attributes: dict[str, str]
    created: datetime


class TenantQuery(PageQuery):
    """The tenants to list."""

    plan: Name | None = None
    """Only the tenants with this plan."""
    status: Status | None = None
    """Only the tenants with this status."""


class NewTenant(ApiModel):
    """A tenant to create."""

    id: Name
    name: Title | None = None
    """Name for people. Default: the id."""
    plan: Name = operations.DEFAULT_PLAN
    attributes: Attributes = Field(default_factory=dict)


class TenantChange(ApiModel):
    """The fields of a tenant to change; fields that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: Title = Field(default_factory=str)
    plan: Name = Field(default_factory=str)
    status: Status = Field(default_factory=lambda: "active")
    attributes: Attributes = Field(default_factory=dict)
    """All attributes of the tenant: those that are left out are removed."""

    @model_validator(mode="after")
    def _changes_something(self) -> TenantChange:
        if not self.model_fields_set:
            raise ValueError("nothing is changed: give at least one field")
        return self


def _list(connection: Connection, call: ApiCall) -> object:
    query: TenantQuery = call.query
    return paged(
        query,
        lambda after, limit: operations.list_tenants(
            connection, after=after, limit=limit, plan=query.plan, status=query.status
        ),
        lambda tenant: tenant.id,
        lambda tenant: tenant.to_json(),
    )


def _create(connection: Connection, call: ApiCall) -> object:
    new: NewTenant = call.body
    _check_plan(connection, new.plan)
    return operations.create_tenant(
        connection, call.actor, new.id, name=new.name or "", plan=new.plan, attributes=new.attributes
    ).to_json()


def _get(connection: Connection, call: ApiCall) -> object:
    return operations.get_tenant(connection, call.path[TENANT]).to_json()


def _change(connection: Connection, call: ApiCall) -> object:
    id_, actor = call.path[TENANT], call.actor
    change: TenantChange = call.body
    given = change.model_fields_set
    if call.principal.role is None and given & {"plan", "status"}:
        raise ProblemError(403, "an API key may change the name and the attributes of its tenant only")
    tenant = operations.get_tenant(connection, id_)
    if given & {"name", "attributes"}:
        tenant = operations.update_tenant(
            connection,
            actor,
            id_,
            name=change.name if "name" in given else None,
            attributes=change.attributes if "attributes" in given else None,
        )
    if "plan" in given:
        _check_plan(connection, change.plan)
        tenant = operations.set_tenant_plan(connection, actor, id_, change.plan)
    if "status" in given:
        set_status = operations.resume_tenant if change.status == operations.ACTIVE else operations.suspend_tenant
        tenant = set_status(connection, actor, id_)
    return tenant.to_json()


def _check_plan(connection: Connection, name: str) -> None:
    """Refuse a body that names a plan that does not exist."""
    try:
        plans.get_plan(connection, name)
    except UnknownNameError as error:
        raise ProblemError(409, str(error), errors=[InvalidValue(pointer="#/plan", detail=str(error))]) from None


_ONE = f"{PREFIX}/tenants/{{{TENANT}}}"
OPERATIONS = (
    ApiOperation(
        "GET",
        f"{PREFIX}/tenants",
        "listTenants",
        "List tenants, ordered by id",
        _list,
        query=TenantQuery,
        answer=ListPage[TenantView],
    ),
    ApiOperation(
        "POST",
        f"{PREFIX}/tenants",
        "createTenant",
        "Create a tenant",
        _create,
        role=Role.OPERATOR,
        body=NewTenant,
        gives={TENANT: "id"},
        answer=TenantView,
        status=201,
    ),
    ApiOperation("GET", _ONE, "getTenant", "Read a tenant", _get, scopes=(Scope.OPS_READ,), answer=TenantView),
    ApiOperation(
        "PATCH",
        _ONE,
        "changeTenant",
        "Change a tenant. API keys may change the name and the attributes",
        _change,
        role=Role.OPERATOR,
        scopes=(Scope.OPS_WRITE,),
        body=TenantChange,
        answer=TenantView,
    ),
)
