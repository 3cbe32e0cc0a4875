"""`otelwp-agent audit log`: list the changes of the control store, and verify that the log was not altered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.control_options import StoreTarget, show, show_table, store_command, when
from otelwp_agent.control import audit

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group("log")
def log() -> None:
    """List the changes of the control store, and verify that the audit log was not altered."""


@log.command("list")
@store_command
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most rows to list.")
@click.option("--target", "subject", metavar="NAME", help="Only changes of this tenant, plan, key or operator.")
def list_(*, target: StoreTarget, limit: int, subject: str | None, as_json: bool) -> None:
    """List the latest changes, newest first."""
    with target.reading() as connection:
        events = audit.list_events(connection, limit=limit, target=subject)
    if as_json:
        show([event.to_json() for event in events])
        return
    rows = [
        (logged.sequence, when(logged.event.time), logged.event.actor, logged.event.action, logged.event.target)
        for logged in events
    ]
    show_table(("row", "time", "actor", "action", "target"), rows, "the audit log is empty")


@log.command()
@store_command
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="SEQUENCE:HASH",
    help="A head that an earlier `verify` printed; the log must still contain it. Repeatable.",
)
def verify(*, target: StoreTarget, heads: Sequence[str], as_json: bool) -> int:
    """Check that no row of the audit log was altered or removed, and print its head.

    Keep the head in another place and give it to the next `verify`: then it also finds a log that was written again as
    a whole. Exit status: 0 intact, 1 altered (each problem is listed), 2 wrong usage.
    """
    expected = [audit.LogHead.parse(head) for head in heads]
    with target.reading() as connection:
        found = audit.verify(connection, expected)
    if as_json:
        show(found.to_json())
    else:
        for problem in found.problems:
            click.echo(problem, err=True)
        rows = f"{found.rows} row{'' if found.rows == 1 else 's'}"
        click.echo(f"{rows}, {'ALTERED' if found.problems else 'intact'}")
        click.echo(f"head {found.head}")
    return 1 if found.problems else 0
