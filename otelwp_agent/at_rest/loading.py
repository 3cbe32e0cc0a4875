"""Load the keys that a section `encryption` of the configuration names."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.at_rest.keys import LocalKey, StorageKeys
    from otelwp_agent.at_rest.recipients import PrivateKey, RecipientKey
    from otelwp_agent.config.recipients import RecipientsConfig
    from otelwp_agent.config.storage_encryption import StorageEncryption

MOST_BYTES = 4096
"""Largest key file."""


def load_keys(settings: StorageEncryption | None, where: str, *, own: bool = False) -> StorageKeys | None:
    """Return the keys, or `None` without settings; raise `StartError`, which begins with the setting `where`.

    With `own`, it is an error if the agent could not read what it writes.
    """
    if settings is None:
        return None
    try:
        from otelwp_agent.at_rest.keys import StorageKeys  # noqa: PLC0415 - `cryptography` may be missing
    except ModuleNotFoundError as error:
        raise StartError(
            f"{where}: {error.name} is not installed: install it with `pip install 'otelwp-agent[sealing]'`"
        ) from error
    secret: list[LocalKey] = []
    if settings.key is not None:
        secret.append(_parsed(settings.key.get_secret_value(), f"{where}.key"))
    elif settings.key_file is not None:
        secret.append(read_key(settings.key_file, f"{where}.key_file"))
    previous = [read_key(path, f"{where}.previous_key_files") for path in settings.previous_key_files]
    public = [] if settings.recipients is None else [_recipient(settings.recipients, f"{where}.recipients")]
    path = settings.opening_keys_file
    private = [] if path is None else _opening_keys(path, f"{where}.opening_keys_file")
    keys = StorageKeys([*secret, *public], [*secret, *previous, *private])
    if own and not keys.reads_its_own:
        raise StartError(
            f"{where}: files are encrypted for key {public[0].key_id}, which is not in {path}: the agent could not "
            "read them. Give the private key of `recipients`"
        )
    return keys


def reading_keys(key_files: Sequence[str], settings: StorageEncryption | None, where: str) -> StorageKeys | None:
    """Return the keys for a command that reads files: those of `key_files` and of the settings; `None` if none.

    A key file has a secret key, or private keys (`opening-keys.json`). Raises `StartError`, which begins with
    `--key-file` or with the setting `where`.
    """
    configured = load_keys(settings, where)
    if not key_files:
        return configured
    from otelwp_agent.at_rest.keys import StorageKeys  # noqa: PLC0415 - see `load_keys`

    given: list[LocalKey | PrivateKey] = []
    for path in key_files:
        if _content(path, "--key-file", 1) == b"{":
            given += _opening_keys(path, "--key-file")
        else:
            given.append(read_key(path, "--key-file"))
    return StorageKeys((), [*given, *(configured.reading if configured is not None else ())])


def read_key(path: str, where: str) -> LocalKey:
    """Read a key file; raise `StartError`, which begins with `where`."""
    return _parsed(_content(path, where, MOST_BYTES).decode("ascii", "replace"), f"{where}: {path}")


def _content(path: str, where: str, most: int) -> bytes:
    try:
        return files.read_file(Path(path), most)
    except OSError as error:
        raise StartError(f"{where}: cannot read the key file {path}: {error.strerror}") from error


def _parsed(text: str, where: str) -> LocalKey:
    from otelwp_agent.at_rest.keys import LocalKey  # noqa: PLC0415 - see `load_keys`

    try:
        return LocalKey.parse(text)
    except ValueError as error:
        raise StartError(f"{where}: {error}: make one with `otelwp-agent journal new-key FILE`") from error


def _opening_keys(path: str, where: str) -> list[PrivateKey]:
    from otelwp_agent.at_rest.recipients import PrivateKey  # noqa: PLC0415 - see `load_keys`
    from otelwp_agent.sealing.key_files import load_text, read_opening_keys  # noqa: PLC0415 - the same

    try:
        return [PrivateKey(key) for key in read_opening_keys(load_text(Path(path)))[1]]
    except ValueError as error:
        raise StartError(f"{where}: {path}: {error}") from error


def _recipient(settings: RecipientsConfig, where: str) -> RecipientKey:
    """Return the newest public key that is valid now."""
    from otelwp_agent.at_rest.recipients import RecipientKey  # noqa: PLC0415 - see `load_keys`
    from otelwp_agent.licensing.public_keys import load_keys as load_signers  # noqa: PLC0415 - the same
    from otelwp_agent.sealing.key_files import load_text  # noqa: PLC0415 - the same
    from otelwp_agent.sealing.key_set import KeySetError, SealingKeySet, verify_key_set  # noqa: PLC0415 - the same
    from otelwp_agent.sealing.recipient_source import inline_recipients  # noqa: PLC0415 - the same

    try:
        if settings.file is not None:
            key_set = verify_key_set(load_text(Path(settings.file)), load_signers(settings.public_keys, ()))
        else:
            key_set = SealingKeySet(0, 0, inline_recipients(settings))
    except KeySetError as error:
        raise StartError(f"{where}: {settings.file}: {error}") from error
    except ValueError as error:
        raise StartError(f"{where}: {error}") from error
    found = key_set.recipient(time.time())
    if found is None:
        raise StartError(f"{where}: no key is valid now: publish a new key set, or correct the clock")
    return RecipientKey(found)
