"""`otelwp-agent tenants`: create, list, show, suspend and resume the customers of a managed collector."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.control_options import (
    MAX_ROWS,
    StoreTarget,
    actor,
    all_pages,
    show,
    show_fields,
    show_table,
    store_command,
    when,
)
from otelwp_agent.cli.options import parse_pairs
from otelwp_agent.control.operations import keys as key_operations
from otelwp_agent.control.operations import plans as plan_operations
from otelwp_agent.control.operations import tenants as operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.control.operations.tenants import Tenant

_id_argument = click.argument("id_", metavar="TENANT")


@click.group()
def tenants() -> None:
    """Create, list, show, suspend and resume tenants, the customers of a managed collector."""


@tenants.command()
@store_command
@_id_argument
@click.option("--name", default="", help="Name for people. Default: the id.")
@click.option("--plan", default=operations.DEFAULT_PLAN, show_default=True, help="Name of the plan.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="Add an attribute. Repeatable.")
def create(  # noqa: PLR0913 - one argument for each option
    *, target: StoreTarget, id_: str, name: str, plan: str, attributes: Sequence[str], as_json: bool
) -> None:
    """Create a tenant. Its id is in its telemetry and metrics and cannot be changed."""
    pairs = parse_pairs(attributes, "attributes")
    with target.writing() as connection:
        tenant = operations.create_tenant(connection, actor(), id_, name=name, plan=plan, attributes=pairs)
    _report(tenant, f"created tenant {tenant.id} with plan {tenant.plan}", as_json=as_json)


@tenants.command("list")
@store_command
@click.option("--plan", help="Only tenants with this plan.")
@click.option("--status", type=click.Choice([operations.ACTIVE, operations.SUSPENDED]), help="Only these tenants.")
def list_(*, target: StoreTarget, plan: str | None, status: str | None, as_json: bool) -> None:
    """List tenants, ordered by id."""
    with target.reading() as connection:
        found = all_pages(
            lambda after: operations.list_tenants(connection, after=after, limit=MAX_ROWS, plan=plan, status=status),
            lambda tenant: tenant.id,
        )
    if as_json:
        show([tenant.to_json() for tenant in found])
        return
    rows = [(each.id, each.name, each.plan, each.status, when(each.created)) for each in found]
    show_table(("id", "name", "plan", "status", "created"), rows, "no tenants")


@tenants.command("show")
@store_command
@_id_argument
def show_tenant(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Show a tenant, the tier of its plan and its API keys."""
    with target.reading() as connection:
        tenant = operations.get_tenant(connection, id_)
        tier = plan_operations.get_plan(connection, tenant.plan).tier
        keys = key_operations.list_keys(connection, tenant=id_, limit=MAX_ROWS)
    if as_json:
        show({**tenant.to_json(), "tier": tier, "keys": [key.to_json() for key in keys]})
        return
    now = datetime.now(UTC)
    attributes = " ".join(f"{name}={value}" for name, value in tenant.attributes.items())
    show_fields(
        {
            "id": tenant.id,
            "name": tenant.name,
            "plan": tenant.plan,
            "tier": tier,
            "status": tenant.status,
            "created": when(tenant.created),
            "attributes": attributes or "-",
        }
    )
    for key in keys:
        click.echo(f"key {key.id}  {key.name}  {key.state(now)}")


@tenants.command()
@store_command
@_id_argument
def suspend(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Refuse the requests of a tenant until it is resumed. Its keys are kept."""
    with target.writing() as connection:
        tenant = operations.suspend_tenant(connection, actor(), id_)
    _report(tenant, f"suspended tenant {id_}", as_json=as_json)


@tenants.command()
@store_command
@_id_argument
def resume(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Accept the requests of a suspended tenant again."""
    with target.writing() as connection:
        tenant = operations.resume_tenant(connection, actor(), id_)
    _report(tenant, f"resumed tenant {id_}", as_json=as_json)


@tenants.command("set-plan")
@store_command
@_id_argument
@click.argument("plan")
def set_plan(*, target: StoreTarget, id_: str, plan: str, as_json: bool) -> None:
    """Give a tenant another plan."""
    with target.writing() as connection:
        tenant = operations.set_tenant_plan(connection, actor(), id_, plan)
    _report(tenant, f"tenant {id_} has plan {plan} now", as_json=as_json)


def _report(tenant: Tenant, text: str, *, as_json: bool) -> None:
    if as_json:
        show(tenant.to_json())
    else:
        click.echo(text)
