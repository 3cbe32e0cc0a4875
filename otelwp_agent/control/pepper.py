"""Read or create the pepper, the secret with which API keys are hashed.

It is stored apart from the control store, in a file with mode 0600 or in an environment variable, as at least 64
hexadecimal digits. Every agent that uses a store needs the same pepper.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from otelwp_agent.control.errors import PepperError
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VARIABLE = "OTELWP_CONTROL_PEPPER"
"""Environment variable with the pepper, which is used if no file is configured."""
SIZE = 32
"""Bytes of a new pepper, and the fewest that are accepted."""
_LONGEST_FILE = 4096


def read(path: Path | None, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the pepper in the file `path`, or in the environment if `path` is `None`.

    Returns `None` if there is none. Raises `PepperError` if it cannot be read or is invalid.
    """
    if path is None:
        text = environment.get(VARIABLE)
        return None if text is None else _decode(text, f"the environment variable {VARIABLE}")
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PepperError(
            f"cannot read the pepper {path}: {error.strerror}. Make it readable for the agent's user"
        ) from error
    return _decode(data.decode("ascii", "replace"), str(path))


def create(path: Path) -> bytes:
    """Create the file `path` with a new random pepper, mode 0600, and return the pepper; raise `PepperError`."""
    pepper = secrets.token_bytes(SIZE)
    try:
        files.make_directory(path.parent)
        files.replace_file(path, pepper.hex().encode() + b"\n")
    except OSError as error:
        raise PepperError(
            f"cannot create the pepper {path}: {error.strerror}. Give a file in a directory that can be written"
        ) from error
    return pepper


def _decode(text: str, where: str) -> bytes:
    try:
        pepper = bytes.fromhex(text.strip())
    except ValueError:
        pepper = b""
    if len(pepper) < SIZE:
        raise PepperError(
            f"{where} has no valid pepper: it must be at least {2 * SIZE} hexadecimal digits, as `otelwp-agent control "
            "migrate` creates them. Restore the file from a backup"
        )
    return pepper
