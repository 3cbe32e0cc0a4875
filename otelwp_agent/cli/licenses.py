"""`otelwp-agent licenses`: set, list, show, sign, revoke and restore the licences that a licence server renews."""

from __future__ import annotations

import time
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
)
from otelwp_agent.cli.license_options import signing_key_option, terms_options
from otelwp_agent.control.operations import licenses as operations
from otelwp_agent.licensing.signatures import sign_license

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from otelwp_agent.control.operations.licenses import StoredLicense
    from otelwp_agent.licensing.terms import LicenseTerms

_id_argument = click.argument("id_", metavar="LICENSE")


@click.group()
def licenses() -> None:
    """Set, list, show, sign, revoke and restore licences. LICENSE is the id of a licence."""


@licenses.command("set")
@store_command
@_id_argument
@terms_options
def set_(*, target: StoreTarget, id_: str, terms: LicenseTerms, as_json: bool) -> None:
    """Create LICENSE, or replace all its terms. Its agents get them with their next renewal, within a day."""
    with target.writing() as connection:
        found = operations.set_license(connection, actor(), id_, terms)
    _report(found, f"licence {id_} of {terms.customer}, tier {terms.tier}, until {terms.expires}", as_json=as_json)


@licenses.command("list")
@store_command
@click.option("--customer", help="Only those of this customer.")
def list_(*, target: StoreTarget, customer: str | None, as_json: bool) -> None:
    """List licences, ordered by id."""
    with target.reading() as connection:
        found = all_pages(
            lambda after: operations.list_licenses(connection, after=after, limit=MAX_ROWS, customer=customer),
            lambda each: each.id,
        )
    if as_json:
        show([each.to_json() for each in found])
        return
    rows = [(each.id, each.terms.customer, each.terms.tier, each.terms.expires, _state(each)) for each in found]
    show_table(("id", "customer", "tier", "expires", "state"), rows, "no licences")


@licenses.command("show")
@store_command
@_id_argument
def show_license(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Show a licence."""
    with target.reading() as connection:
        found = operations.get_license(connection, id_)
    if as_json:
        show(found.to_json())
        return
    fields = {name: "-" if value in (None, "", [], {}) else value for name, value in found.to_json().items()}
    show_fields({name: ", ".join(value) if isinstance(value, list) else value for name, value in fields.items()})


@licenses.command()
@store_command
@_id_argument
@signing_key_option
def sign(*, target: StoreTarget, id_: str, signing_key: Ed25519PrivateKey, as_json: bool) -> None:
    """Print LICENSE as signed text, for `service.license` of its agents."""
    with target.reading() as connection:
        found = operations.get_license(connection, id_)
    text = sign_license(found.signable(time.time()), signing_key)
    if as_json:
        show({**found.to_json(), "license": text})
    else:
        click.echo(text)


@licenses.command()
@store_command
@_id_argument
@click.option("--reason", required=True, help="Why; agents show it.")
def revoke(*, target: StoreTarget, id_: str, reason: str, as_json: bool) -> None:
    """Revoke LICENSE: its agents get the free tier with their next renewal, within a day."""
    with target.writing() as connection:
        found = operations.revoke_license(connection, actor(), id_, reason)
    _report(found, f"revoked licence {id_} of {found.terms.customer}", as_json=as_json)


@licenses.command()
@store_command
@_id_argument
def restore(*, target: StoreTarget, id_: str, as_json: bool) -> None:
    """Undo the revocation of LICENSE."""
    with target.writing() as connection:
        found = operations.restore_license(connection, actor(), id_)
    _report(found, f"restored licence {id_} of {found.terms.customer}", as_json=as_json)


def _report(found: StoredLicense, text: str, *, as_json: bool) -> None:
    if as_json:
        show(found.to_json())
    else:
        click.echo(text)


def _state(found: StoredLicense) -> str:
    return "live" if found.revoked is None else f"revoked: {found.revocation_reason}"
