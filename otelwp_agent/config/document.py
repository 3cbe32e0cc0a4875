"""What configuration files become: a tree of values in which each knows where it was written.

Invariant: every node of a tree has a place, also one that came through an alias, a merge or a `${file:…}`: the place
is always where the text stands that a person would have to change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.errors import Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys and list indexes, from the top of the document."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file (or `--set …`, `env:NAME`), a line and a column, both from 1; 0 if it has none."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """A value: a scalar, a map or a list of nodes."""

    value: Scalar | dict[str, Node] | list[Node]
    at: Place
    """Where the value stands."""
    key_at: Place
    """Where its key stands; of a list's item, where the item does."""
    written: str | None = None
    """What was written, if the value came out of `${…}`: messages show this in place of the value."""
    text: str | None = None
    """The value as text, if all of it came out of one `${…}`: for fields that want text, whatever it looks like."""
    broken: bool = False
    """Whether it could not be read, which has been reported: what follows from that is not."""

    @property
    def place(self) -> Place:
        """Where to point at: an empty value is best seen at its key."""
        return self.key_at if self.value is None and self.written is None else self.at

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Yield a map's or a list's nodes with their keys or indexes."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def get(self, part: object) -> Node | None:
        """Return the node at a key or an index, or `None`."""
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None

    def walk(self) -> Iterator[Node]:
        """Yield the node and everything below it."""
        yield self
        for _, child in self.children():
            yield from child.walk()

    def data(self, as_text: frozenset[Node] = frozenset()) -> Any:  # noqa: ANN401 - whatever was written
        """Return plain dicts, lists and scalars; nodes in `as_text` give their `text`."""
        if self in as_text:
            return self.text
        if isinstance(self.value, dict):
            return {key: child.data(as_text) for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.data(as_text) for child in self.value]
        return self.value

    def problem(
        self, message: str, path: Path = (), *, at_key: bool = False, severity: Severity = Severity.ERROR
    ) -> Problem:
        """Say that something is wrong here."""
        place = self.key_at if at_key else self.place
        return Problem(message, show_path(path), place.file, place.line, place.column, severity)


@dataclass(slots=True)
class Document:
    """One configuration, merged from all its sources, every `${…}` replaced."""

    root: Node
    problems: list[Problem] = field(default_factory=list)
    """What was wrong with the text itself: errors and warnings, in the order in which they were found."""
    files: tuple[str, ...] = ()
    """The names of the sources, in order."""

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return where the value at `path` stands (or its key); for what is not there, the nearest above it."""
        node = self.root
        for part in path:
            child = node.get(part)
            if child is None:
                return node.key_at
            node = child
        return node.key_at if key else node.place

    def data(self) -> Any:  # noqa: ANN401 - whatever was written
        """Return the whole as plain dicts, lists and scalars."""
        return self.root.data()


def show_path(path: Path) -> str:
    """Return a path as people write it: `service.pipelines.traces.receivers[0]`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            name = f'"{part}"' if not part or any(mark in part for mark in ". []") else part
            shown += f".{name}" if shown else name
    return shown


def merge(below: Node, above: Node) -> Node:
    """Return `above` laid over `below`: maps merge, everything else replaces."""
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    merged = dict(below.value)
    for key, child in above.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, above.at, above.key_at)
