"""`otelwp-agent control`: create, upgrade and check the control store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import func, select

from otelwp_agent.cli.control_options import StoreTarget, show, show_fields, store_command
from otelwp_agent.control import audit, revisions
from otelwp_agent.control.errors import StoreError
from otelwp_agent.control.tables import KEYS, OPERATORS, TENANTS

if TYPE_CHECKING:
    from sqlalchemy import Connection


@click.group()
def control() -> None:
    """Create, upgrade and check the control store: tenants, plans, API keys, operators and the audit log."""


@control.command()
@store_command
def migrate(*, target: StoreTarget, as_json: bool) -> None:
    """Create the store, or upgrade it to the version of this agent; create the pepper if there is none.

    Back up a store before it is upgraded. Back up the pepper too: without it, no API key of the store is accepted.
    """
    place = target.place
    try:
        done = place.migrate()
    finally:
        place.store.close()
    if as_json:
        show(
            {
                "store": place.store.location,
                "before": done.before,
                "revision": done.revision,
                "pepper": place.pepper_place,
                "pepper_created": done.pepper_created,
            }
        )
        return
    if done.before is None:
        click.echo(f"created the control store {place.store.location}, revision {done.revision}")
    elif done.before == done.revision:
        click.echo(f"the control store {place.store.location} has revision {done.revision} already")
    else:
        click.echo(f"upgraded the control store {place.store.location} from revision {done.before} to {done.revision}")
    if done.pepper_created:
        click.echo(f"created the pepper {place.pepper_place}: back it up, apart from the store")


@control.command()
@store_command
def check(*, target: StoreTarget, as_json: bool) -> int:
    """Check that the store can be read and written, its version, pepper, file and audit log.

    Exit status: 0 no problem, 1 problems (each is listed), 2 wrong usage.
    """
    store = target.place.store
    problems: list[str] = []
    figures: dict[str, Any] = {"store": store.location}
    try:
        with store.read() as connection:
            figures |= _figures(connection)
            problems += audit.verify(connection).problems
            try:
                target.hasher(connection)
            except StoreError as error:
                problems.append(str(error))
        problems += store.check_file()
        with store.write():
            pass
    except StoreError as error:
        problems.append(str(error))
    finally:
        store.close()
    if as_json:
        show({**figures, "problems": problems})
    else:
        show_fields(figures)
        for problem in problems:
            click.echo(f"problem: {problem}", err=True)
        if not problems:
            click.echo("no problems")
    return 1 if problems else 0


def _figures(connection: Connection) -> dict[str, Any]:
    def count(table: Any) -> int:  # noqa: ANN401 - a table
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    return {
        "revision": revisions.current(connection),
        "tenants": count(TENANTS),
        "keys": count(KEYS),
        "operators": count(OPERATORS),
    }
