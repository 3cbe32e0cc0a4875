"""The table in which requests to the admin API find their operation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from otelwp_agent.admin.mounting import AdminRoutes
from otelwp_agent.admin.operation import ApiOperation, pattern_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class FoundOperations(NamedTuple):
    """The operations with the path of a request, by method, and the values of the variable parts."""

    methods: Mapping[str, ApiOperation]
    path: Mapping[str, str]


@dataclass(slots=True)
class _PathEntry:
    parts: tuple[str, ...]
    methods: dict[str, ApiOperation] = field(default_factory=dict)

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        found = {}
        for ours, theirs in zip(self.parts, parts, strict=True):
            if not ours.startswith("{"):
                if ours != theirs:
                    return None
                continue
            name = ours[1:-1]
            if not re.fullmatch(pattern_of(name).strip("^$"), theirs):
                return None
            found[name] = theirs
        return found


class RouteTable(AdminRoutes):
    """The operations of all owners."""

    def __init__(self) -> None:
        """Start empty."""
        self._owners: dict[str, tuple[ApiOperation, ...]] = {}
        self._paths: dict[int, list[_PathEntry]] = {}
        self.version = 0
        """Changes with the operations."""

    def __iter__(self) -> Iterator[ApiOperation]:
        """Iterate over all operations, in the order in which they were mounted."""
        for operations in self._owners.values():
            yield from operations

    def mount(self, owner: str, operations: Sequence[ApiOperation]) -> None:
        """Add the operations of `owner`, or replace them."""
        owners = {**self._owners, owner: tuple(operations)}
        self._paths = _index(each for group in owners.values() for each in group)
        self._owners = owners
        self.version += 1

    def unmount(self, owner: str) -> None:
        """Remove the operations of `owner`."""
        if self._owners.pop(owner, None) is not None:
            self._paths = _index(self)
            self.version += 1

    def find(self, path: str) -> FoundOperations | None:
        """Return the operations with this path, as sent by a client, or `None`."""
        try:
            parts = [unquote(part, errors="strict") for part in path.split("/")]
        except UnicodeDecodeError:
            return None
        for entry in self._paths.get(len(parts), ()):
            found = entry.match(parts)
            if found is not None:
                return FoundOperations(entry.methods, found)
        return None


def _index(operations: Iterable[ApiOperation]) -> dict[int, list[_PathEntry]]:
    """Return the paths by their number of parts, those with fewer variable parts first; raise `ValueError`."""
    entries: dict[tuple[str, ...], _PathEntry] = {}
    names: set[str] = set()
    for each in operations:
        entry = entries.setdefault(each.parts, _PathEntry(each.parts))
        if each.method in entry.methods or each.name in names:
            message = f"{each.method} {each.path} ({each.name}) is declared twice"
            raise ValueError(message)
        names.add(each.name)
        entry.methods[each.method] = each
    paths: dict[int, list[_PathEntry]] = {}
    for entry in sorted(entries.values(), key=lambda entry: sum(part.startswith("{") for part in entry.parts)):
        paths.setdefault(len(entry.parts), []).append(entry)
    return paths
