"""`/plans`: the tier, limits and retention of tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from otelwp_agent.admin.models import WHOLE, ApiModel, ListPage, Name, PageQuery
from otelwp_agent.admin.operation import PREFIX, ApiOperation
from otelwp_agent.admin.pages import paged
from otelwp_agent.control.operations import plans as operations
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall

_Limit = Annotated[float, Field(strict=True, gt=0, le=1e12, allow_inf_nan=False)]
Retention = Annotated[int, Field(strict=True, ge=1, le=36500), WHOLE]
Tier = Literal["free", "pro", "enterprise"]

_LIMITS: dict[str, Any] = dict.fromkeys(operations.LIMITS, (_Limit | None, None))


class PlanLimits(create_model("_PlanLimits", __base__=ApiModel, **_LIMITS)):  # type: ignore[misc] # made of the list
    """Limits of a plan. One that is left out does not limit; a burst is one second of its rate by default."""


class PlanSettings(ApiModel):
    """The settings of a plan."""

    tier: Tier
    limits: PlanLimits = Field(default_factory=PlanLimits)
    retention_days: Retention | None = None
    """Days for which data are kept. Default: no limit."""


class PlanView(ApiModel):
    """A plan."""

    name: Name
    tier: Tier
    limits: PlanLimits
    retention_days: Retention | None


def _list(connection: Connection, call: ApiCall) -> object:
    return paged(
        call.query,
        lambda after, limit: operations.list_plans(connection, after=after, limit=limit),
        lambda plan: plan.name,
        lambda plan: plan.to_json(),
    )


def _get(connection: Connection, call: ApiCall) -> object:
    return operations.get_plan(connection, call.path["plan"]).to_json()


def _set(connection: Connection, call: ApiCall) -> object:
    settings: PlanSettings = call.body
    return operations.set_plan(
        connection,
        call.actor,
        call.path["plan"],
        tier=settings.tier,
        limits=settings.limits.model_dump(exclude_none=True),
        retention_days=settings.retention_days,
    ).to_json()


def _delete(connection: Connection, call: ApiCall) -> object:
    operations.delete_plan(connection, call.actor, call.path["plan"])
    return None


_ONE = f"{PREFIX}/plans/{{plan}}"
OPERATIONS = (
    ApiOperation(
        "GET",
        f"{PREFIX}/plans",
        "listPlans",
        "List plans, ordered by name",
        _list,
        query=PageQuery,
        answer=ListPage[PlanView],
    ),
    ApiOperation("GET", _ONE, "getPlan", "Read a plan", _get, answer=PlanView),
    ApiOperation(
        "PUT",
        _ONE,
        "setPlan",
        "Create a plan, or replace its settings",
        _set,
        role=Role.OPERATOR,
        body=PlanSettings,
        gives={"plan": "name"},
        answer=PlanView,
    ),
    ApiOperation(
        "DELETE", _ONE, "deletePlan", "Delete a plan that no tenant has", _delete, role=Role.OPERATOR, status=204
    ),
)
