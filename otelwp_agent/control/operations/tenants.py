"""Tenants: the customers of a managed collector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from otelwp_agent.control.errors import ConflictError, UnknownNameError
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import plans, values
from otelwp_agent.control.tables import TENANTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Row

ACTIVE = "active"
SUSPENDED = "suspended"
DEFAULT_PLAN = "free"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as stored."""

    id: str
    name: str
    plan: str
    status: str
    attributes: Mapping[str, str]
    created: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the tenant for JSON output."""
        return {**asdict(self), "created": self.created.isoformat()}


def create_tenant(  # noqa: PLR0913 - the columns of a tenant
    connection: Connection,
    actor: Actor,
    id_: str,
    *,
    name: str = "",
    plan: str = DEFAULT_PLAN,
    attributes: Mapping[str, str] | None = None,
) -> Tenant:
    """Create a tenant; its `name` is its id by default."""
    change = Mutation(connection, actor)
    tenant = Tenant(
        id=values.name(id_, "id of a tenant"),
        name=values.title(name or id_, "name of a tenant"),
        plan=plans.get_plan(connection, plan).name,
        status=ACTIVE,
        attributes=values.attributes(attributes or {}),
        created=change.now,
    )
    if _find(connection, id_) is not None:
        raise ConflictError(f"there is a tenant {id_} already: give another id")
    connection.execute(insert(TENANTS).values(**asdict(tenant), changed=change.version))
    change.audit("tenant.create", id_, None, tenant.to_json())
    return tenant


def get_tenant(connection: Connection, id_: str) -> Tenant:
    """Return a tenant."""
    tenant = _find(connection, id_)
    if tenant is None:
        raise UnknownNameError(f"there is no tenant {id_!r}: see `otelwp-agent tenants list`")
    return tenant


def list_tenants(
    connection: Connection,
    *,
    after: str = "",
    limit: int = 100,
    plan: str | None = None,
    status: str | None = None,
) -> list[Tenant]:
    """Return up to `limit` tenants, ordered by id, with ids after `after`; only those of a plan or status if given."""
    query = select(TENANTS).where(TENANTS.c.id > after).order_by(TENANTS.c.id).limit(values.page(limit))
    if plan is not None:
        query = query.where(TENANTS.c.plan == plan)
    if status is not None:
        query = query.where(TENANTS.c.status == status)
    return [_tenant(row) for row in connection.execute(query)]


def suspend_tenant(connection: Connection, actor: Actor, id_: str) -> Tenant:
    """Refuse the requests of a tenant until it is resumed."""
    return _set(connection, actor, id_, "tenant.suspend", status=SUSPENDED)


def resume_tenant(connection: Connection, actor: Actor, id_: str) -> Tenant:
    """Accept the requests of a suspended tenant again."""
    return _set(connection, actor, id_, "tenant.resume", status=ACTIVE)


def set_tenant_plan(connection: Connection, actor: Actor, id_: str, plan: str) -> Tenant:
    """Give a tenant another plan."""
    return _set(connection, actor, id_, "tenant.set_plan", plan=plan)


def update_tenant(
    connection: Connection,
    actor: Actor,
    id_: str,
    *,
    name: str | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Tenant:
    """Replace the name or the attributes of a tenant; `None` keeps them."""
    new: dict[str, Any] = {}
    if name is not None:
        new["name"] = values.title(name, "name of a tenant")
    if attributes is not None:
        new["attributes"] = values.attributes(attributes)
    return _set(connection, actor, id_, "tenant.update", **new)


def _set(connection: Connection, actor: Actor, id_: str, action: str, **new: Any) -> Tenant:  # noqa: ANN401 - columns
    change = Mutation(connection, actor)
    before = get_tenant(connection, id_)
    if "plan" in new:
        plans.get_plan(connection, new["plan"])
    after = Tenant(**{**asdict(before), **new})
    connection.execute(update(TENANTS).where(TENANTS.c.id == id_).values(**new, changed=change.version))
    change.audit(action, id_, before.to_json(), after.to_json())
    return after


def _find(connection: Connection, id_: str) -> Tenant | None:
    row = connection.execute(select(TENANTS).where(TENANTS.c.id == id_)).one_or_none()
    return None if row is None else _tenant(row)


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(row.id, row.name, row.plan, row.status, dict(row.attributes), row.created)
