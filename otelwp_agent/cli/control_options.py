"""Options and output that the commands of the control store share."""

from __future__ import annotations

import functools
import json
import os
import pwd
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from otelwp_agent.cli.options import config_options, load_plan
from otelwp_agent.component import Kind
from otelwp_agent.config.types import parse_duration
from otelwp_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from otelwp_agent.control.api_keys import Hasher
    from otelwp_agent.control.mutation import Actor
    from otelwp_agent.control.opening import StorePlace

T = TypeVar("T")

EXTENSION = "control_store"
STORE_VARIABLE = "OTELWP_CONTROL_STORE"
PEPPER_VARIABLE = "OTELWP_CONTROL_PEPPER_FILE"

MAX_ROWS = 1000
"""Rows that are read at once for a list."""


class StoreTarget:
    """The store that the options name."""

    def __init__(self, place: StorePlace) -> None:
        """Use the store at `place`."""
        self.place = place

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Return a connection for a transaction that only reads, and close the store afterwards."""
        try:
            with self.place.store.read() as connection:
                yield connection
        finally:
            self.place.store.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Return a connection for a transaction, and close the store afterwards."""
        try:
            with self.place.store.write() as connection:
                yield connection
        finally:
            self.place.store.close()

    def hasher(self, connection: Connection) -> Hasher:
        """Return the hasher of API keys and tokens."""
        return self.place.hasher(connection)


def store_command(command: Callable[..., T]) -> Callable[..., T]:
    """Add the options that name the store, and `--json`; the command gets them as `target` and `as_json`."""

    @functools.wraps(command)
    def run(
        *,
        config: Sequence[str],
        overrides: Sequence[str],
        store: str | None,
        pepper_file: str | None,
        **rest: Any,  # noqa: ANN401 - the options of the command
    ) -> T:
        return command(target=StoreTarget(_place(config, overrides, store, pepper_file)), **rest)

    wrapped: Any = run
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
        click.option(
            "--pepper-file",
            metavar="FILE",
            envvar=PEPPER_VARIABLE,
            help="The pepper of API keys. Default: that of the configuration; for SQLite, `<store>.pepper`.",
        ),
        click.option(
            "--store",
            metavar="URL",
            envvar=STORE_VARIABLE,
            help="The store: `sqlite:///PATH` or `postgresql://…`; not needed with --config.",
        ),
    ):
        wrapped = option(wrapped)
    result: Callable[..., T] = config_options(wrapped, required=False)
    return result


def _place(config: Sequence[str], overrides: Sequence[str], store: str | None, pepper_file: str | None) -> StorePlace:
    if store is None:
        if not config:
            message = f"give the agent's --config FILE, or --store URL (or set {STORE_VARIABLE})"
            raise click.UsageError(message)
        settings = _settings(config, overrides)
        store, pepper_file = settings.store_url, pepper_file or settings.pepper_file
    from otelwp_agent.control.opening import StorePlace  # noqa: PLC0415 - other commands do without its packages

    return StorePlace(store, pepper_file or "")


def _settings(config: Sequence[str], overrides: Sequence[str]) -> Any:  # noqa: ANN401 - `Config` of the extension
    plan = load_plan(config, overrides)
    found = [
        planned.config
        for (kind, id_), planned in {**plan.components, **plan.unused}.items()
        if kind is Kind.EXTENSION and id_.type == EXTENSION
    ]
    if not found:
        raise AgentError(
            f"this configuration has no control store: configure the extension `{EXTENSION}`, or give --store"
        )
    if len(found) > 1:
        raise AgentError(f"this configuration has {len(found)} control stores: choose one with --store")
    return found[0]


def actor() -> Actor:
    """Return the user who runs the command, as the author of changes."""
    from otelwp_agent.control.mutation import Actor  # noqa: PLC0415 - other commands do without its packages

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Actor(f"cli:{name}")


def parse_expiry(text: str | None) -> datetime | None:
    """Return the time of expiry for a duration such as `30d` or a time (RFC 3339); raise `BadParameter`."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) + parse_period(text)


def parse_period(text: str) -> timedelta:
    """Return a duration such as `30d` or `1h30m`; raise `BadParameter`."""
    try:
        return timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from error


def all_pages(read: Callable[[str], Sequence[T]], key: Callable[[T], str]) -> list[T]:
    """Return all rows of a paginated list; `read` returns the page after a key."""
    rows: list[T] = []
    while page := read(key(rows[-1]) if rows else ""):
        rows += page
    return rows


def show(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(head: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
    """Print rows as a table; print `nothing` to stderr if there are none."""
    if not rows:
        click.echo(nothing, err=True)
        return
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one in each line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}  {value}".rstrip())


def when(time: datetime | None) -> str:
    """Return a time in UTC for tables, `-` for none."""
    return "-" if time is None else time.strftime("%Y-%m-%d %H:%M:%SZ")
