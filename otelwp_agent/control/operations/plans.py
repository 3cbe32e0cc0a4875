"""Plans: the tier, limits and retention of tenants."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from otelwp_agent.control.errors import ConflictError, InvalidValueError, UnknownNameError
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import values
from otelwp_agent.control.tables import PLANS, TENANTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row

TIERS = ("free", "pro", "enterprise")
LIMITS = (
    "requests_per_second",
    "request_burst",
    "items_per_second",
    "item_burst",
    "bytes_per_second",
    "byte_burst",
    "concurrent_requests",
    "sampling_rate",
    "traces_per_second",
    "configuration",
)
"""Limits of a plan. One that is left out does not limit; a burst that is left out is one second of its rate.

The last three are hints to the tenant's agents: the part of all traces and the traces per second that they should send,
and the version of the configuration that they should have."""
_MAX_RETENTION = 36500


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """A plan as stored. `retention_days` is `None` for no limit."""

    name: str
    tier: str
    limits: Mapping[str, float]
    retention_days: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan for JSON output."""
        return asdict(self)


def set_plan(  # noqa: PLR0913 - the columns of a plan
    connection: Connection,
    actor: Actor,
    name: str,
    *,
    tier: str,
    limits: Mapping[str, float],
    retention_days: int | None = None,
) -> TenantPlan:
    """Create the plan `name`, or replace its settings."""
    change = Mutation(connection, actor)
    if tier not in TIERS:
        raise InvalidValueError(f"{tier!r} is not a tier: use {', '.join(TIERS)}")
    unknown = sorted(set(limits) - set(LIMITS))
    if unknown:
        raise InvalidValueError(f"{', '.join(unknown)}: no such limit; the limits are {', '.join(LIMITS)}")
    if retention_days is not None and not 1 <= retention_days <= _MAX_RETENTION:
        raise InvalidValueError(f"retention_days must be from 1 to {_MAX_RETENTION}, not {retention_days}")
    checked = {limit: values.number(limits[limit], limit) for limit in LIMITS if limit in limits}
    plan = TenantPlan(values.name(name, "name of a plan"), tier, checked, retention_days)
    before = _find(connection, name)
    row = {"tier": tier, "limits": checked, "retention_days": retention_days, "changed": change.version}
    if before is None:
        connection.execute(insert(PLANS).values(name=name, created=change.now, **row))
    else:
        connection.execute(update(PLANS).where(PLANS.c.name == name).values(**row))
    change.audit("plan.set", name, None if before is None else before.to_json(), plan.to_json())
    return plan


def get_plan(connection: Connection, name: str) -> TenantPlan:
    """Return a plan."""
    plan = _find(connection, name)
    if plan is None:
        raise UnknownNameError(f"there is no plan {name!r}: see `otelwp-agent plans list`")
    return plan


def list_plans(connection: Connection, *, after: str = "", limit: int = values.MAX_PAGE) -> list[TenantPlan]:
    """Return up to `limit` plans, ordered by name, with names after `after`."""
    query = select(PLANS).where(PLANS.c.name > after).order_by(PLANS.c.name).limit(values.page(limit))
    return [_plan(row) for row in connection.execute(query)]


def delete_plan(connection: Connection, actor: Actor, name: str) -> None:
    """Delete a plan that no tenant has."""
    change = Mutation(connection, actor)
    plan = get_plan(connection, name)
    tenants = connection.execute(select(func.count()).select_from(TENANTS).where(TENANTS.c.plan == name)).scalar_one()
    if tenants:
        raise ConflictError(
            f"plan {name} has {tenants} tenant{'' if tenants == 1 else 's'}: give them another plan first "
            "(`otelwp-agent tenants set-plan`)"
        )
    connection.execute(delete(PLANS).where(PLANS.c.name == name))
    change.audit("plan.delete", name, plan.to_json())


def _find(connection: Connection, name: str) -> TenantPlan | None:
    row = connection.execute(select(PLANS).where(PLANS.c.name == name)).one_or_none()
    return None if row is None else _plan(row)


def _plan(row: Row[Any]) -> TenantPlan:
    return TenantPlan(row.name, row.tier, dict(row.limits), row.retention_days)
