"""Keep a copy of the tenant directory in a file, so that an agent can start while the control store is unreachable.

The file has what the directory has in memory: plans, tenants, and the HMACs of API keys, not the keys and not the
pepper. An HMAC-SHA-256 with the pepper protects it: a file that was damaged, changed, or written with another pepper
is refused.

::

    magic (27 bytes) · HMAC of the rest (32) · size of the lines (4, little-endian) · lines · keys

The first line is a JSON object with the place of the store, the change counter, the names of the scopes, and plans. The
other lines are JSON arrays of tenants. A key is its id (16 ASCII characters) and its packed form
(`directory.pack_key`).
"""

from __future__ import annotations

import json
import os
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from otelwp_agent.control import directory
from otelwp_agent.control.api_keys import ID_LENGTH, Scope
from otelwp_agent.control.directory import Directory, PlanEntry, TenantEntry
from otelwp_agent.control.errors import SnapshotError
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otelwp_agent.control.api_keys import Hasher

T = TypeVar("T")

MAX_SIZE = 256 * 2**20
"""Most bytes of a file: four million keys."""
_MAGIC = b"otelwp control snapshot 1\r\n"
_HASH = 32
_COUNT = 4
_RECORD = ID_LENGTH + directory.PACKED_SIZE
_CHUNK = 1000
"""Keys or tenants that are written at once. Between two chunks other threads run."""


class SnapshotFile:
    """The copy of the directory of one store in one file."""

    def __init__(self, path: Path, store: str, hasher: Hasher) -> None:
        """Use the file `path` for the store at the place `store`, whose pepper `hasher` has."""
        self.path = path
        self._store = store
        self._hasher = hasher

    def save(self, current: Directory) -> None:
        """Replace the file atomically, mode 0600; raise `SnapshotError`."""
        data = encode(current, self._store, self._hasher)
        try:
            files.make_directory(self.path.parent)
            files.replace_file(self.path, data)
        except OSError as error:
            raise SnapshotError(
                f"cannot write the snapshot {self.path}: {error.strerror}. Give a file in a directory that the agent's "
                "user can write"
            ) from error

    def confirm(self, compared_at: float) -> None:
        """Note in the file when it was compared with the store (seconds since 1970); raise `SnapshotError`."""
        try:
            os.utime(self.path, (compared_at, compared_at))
        except OSError as error:
            raise SnapshotError(f"cannot update the time of the snapshot {self.path}: {error.strerror}") from error

    def load(self) -> tuple[Directory, float]:
        """Return the directory, and the seconds since it was compared with the store; raise `SnapshotError`."""
        try:
            found = self.path.stat()
            if found.st_size > MAX_SIZE:
                raise SnapshotError(f"the snapshot {self.path} has more than {MAX_SIZE} bytes: remove it")
            data = files.read_file(self.path)
        except FileNotFoundError as error:
            raise SnapshotError(f"there is no snapshot {self.path} yet") from error
        except OSError as error:
            raise SnapshotError(
                f"cannot read the snapshot {self.path}: {error.strerror}. Make it readable for the agent's user"
            ) from error
        try:
            loaded = decode(data, self._store, self._hasher)
        except SnapshotError as error:
            raise SnapshotError(f"the snapshot {self.path} {error}") from error
        return loaded, max(0.0, time.time() - found.st_mtime)


def encode(current: Directory, store: str, hasher: Hasher) -> bytes:
    """Return the contents of the file for a directory of the store at the place `store`."""
    about = {
        "store": store,
        "version": current.version,
        "scopes": [scope.value for scope in Scope],
        "plans": {name: [plan.tier, dict(plan.limits), plan.retention_days] for name, plan in current.plans.items()},
    }
    lines = [json.dumps(about)]
    lines += (
        json.dumps([[each.id, each.plan, each.active, dict(each.attributes)] for each in some])
        for some in _chunks(current.tenants)
    )
    text = "\n".join(lines).encode()
    parts = [len(text).to_bytes(_COUNT, "little"), text]
    parts += (
        b"".join(id_.encode("ascii") + packed for id_, packed in pairs) for pairs in _chunks(list(current.keys.items()))
    )
    rest = b"".join(parts)
    return _MAGIC + hasher.sign(_MAGIC, rest) + rest


def decode(data: bytes, store: str, hasher: Hasher) -> Directory:
    """Return the directory in the contents of a file.

    Raises `SnapshotError` if they are damaged, of another store, or written with another pepper or by another version.
    """
    if not data.startswith(_MAGIC):
        raise SnapshotError("is not a snapshot of this version of the agent: remove it")
    start = len(_MAGIC) + _HASH
    rest = data[start:]
    if not hasher.signed(_MAGIC, rest, data[len(_MAGIC) : start]):
        raise SnapshotError("is damaged, or was written with another pepper: remove it")
    keys_at = _COUNT + int.from_bytes(rest[:_COUNT], "little")
    first, *lines = rest[_COUNT:keys_at].split(b"\n")
    about: dict[str, Any] = json.loads(first)
    if about["store"] != store:
        raise SnapshotError(f"is of the control store {about['store']}, and not of {store}: give another file")
    if about["scopes"] != [scope.value for scope in Scope]:
        raise SnapshotError("was written by a version of the agent with other scopes: remove it")
    plans = {
        name: PlanEntry(tier, MappingProxyType(limits), days) for name, (tier, limits, days) in about["plans"].items()
    }
    tenants = [
        TenantEntry(id_, plan, active, _attributes(found))
        for line in lines
        for id_, plan, active, found in json.loads(line)
    ]
    keys = {
        rest[at : at + ID_LENGTH].decode("ascii"): rest[at + ID_LENGTH : at + _RECORD]
        for at in range(keys_at, len(rest), _RECORD)
    }
    numbers = {tenant.id: number for number, tenant in enumerate(tenants)}
    return Directory(about["version"], plans, tenants, numbers, keys)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _attributes(found: dict[str, str]) -> MappingProxyType[str, str]:
    return MappingProxyType(found) if found else directory.NOTHING
