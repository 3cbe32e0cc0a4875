"""Load the keys that a section `encryption` of the configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.at_rest.keys import LocalKey, StorageKeys
    from otelwp_agent.config.blocks import StorageEncryption

MOST_BYTES = 4096
"""Largest key file."""


def load_keys(settings: StorageEncryption | None, where: str) -> StorageKeys | None:
    """Return the keys, or `None` without settings; raise `StartError`, which begins with the setting `where`."""
    if settings is None:
        return None
    try:
        from otelwp_agent.at_rest.keys import StorageKeys  # noqa: PLC0415 - `cryptography` may be missing
    except ModuleNotFoundError as error:
        raise StartError(
            f"{where}: {error.name} is not installed: install it with `pip install 'otelwp-agent[sealing]'`"
        ) from error
    if settings.key is not None:
        key = _parsed(settings.key.get_secret_value(), f"{where}.key")
    else:
        key = read_key(settings.key_file or "", f"{where}.key_file")
    previous = [read_key(path, f"{where}.previous_key_files") for path in settings.previous_key_files]
    return StorageKeys([key], previous)


def reading_keys(key_files: Sequence[str], settings: StorageEncryption | None, where: str) -> StorageKeys | None:
    """Return the keys for a command that reads files: those of `key_files` and of the settings; `None` if none.

    Raises `StartError`, which begins with `--key-file` or with the setting `where`.
    """
    configured = load_keys(settings, where)
    given = [read_key(path, "--key-file") for path in key_files]
    if not given:
        return configured
    from otelwp_agent.at_rest.keys import StorageKeys  # noqa: PLC0415 - see `load_keys`

    return StorageKeys(given, configured.reading if configured is not None else ())


def read_key(path: str, where: str) -> LocalKey:
    """Read a key file; raise `StartError`, which begins with `where`."""
    try:
        data = files.read_file(Path(path), MOST_BYTES)
    except OSError as error:
        raise StartError(f"{where}: cannot read the key file {path}: {error.strerror}") from error
    return _parsed(data.decode("ascii", "replace"), f"{where}: {path}")


def _parsed(text: str, where: str) -> LocalKey:
    from otelwp_agent.at_rest.keys import LocalKey  # noqa: PLC0415 - see `load_keys`

    try:
        return LocalKey.parse(text)
    except ValueError as error:
        raise StartError(f"{where}: {error}: make one with `otelwp-agent journal new-key FILE`") from error
