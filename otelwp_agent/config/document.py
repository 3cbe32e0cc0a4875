"""Tree of configuration values, each with its position in the source.

Invariant: every node has a position, also one that came through an alias, a merge or a `${file:…}`. It is always the
position of the text that a person would have to change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.errors import Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the document to a node."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Place:
    """Position in a file (or in `--set …`, `env:NAME`): line and column start at 1, and are 0 if unknown."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """A value with its position: a scalar, a map of nodes or a list of nodes."""

    value: Scalar | dict[str, Node] | list[Node]
    at: Place
    """Position of the value."""
    key_at: Place
    """Position of its key; for an item of a list, position of the item."""
    written: str | None = None
    """The reference in the source, if the value came from `${…}`: messages show it instead of the value."""
    text: str | None = None
    """The value as text, if all of it came from one `${…}`: fields of type text use it without YAML conversion."""
    broken: bool = False
    """Whether the value could not be read. That has been reported; errors that follow from it are not reported."""

    @property
    def place(self) -> Place:
        """Position for messages: that of the key if the value is empty, else that of the value."""
        return self.key_at if self.value is None and self.written is None else self.at

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Yield the nodes of a map or list with their keys or indexes."""
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

    def below(self, path: Path) -> Node:
        """Return the node at `path` below this one; if it does not exist, its nearest parent."""
        node = self
        for part in path:
            node = node.get(part) or node
        return node

    def walk(self) -> Iterator[Node]:
        """Yield this node and all nodes below it."""
        yield self
        for _, child in self.children():
            yield from child.walk()

    def data(self, as_text: frozenset[Node] = frozenset()) -> Any:  # noqa: ANN401 - any YAML value
        """Return plain dicts, lists and scalars; for nodes in `as_text`, their `text`."""
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
        """Return a problem located at this node (at its key if `at_key`); `path` is the path of the node."""
        place = self.key_at if at_key else self.place
        return Problem(message, show_path(path), place.file, place.line, place.column, severity)


@dataclass(slots=True)
class Document:
    """A configuration merged from all its sources, with every `${…}` replaced."""

    root: Node
    problems: list[Problem] = field(default_factory=list)
    """Errors and warnings about the YAML text, in the order in which they were found."""
    files: tuple[str, ...] = ()
    """The names of the sources, in order."""

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return the position of the value at `path` (or of its key); if it does not exist, of its nearest parent."""
        node = self.root
        for part in path:
            child = node.get(part)
            if child is None:
                return node.key_at
            node = child
        return node.key_at if key else node.place

    def data(self) -> Any:  # noqa: ANN401 - any YAML value
        """Return the whole document as plain dicts, lists and scalars."""
        return self.root.data()


def show_path(path: Path) -> str:
    """Return a path as text: `service.pipelines.traces.receivers[0]`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            name = f'"{part}"' if not part or any(mark in part for mark in ". []") else part
            shown += f".{name}" if shown else name
    return shown


def merge(below: Node, above: Node) -> Node:
    """Return `below` overridden by `above`: maps are merged, other values replaced."""
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    merged = dict(below.value)
    for key, child in above.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, above.at, above.key_at)
