"""`otelwp-agent keys`: make, replace and list the keys that agents encrypt to and a collector decrypts with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.control_options import show, show_table, when
from otelwp_agent.config.types import format_duration, parse_duration
from otelwp_agent.errors import AgentError
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text, read_private_key
from otelwp_agent.sealing import rotation
from otelwp_agent.sealing.key_files import (
    KEY_SET,
    OPENING_KEYS,
    SIGNING_KEY,
    load_text,
    opening_keys_text,
    read_opening_keys,
)
from otelwp_agent.sealing.key_set import sign_key_set
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from otelwp_agent.sealing.key_ring import OpeningKey

_PUBLIC_MODE = 0o644


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    del ctx, param
    try:
        return parse_duration(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from error


_directory = click.argument("directory", type=click.Path(path_type=Path))
_suite: Callable[..., Callable[..., None]] = click.option(
    "--suite",
    type=click.Choice([suite.name for suite in SealingSuite]),
    default=SealingSuite.X25519.name,
    show_default=True,
    help="Cipher suite; MLKEM768_X25519 also resists quantum computers.",
)
_signing_key = click.option(
    "--signing-key",
    type=click.Path(path_type=Path),
    help=f"File with the key that signs the key set. Default: {SIGNING_KEY} in DIRECTORY.",
)


@click.group()
def keys() -> None:
    """Make, replace and list the keys of sealed envelopes: agents encrypt to them, a collector decrypts with them.

    DIRECTORY has three files: `opening-keys.json` is secret and for the collector, `key-set.jws` is public and for the
    agents, `signing.key` is secret and only for this command. API keys have a command of their own, `api-keys`.
    """


@keys.command()
@_directory
@_suite
@_signing_key
def generate(*, directory: Path, suite: str, signing_key: Path | None) -> None:
    """Write the first key, its signed key set, and a key that signs key sets, to DIRECTORY.

    Prints the public key that verifies the key set, for `recipients.public_keys` of agents.
    """
    with _failures(directory):
        files.make_directory(directory)
        with _locked(directory):
            for name in (OPENING_KEYS, KEY_SET):
                if (directory / name).exists():
                    message = (
                        f"{directory / name} exists: use `keys rotate` to replace keys, or choose another directory"
                    )
                    raise AgentError(message)
            path = signing_key or directory / SIGNING_KEY
            if signing_key is None and not path.exists():
                files.replace_file(path, private_pem(generate_key()))
            signer = _signer(path)
            now = time.time()
            _write(directory, 1, [rotation.new_key(SealingSuite[suite], float(int(now)))], signer, now)
    click.echo(f"wrote {directory}: keep {OPENING_KEYS} and {SIGNING_KEY} secret, publish {KEY_SET}", err=True)
    click.echo(public_text(signer))


@keys.command()
@_directory
@_suite
@_signing_key
@click.option(
    "--lead",
    metavar="DURATION",
    callback=_seconds,
    default=format_duration(rotation.LEAD),
    show_default=True,
    help="Time until agents use the new key. By then, every collector must have it.",
)
@click.option(
    "--overlap",
    metavar="DURATION",
    callback=_seconds,
    default=format_duration(rotation.OVERLAP),
    show_default=True,
    help="Time after that, during which the previous key still opens envelopes.",
)
@click.option("--all-suites", is_flag=True, help="Let the keys of other suites end too.")
def rotate(  # noqa: PLR0913 - one argument for each option
    *, directory: Path, suite: str, signing_key: Path | None, lead: float, overlap: float, all_suites: bool
) -> None:
    """Add a new key to DIRECTORY and let the previous one end. Keys that have ended are removed.

    Copy `opening-keys.json` to every collector before you publish `key-set.jws`. Both are read again when they change.
    """
    now = time.time()
    with _failures(directory), _locked(directory):
        version, known = _read(directory)
        signer = _signer(signing_key or directory / SIGNING_KEY)
        new = rotation.new_key(SealingSuite[suite], float(int(now + lead)))
        _write(directory, version + 1, rotation.rotate(known, new, now, overlap, all_suites=all_suites), signer, now)
    click.echo(f"added key {new.key_id}, which agents use from {_when(new.not_before)} on; key set {version + 1}")


@keys.command("list")
@_directory
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_(*, directory: Path, as_json: bool) -> None:
    """List the keys in DIRECTORY, without their private parts."""
    with _failures(directory):
        version, known = _read(directory)
    now = time.time()
    used = rotation.key_set_of(version, known, now).recipient(now)
    states = [_state(key, now, "" if used is None else used.key_id) for key in known]
    if as_json:
        rows = [
            {
                "key_id": key.key_id,
                "suite": key.suite.name,
                "state": state,
                "not_before": key.not_before,
                "not_after": key.not_after,
                "public_key": encode_base64url(key.suite.public_bytes(key.private)),
            }
            for key, state in zip(known, states, strict=True)
        ]
        show({"version": version, "keys": rows})
        return
    click.echo(f"key set {version}", err=True)
    show_table(
        ("key", "suite", "state", "not before", "not after"),
        [
            (key.key_id, key.suite.name, state, _when(key.not_before), _when(key.not_after))
            for key, state in zip(known, states, strict=True)
        ],
        "no keys",
    )


def _state(key: OpeningKey, now: float, used: str) -> str:
    if key.not_after is not None and key.not_after <= now:
        return "ended"
    if key.not_before > now:
        return "next"
    return "in use" if key.key_id == used else "opens"


def _when(moment: float | None) -> str:
    return when(None if moment is None else datetime.fromtimestamp(moment, UTC))


def _read(directory: Path) -> tuple[int, list[OpeningKey]]:
    path = directory / OPENING_KEYS
    text = load_text(path)
    try:
        return read_opening_keys(text)
    except ValueError as error:
        message = f"{path} {error}"
        raise AgentError(message) from None


def _signer(path: Path) -> Ed25519PrivateKey:
    try:
        return read_private_key(load_text(path).encode())
    except ValueError as error:
        cause = str(error) if str(path) in str(error) else f"{path} is not an Ed25519 private key in PEM"
        message = f"{cause}: name the key that signs key sets with --signing-key"
        raise AgentError(message) from None


def _write(directory: Path, version: int, known: Sequence[OpeningKey], signer: Ed25519PrivateKey, now: float) -> None:
    """Replace both files, the private keys first: a published key must have its private part."""
    files.replace_file(directory / OPENING_KEYS, opening_keys_text(version, known))
    text = sign_key_set(rotation.key_set_of(version, known, now), signer)
    files.replace_file(directory / KEY_SET, text.encode() + b"\n")
    (directory / KEY_SET).chmod(_PUBLIC_MODE)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let no other command write the directory meanwhile: one of two new keys would be lost."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _failures(directory: Path) -> Iterator[None]:
    """Report errors of files as errors of the command."""
    try:
        yield
    except OSError as error:
        message = f"{error.filename or directory}: {error.strerror}"
        raise AgentError(message) from error
    except ValueError as error:
        raise AgentError(str(error)) from error
