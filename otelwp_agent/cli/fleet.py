"""`otelwp-agent fleet`: list, show and control installations of plugins; register versions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.control_options import (
    MAX_ROWS,
    StoreTarget,
    actor,
    all_pages,
    parse_expiry,
    show,
    show_fields,
    show_table,
    store_command,
    when,
)
from otelwp_agent.control.fleet import agents, installations, notifications, overview, toggles, versions
from otelwp_agent.control.fleet.events import PERIOD, count_events, recent_events
from otelwp_agent.control.fleet.status import STATUSES

if TYPE_CHECKING:
    from otelwp_agent.control.fleet.agents import FleetAgent
    from otelwp_agent.control.fleet.toggles import Toggle

_id_argument = click.argument("id_", metavar="INSTALLATION")


@click.group()
def fleet() -> None:
    """List, show and control installations of plugins. INSTALLATION is the id of an installation."""


@fleet.command("list")
@store_command
@click.option("--status", type=click.Choice(STATUSES), help="Only those with this status.")
@click.option("--cms", help="Only those with this CMS.")
@click.option("--tenant", help="Only those of this tenant.")
def list_(*, target: StoreTarget, status: str | None, cms: str | None, tenant: str | None, as_json: bool) -> None:
    """List installations, ordered by id."""
    with target.reading() as connection:
        found = all_pages(
            lambda after: installations.list_installations(
                connection, after=after, limit=MAX_ROWS, status=status, cms=cms, tenant=tenant
            ),
            lambda each: each.id,
        )
    if as_json:
        show([each.to_json() for each in found])
        return
    rows = [
        (
            each.id,
            each.tenant,
            each.cms,
            each.plugin_version,
            each.latest_version or "-",
            each.status,
            f"{each.error_rate:g} %",
            when(each.last_heartbeat),
        )
        for each in found
    ]
    head = ("id", "tenant", "cms", "version", "latest", "status", "errors", "last heartbeat")
    show_table(head, rows, "no installations")


@fleet.command("show")
@store_command
@_id_argument
def show_installation(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Show an installation, its toggles and its last events."""
    now = datetime.now(UTC)
    with target.reading() as connection:
        found = installations.get_installation(connection, id_)
        counts = count_events(connection, [id_], now - PERIOD, now)[id_]
        events = recent_events(connection, id_)
        switched = toggles.list_toggles(connection, id_)
        notices = notifications.list_notices(connection, id_)
        agent = agents.get_agent(connection, id_)
    details = {**found.details(), "errors_24h": counts.errors}
    if as_json:
        more = {
            "recent_events": events,
            "toggles": [each.to_json() for each in switched],
            "notifications": [each.to_json() for each in notices],
            "agent": None if agent is None else agent.to_json(),
        }
        show({**details, **more})
        return
    info = details.pop("server_info")
    lines = {name: "-" if value in {None, ""} else value for name, value in details.items()}
    show_fields({**lines, **{f"server_info.{name}": value for name, value in info.items()}})
    if agent is not None:
        show_fields(_agent_fields(agent))
    for toggle in switched:
        click.echo(f"toggle {_described(toggle)}")
    for notice in notices:
        seen = "acknowledged" if notice.acknowledged_at else "sent" if notice.sent_at else "waiting"
        click.echo(f"notice of {notice.to_version} ({notice.priority}): {seen}")
    for event in events:
        click.echo(f"{event['received']}  {event['severity']}  {event['event_type']}")


@fleet.command()
@store_command
@_id_argument
@click.argument("key", type=click.Choice(toggles.KEYS))
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option("--reason", default="", help="Why; needed for block_plugin.")
@click.option("--expires", metavar="TIME", help="When it ends: a duration such as `7d`, or a time. Default: never.")
@click.option("--yes", "confirmed", is_flag=True, help="Block the plugin without a second operator.")
def toggle(  # noqa: PLR0913 - one argument for each option
    *,
    target: StoreTarget,
    id_: str,
    key: str,
    value: str,
    reason: str,
    expires: str | None,
    confirmed: bool,
    as_json: bool,
) -> None:
    """Set a toggle of INSTALLATION. The reply to its next heartbeat has it."""
    expires_at = parse_expiry(expires)
    with target.writing() as connection:
        found = toggles.set_toggle(
            connection,
            actor(),
            id_,
            key,
            value=value == "on",
            reason=reason,
            expires_at=expires_at,
            confirmed=confirmed,
        )
    if as_json:
        show(found.to_json())
    else:
        click.echo(_described(found))


@fleet.command()
@store_command
def stats(*, target: StoreTarget, as_json: bool) -> None:
    """Show how many installations have which status and CMS, and the alerts."""
    with target.reading() as connection:
        found = overview.statistics(connection, datetime.now(UTC))
    alerts = overview.alerts(found)
    if as_json:
        show({**found.to_json(), "alerts": [each._asdict() for each in alerts]})
        return
    fields = found.to_json()
    breakdown = fields.pop("cms_breakdown")
    show_fields({**fields, **{f"cms {each['cms']}": each["count"] for each in breakdown}})
    for alert in alerts:
        click.echo(f"alert {alert.name}: {alert.summary}")


@fleet.group("versions")
def versions_() -> None:
    """List and register published versions of the plugin."""


@versions_.command("list")
@store_command
@click.option("--cms", help="Only those for this CMS.")
def list_versions(*, target: StoreTarget, cms: str | None, as_json: bool) -> None:
    """List the versions for each CMS, newest first."""
    with target.reading() as connection:
        found = versions.list_versions(connection, cms)
    if as_json:
        show([each.to_json() for each in found])
        return
    rows = [
        (
            each.cms,
            each.version,
            "yes" if each.is_latest else "-",
            "yes" if each.is_critical else "-",
            when(each.created),
        )
        for each in found
    ]
    show_table(("cms", "version", "latest", "critical", "registered"), rows, "no versions")


@versions_.command("add")
@store_command
@click.argument("cms")
@click.argument("version")
@click.option("--not-latest", is_flag=True, help="Register it, but do not make older installations outdated.")
@click.option("--critical", is_flag=True, help="It solves a security problem.")
@click.option("--notes", default="", help="Changes, for the people who update.")
def add_version(  # noqa: PLR0913 - one argument for each option
    *, target: StoreTarget, cms: str, version: str, not_latest: bool, critical: bool, notes: str, as_json: bool
) -> None:
    """Register VERSION for CMS as the latest one."""
    with target.writing() as connection:
        found = versions.register_version(
            connection, actor(), cms, version, is_latest=not not_latest, is_critical=critical, notes=notes
        )
    if as_json:
        show(found.to_json())
    else:
        click.echo(f"registered version {version} for {cms}")


def _agent_fields(agent: FleetAgent) -> dict[str, str]:
    """Return what an agent reports over OpAMP, without its configuration and its components."""
    health = "healthy" if agent.healthy else f"unhealthy: {agent.health.get('last_error') or '-'}"
    config = agent.config_state
    if agent.config_hash:
        config += f" {agent.config_hash[:12]}"
    if agent.config_message:
        config += f": {agent.config_message}"
    fields = {"agent": health, "agent.last_report": when(agent.reported), "agent.remote_config": config}
    unhealthy = agent.health.get("unhealthy", {})
    return {**fields, **{f"agent.unhealthy.{name}": text or "-" for name, text in unhealthy.items()}}


def _described(found: Toggle) -> str:
    state = "pending: a second operator must set it too" if found.pending else "on" if found.value else "off"
    until = f", until {when(found.expires_at)}" if found.expires_at else ""
    reason = f" ({found.reason})" if found.reason else ""
    return f"{found.key} {state}{until}, by {found.updated_by}{reason}"
