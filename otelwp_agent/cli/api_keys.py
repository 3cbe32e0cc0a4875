"""`otelwp-agent api-keys`: create, list, revoke and rotate the API keys of tenants."""

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
    parse_period,
    show,
    show_table,
    store_command,
    when,
)
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.operations import keys as operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.control.operations.keys import CreatedKey

_id_argument = click.argument("id_", metavar="KEY")


@click.group()
def api_keys() -> None:
    """Create, list, revoke and rotate API keys. KEY is the id of a key, as `api-keys list` shows it."""


@api_keys.command()
@store_command
@click.argument("tenant")
@click.option("--name", default=operations.DEFAULT_NAME, show_default=True, help="Purpose of the key.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    default=[scope.value for scope in operations.DEFAULT_SCOPES],
    show_default=True,
    help="What the key permits. Repeatable.",
)
@click.option(
    "--expires", metavar="WHEN", help="A duration (`90d`) or a time (`2030-01-01T00:00:00Z`). Default: never."
)
def create(  # noqa: PLR0913 - one argument for each option
    *, target: StoreTarget, tenant: str, name: str, scopes: Sequence[str], expires: str | None, as_json: bool
) -> None:
    """Create an API key of TENANT and print it. It is shown only once."""
    end = parse_expiry(expires)
    with target.writing() as connection:
        hasher = target.hasher(connection)
        created = operations.create_key(
            connection,
            actor(),
            hasher,
            tenant,
            name=name,
            scopes=operations.parse_scopes(scopes),
            expires=end,
        )
    _report(created, f"created key {created.key.id} of tenant {tenant}", as_json=as_json)


@api_keys.command("list")
@store_command
@click.argument("tenant", required=False)
@click.option("--live", is_flag=True, help="Only keys that are neither revoked nor expired.")
def list_(*, target: StoreTarget, tenant: str | None, live: bool, as_json: bool) -> None:
    """List the API keys of TENANT, or of all tenants, ordered by id."""
    with target.reading() as connection:
        found = all_pages(
            lambda after: operations.list_keys(connection, tenant=tenant, after=after, limit=MAX_ROWS, live=live),
            lambda key: key.id,
        )
    now = datetime.now(UTC)
    if as_json:
        show([{**key.to_json(), "state": key.state(now)} for key in found])
        return
    rows = [
        (
            key.id,
            key.tenant,
            key.name,
            ",".join(scope.value for scope in key.scopes),
            key.state(now),
            when(key.created),
            when(key.expires),
            when(key.last_used),
        )
        for key in found
    ]
    show_table(("id", "tenant", "name", "scopes", "state", "created", "expires", "last used"), rows, "no keys")


@api_keys.command()
@store_command
@_id_argument
def revoke(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Refuse a key from now on. Running agents refuse it within a second."""
    with target.writing() as connection:
        key = operations.revoke_key(connection, actor(), id_)
    if as_json:
        show(key.to_json())
    else:
        click.echo(f"revoked key {key.id} of tenant {key.tenant}")


@api_keys.command()
@store_command
@_id_argument
@click.option(
    "--grace",
    metavar="DURATION",
    default="1d",
    show_default=True,
    help="How long the old key is accepted; 0: revoke it.",
)
def rotate(*, target: StoreTarget, id_: str, grace: str, as_json: bool) -> None:
    """Create a key like KEY and print it; KEY is accepted until the grace period ends. It is shown only once."""
    period = parse_period(grace)
    with target.writing() as connection:
        created = operations.rotate_key(connection, actor(), target.hasher(connection), id_, grace=period)
    text = f"created key {created.key.id} of tenant {created.key.tenant}, which replaces {id_} ({grace} of grace)"
    _report(created, text, as_json=as_json)


def _report(created: CreatedKey, text: str, *, as_json: bool) -> None:
    """Print the key to stdout, alone, so that scripts can use it."""
    if as_json:
        show({**created.key.to_json(), "key": created.text})
        return
    click.echo(f"{text}. Store it now: it cannot be shown again.", err=True)
    click.echo(created.text)
