"""`otelwp-agent operators`: add, list and remove the users of the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.control_options import StoreTarget, actor, show, show_table, store_command, when
from otelwp_agent.control.operations import operators as operations
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from otelwp_agent.control.operations.operators import NewToken

_ROLES = click.Choice([role.value for role in Role])


@click.group()
def operators() -> None:
    """Add, list and remove operators, the users of the admin API, with their roles and tokens.

    Roles: `viewer` may read, `operator` may also change tenants, plans and keys, `admin` may also change operators.
    """


@operators.command()
@store_command
@click.argument("name")
@click.option("--role", required=True, type=_ROLES, help="Role of the operator.")
def add(*, target: StoreTarget, name: str, role: str, as_json: bool) -> None:
    """Add an operator and print its token. It is shown only once."""
    with target.writing() as connection:
        hasher = target.hasher(connection)
        new = operations.add_operator(connection, actor(), hasher, name, operations.parse_role(role))
    _report(new, f"added operator {name} with role {role}", as_json=as_json)


@operators.command("list")
@store_command
def list_(*, target: StoreTarget, as_json: bool) -> None:
    """List operators, ordered by name."""
    with target.reading() as connection:
        found = operations.list_operators(connection)
    if as_json:
        show([operator.to_json() for operator in found])
        return
    rows = [(each.name, each.role.value, when(each.created), when(each.token_created)) for each in found]
    show_table(("name", "role", "created", "token created"), rows, "no operators")


@operators.command()
@store_command
@click.argument("name")
def remove(*, target: StoreTarget, name: str, as_json: bool) -> None:
    """Remove an operator. Its token is refused from now on."""
    with target.writing() as connection:
        operations.remove_operator(connection, actor(), name)
    if as_json:
        show({"removed": name})
    else:
        click.echo(f"removed operator {name}")


@operators.command("set-role")
@store_command
@click.argument("name")
@click.argument("role", type=_ROLES)
def set_role(*, target: StoreTarget, name: str, role: str, as_json: bool) -> None:
    """Give an operator another role."""
    with target.writing() as connection:
        operator = operations.set_role(connection, actor(), name, operations.parse_role(role))
    if as_json:
        show(operator.to_json())
    else:
        click.echo(f"operator {name} has role {role} now")


@operators.command("rotate-token")
@store_command
@click.argument("name")
def rotate_token(*, target: StoreTarget, name: str, as_json: bool) -> None:
    """Give an operator a new token and print it. The old one is refused from now on."""
    with target.writing() as connection:
        new = operations.rotate_token(connection, actor(), target.hasher(connection), name)
    _report(new, f"operator {name} has a new token", as_json=as_json)


def _report(new: NewToken, text: str, *, as_json: bool) -> None:
    """Print the token to stdout, alone, so that scripts can use it."""
    if as_json:
        show({**new.operator.to_json(), "token": new.token})
        return
    click.echo(f"{text}. Store the token now: it cannot be shown again.", err=True)
    click.echo(new.token)
