"""Command-line options for the terms of a licence, shared by `license issue` and `licenses set`."""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from otelwp_agent.cli.options import parse_pairs
from otelwp_agent.errors import AgentError
from otelwp_agent.licensing.license import LEASE_DAYS
from otelwp_agent.licensing.signatures import read_private_key
from otelwp_agent.licensing.terms import LicenseTerms
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

T = TypeVar("T")

_MAX_KEY_FILE = 16 * 2**10


def parse_day(context: click.Context, parameter: click.Parameter, text: str | None) -> date | None:
    """Return a day like `2027-12-31`; raise `BadParameter`. It is the callback of an option."""
    del context, parameter
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is not a day: write one like `2027-12-31`"
        raise click.BadParameter(message) from None


def terms_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add the options with the terms of a licence; the command gets them as `terms`."""

    @functools.wraps(command)
    def run(  # noqa: PLR0913 - one argument for each option
        *,
        customer: str,
        tier: str,
        expires: date,
        not_before: date | None,
        features: Sequence[str],
        limits: Sequence[str],
        domains: Sequence[str],
        lease_days: int,
        **rest: Any,  # noqa: ANN401 - the options of the command
    ) -> T:
        if expires < datetime.now(UTC).date():
            message = f"--expires: {expires} has passed: give the last day of the licence"
            raise click.UsageError(message)
        terms = LicenseTerms(
            customer=customer,
            tier=tier,
            expires=expires,
            not_before=not_before,
            features=tuple(features),
            limits={name: _number(value) for name, value in parse_pairs(limits, "limits").items()},
            domains=tuple(domains),
            lease_days=lease_days or None,
        )
        return command(terms=terms, **rest)

    wrapped: Any = run
    for option in (
        click.option("--customer", required=True, help="Name of the customer."),
        click.option("--tier", required=True, type=click.Choice([tier.value for tier in Tier]), help="Its tier."),
        click.option(
            "--expires", required=True, metavar="DAY", callback=parse_day, help="Last day of the licence, in UTC."
        ),
        click.option(
            "--not-before",
            metavar="DAY",
            callback=parse_day,
            help="First day of the licence, in UTC. Default: immediately.",
        ),
        click.option(
            "--feature",
            "features",
            multiple=True,
            help="A feature beside the tier; the agent only shows it. Repeatable.",
        ),
        click.option(
            "--limit",
            "limits",
            multiple=True,
            metavar="NAME=NUMBER",
            help="A limit; the agent only shows it. Repeatable.",
        ),
        click.option(
            "--domain",
            "domains",
            multiple=True,
            help="Host name of a site, or `*.example`; the agent only shows it. Repeatable.",
        ),
        click.option(
            "--lease-days",
            type=click.IntRange(min=0),
            default=LEASE_DAYS,
            show_default=True,
            help="Days for which it is valid without contact with the licence server; 0: always.",
        ),
    )[::-1]:
        wrapped = option(wrapped)
    result: Callable[..., T] = wrapped
    return result


def signing_key_option(command: Callable[..., T]) -> Callable[..., T]:
    """Add the option `--signing-key`; the command gets the private key as `signing_key`."""

    @functools.wraps(command)
    def run(*, signing_key: str, **rest: Any) -> T:  # noqa: ANN401 - the options of the command
        return command(signing_key=load_signing_key(Path(signing_key)), **rest)

    wrapped: Any = click.option(
        "--signing-key", required=True, metavar="FILE", help="The private key, which `license keygen` has written."
    )(run)
    result: Callable[..., T] = wrapped
    return result


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a file; raise `AgentError`."""
    try:
        with path.open("rb") as stream:
            return read_private_key(stream.read(_MAX_KEY_FILE))
    except OSError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AgentError(f"{path}: {error}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = f"{text!r} is not a number"
        raise click.BadParameter(message) from None
