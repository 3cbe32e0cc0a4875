"""The state file of a licence: the last renewal, and the high-water mark of the clock.

It has mode 0600. The renewal in it is signed and verified again when it is read; the mark is not signed. A user
who can write the file can also remove it, so it protects against a clock that is set back, not against the
administrator.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from otelwp_agent.licensing.signatures import MAX_LICENSE
from otelwp_agent.storage import files

_VERSION = 1
_MAX_FILE = MAX_LICENSE + 1024
_LAST = 253402300799
"""9999-12-31T23:59:59Z."""


@dataclass(frozen=True, slots=True)
class LicenseState:
    """The contents of a state file."""

    license: str = ""
    """The last renewal as signed text, "" for none."""
    mark: float = 0.0
    """The latest time that was known, in seconds since 1970."""
    refreshed: float = 0.0
    """When the licence server answered last, in seconds since 1970; 0 for never."""


class LicenseStateFile:
    """Reads and writes a state file."""

    def __init__(self, path: str | None) -> None:
        """Use the file at `path`; with `None`, nothing is kept."""
        self.path = None if path is None else Path(path)

    def read(self) -> LicenseState:
        """Return the state; the initial one if there is no file. Raise `ValueError` if it cannot be used."""
        if self.path is None:
            return LicenseState()
        try:
            with self.path.open("rb") as stream:
                content = stream.read(_MAX_FILE + 1)
        except FileNotFoundError:
            return LicenseState()
        except OSError as error:
            message = f"{self.path}: cannot be read: {error.strerror}"
            raise ValueError(message) from error
        state = _parse(content)
        if state is None:
            message = f"{self.path} is not the state of a licence: it will be replaced"
            raise ValueError(message)
        return state

    def write(self, state: LicenseState, *, sync: bool) -> None:
        """Replace the file; with `sync`, also if the power fails. Raise `OSError`."""
        if self.path is None:
            return
        files.make_directory(self.path.parent)
        content = {"version": _VERSION, "license": state.license, "mark": state.mark, "refreshed": state.refreshed}
        files.replace_file(self.path, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), sync=sync)


def install(path: Path, text: str) -> None:
    """Write a licence to the file that `service.license.file` names, with mode 0600; raise `OSError`."""
    files.make_directory(Path(os.path.abspath(path)).parent)  # noqa: PTH100 - `resolve` would follow symbolic links
    files.replace_file(path, text.encode() + b"\n")


def _parse(content: bytes) -> LicenseState | None:
    if len(content) > _MAX_FILE:
        return None
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        return None
    text, mark, refreshed = found.get("license"), _time(found.get("mark")), _time(found.get("refreshed"))
    if not isinstance(text, str) or mark is None or refreshed is None:
        return None
    return LicenseState(text, mark, refreshed)


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value <= _LAST else None
