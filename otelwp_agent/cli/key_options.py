"""The option `--key-file` of commands that read encrypted files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.config.service import ServiceConfig
    from otelwp_agent.config.storage_encryption import StorageEncryption

F = TypeVar("F", bound="Callable[..., Any]")


def key_option(command: F) -> F:
    """Add the repeatable option `--key-file` (as `key_files`) to a command."""
    return click.option(
        "--key-file",
        "key_files",
        multiple=True,
        metavar="FILE",
        help="Key with which the data is encrypted; not needed with --config. Repeatable.",
    )(command)


def journal_keys(key_files: Sequence[str], service: ServiceConfig | None = None) -> StorageKeys | None:
    """Return the keys of a journal from the option and the configuration; raise `AgentError`."""
    settings = service.journal.encryption if service is not None and service.journal is not None else None
    return _keys(key_files, settings, "service.journal.encryption")


def letter_keys(key_files: Sequence[str], service: ServiceConfig | None = None) -> StorageKeys | None:
    """Return the keys of dead letters from the option and the configuration; raise `AgentError`."""
    settings = service.dead_letter_encryption if service is not None else None
    return _keys(key_files, settings, "service.dead_letter.encryption")


def _keys(key_files: Sequence[str], settings: StorageEncryption | None, where: str) -> StorageKeys | None:
    from otelwp_agent.at_rest.loading import reading_keys  # noqa: PLC0415 - not for `--help`

    return reading_keys(key_files, settings, where)
