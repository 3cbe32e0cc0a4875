"""`otelwp-agent plans`: set, list, show and delete the plans of tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.control_options import (
    StoreTarget,
    actor,
    show,
    show_fields,
    show_table,
    store_command,
)
from otelwp_agent.cli.options import parse_pairs
from otelwp_agent.control.operations import plans as operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.control.operations.plans import TenantPlan


@click.group()
def plans() -> None:
    """Set, list, show and delete plans: the tier, limits and retention of tenants."""


@plans.command("set")
@store_command
@click.argument("name")
@click.option("--tier", required=True, type=click.Choice(operations.TIERS), help="Tier of its tenants.")
@click.option(
    "--limit", "limits", multiple=True, metavar="NAME=NUMBER", help=f"{', '.join(operations.LIMITS)}. Repeatable."
)
@click.option("--retention-days", type=int, help="How long data are kept. Default: no limit.")
def set_(  # noqa: PLR0913 - one argument for each option
    *,
    target: StoreTarget,
    name: str,
    tier: str,
    limits: Sequence[str],
    retention_days: int | None,
    as_json: bool,
) -> None:
    """Create the plan NAME, or replace all its settings. A limit that is not given does not limit."""
    numbers = {limit: _number(value) for limit, value in parse_pairs(limits, "limits").items()}
    with target.writing() as connection:
        plan = operations.set_plan(connection, actor(), name, tier=tier, limits=numbers, retention_days=retention_days)
    if as_json:
        show(plan.to_json())
    else:
        click.echo(f"plan {name}: tier {tier}, {_limits(plan)}")


@plans.command("list")
@store_command
def list_(*, target: StoreTarget, as_json: bool) -> None:
    """List plans, ordered by name."""
    with target.reading() as connection:
        found = operations.list_plans(connection)
    if as_json:
        show([plan.to_json() for plan in found])
        return
    rows = [(plan.name, plan.tier, _retention(plan), _limits(plan)) for plan in found]
    show_table(("name", "tier", "retention", "limits"), rows, "no plans")


@plans.command("show")
@store_command
@click.argument("name")
def show_plan(*, target: StoreTarget, name: str, as_json: bool) -> None:
    """Show a plan."""
    with target.reading() as connection:
        plan = operations.get_plan(connection, name)
    if as_json:
        show(plan.to_json())
        return
    limits = {limit: _text(plan.limits.get(limit)) for limit in operations.LIMITS}
    show_fields({"name": plan.name, "tier": plan.tier, "retention": _retention(plan), **limits})


@plans.command()
@store_command
@click.argument("name")
def delete(*, target: StoreTarget, name: str, as_json: bool) -> None:
    """Delete a plan that no tenant has."""
    with target.writing() as connection:
        operations.delete_plan(connection, actor(), name)
    if as_json:
        show({"deleted": name})
    else:
        click.echo(f"deleted plan {name}")


def _number(text: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        message = f"{text!r} is not a number"
        raise click.BadParameter(message) from None


def _limits(plan: TenantPlan) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in plan.limits.items()) or "no limits"


def _retention(plan: TenantPlan) -> str:
    return "-" if plan.retention_days is None else f"{plan.retention_days}d"


def _text(number: float | None) -> str:
    return "-" if number is None else f"{number:g}" if number != int(number) else str(int(number))
