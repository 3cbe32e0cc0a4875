"""`otelwp-agent license`: create keys of an issuer; issue, inspect and install licences. No control store is needed."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import click

from otelwp_agent.cli.license_options import signing_key_option, terms_options
from otelwp_agent.cli.options import config_options, load_plan
from otelwp_agent.codecs.compact_jws import MalformedJwsError, read_jws
from otelwp_agent.errors import AgentError
from otelwp_agent.licensing.decision import with_license
from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.licensing.signatures import (
    MAX_LICENSE,
    LicenseError,
    generate_key,
    private_pem,
    public_text,
    read_terms,
    sign_license,
    verify_license,
)
from otelwp_agent.licensing.state_file import install as install_file
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from otelwp_agent.licensing.license import License
    from otelwp_agent.licensing.terms import LicenseTerms

_source = click.argument("source", metavar="FILE", default="-")


@click.group()
def license() -> None:  # noqa: A001 - the name of the command
    """Create keys of an issuer; issue, inspect and install licences. FILE has the text of a licence; `-` is stdin."""


@license.command()
@click.argument("path", metavar="FILE")
def keygen(path: str) -> None:
    """Write a new private key for signing licences to FILE (mode 0600), and print its public key.

    Agents need the public key in `service.license.public_keys`. An existing file is not overwritten.
    """
    key = generate_key()
    with _explained(path):
        fd = files.open_file(Path(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            files.write_all(fd, private_pem(key))
            os.fsync(fd)
        finally:
            files.close(fd)
    click.echo(f"wrote the private key to {path}: keep it secret. Its public key:", err=True)
    click.echo(public_text(key))


@license.command()
@signing_key_option
@click.option("--id", "id_", help="Id of the licence; a renewal has the same id. Default: a random one.")
@terms_options
def issue(*, signing_key: Ed25519PrivateKey, id_: str | None, terms: LicenseTerms) -> None:
    """Sign a licence and print its text. A licence server renews it if its store has it (`licenses set`)."""
    id_ = id_ or f"lic-{token_hex(8)}"
    now = time.time()
    try:
        terms.check(id_, now)
        text = sign_license(terms.signable(id_, now), signing_key)
    except ValueError as error:
        raise AgentError(str(error)) from None
    click.echo(f"licence {id_} of {terms.customer}, tier {terms.tier}, until {terms.expires}", err=True)
    click.echo(text)


@license.command()
@_source
@click.option("--public-key", "public_keys", multiple=True, help="Verify with this key, or file of keys. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(*, source: str, public_keys: Sequence[str], as_json: bool) -> int:
    """Print the terms of a licence, and whether they are valid now. The exit status is 1 if they are not.

    Without --public-key, the keys of the vendor are used; if none of them has signed it, the terms are printed as not
    verified.
    """
    text = _read(source)
    verified, problem = True, ""
    try:
        keys = load_keys(public_keys)
    except ValueError as error:
        raise AgentError(str(error)) from None
    try:
        terms = verify_license(text, keys)
    except LicenseError as error:
        if error.reason != "unknown_key":
            raise AgentError(f"this licence is not valid: {error}") from None
        verified, problem = False, str(error)
        terms = _unverified(text)
    state = with_license(terms, time.time(), 0.0)
    is_valid = verified and state.until is not None
    shown = {**terms.to_json(), "verified": verified, "valid": is_valid, "state": problem or state.reason}
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        _print(shown)
    return 0 if is_valid else 1


@license.command()
@_source
@config_options
def install(*, source: str, config: Sequence[str], overrides: Sequence[str]) -> None:
    """Check a licence and write it to `service.license.file` of the configuration (mode 0600).

    A running agent uses it within a minute, or at once after SIGHUP.
    """
    settings = load_plan(config, overrides).service.license
    if settings is None or settings.file is None:
        raise AgentError(
            "this configuration does not name a file for the licence: set `service.license.file`, for example to "
            "`/etc/otelwp/license.jwt`"
        )
    text = _read(source)
    try:
        terms = verify_license(text, load_keys(settings.public_keys))
    except ValueError as error:
        raise AgentError(f"nothing was installed: {error}") from None
    state = with_license(terms, time.time(), settings.grace)
    if state.until is None and time.time() >= terms.starts_at:
        raise AgentError(f"nothing was installed: {state.reason}")
    with _explained(settings.file):
        install_file(Path(settings.file), text)
    click.echo(f"installed licence {terms.jti} of {terms.sub}, tier {terms.tier}, in {settings.file}")


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AgentError(f"{path}: {error.strerror}") from error


def _read(source: str) -> str:
    """Return the text of a licence; a text that is too long is not read to its end."""
    with _explained(source):
        if source == "-":
            content = sys.stdin.buffer.read(MAX_LICENSE + 2)
        else:
            with Path(source).open("rb") as stream:
                content = stream.read(MAX_LICENSE + 2)
    return content.decode("utf-8", "replace").strip()


def _unverified(text: str) -> License:
    try:
        return read_terms(read_jws(text, max_length=MAX_LICENSE).claims)
    except (MalformedJwsError, LicenseError) as error:
        raise AgentError(f"this licence is not valid: {error}") from None


def _print(shown: dict[str, Any]) -> None:
    times: dict[str, str] = {
        name: datetime.fromtimestamp(shown[name], UTC).isoformat() for name in ("iat", "lease") if name in shown
    }
    names = {"jti": "id", "sub": "customer", "iat": "issued", "aud": "product"}
    lines = {names.get(name, name): times.get(name, value) for name, value in shown.items()}
    width = max(map(len, lines))
    for name, value in lines.items():
        text = value
        if isinstance(value, list):
            text = ", ".join(map(str, value)) or "-"
        elif isinstance(value, dict):
            text = " ".join(f"{key}={number:g}" for key, number in value.items()) or "-"
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        click.echo(f"{name.ljust(width)}  {text}")
