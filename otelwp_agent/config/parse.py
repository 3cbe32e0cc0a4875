"""Parse YAML into nodes with positions.

Scalars follow the core schema of YAML 1.2, as in the Collector: `yes` and `on` are text, `1e3` is a number, dates are
text. A duplicate key is an error. Values that an alias repeats are counted each time, so that a few lines cannot
expand to millions of values.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from otelwp_agent.config.document import Node, Place, Scalar
from otelwp_agent.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NODES = 100_000
"""Largest number of values in one file; values of an alias count at each use. Large real files have a few thousand."""

MAX_DEPTH = 64
"""Deepest nesting of maps and lists."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_EXPLAINED = (
    ("cannot start any token", "'\\t'", "there is a tab here: indent YAML with spaces"),
    ("cannot start any token", "'%'", "`%` cannot begin a value: put the value in quotes"),
    ("cannot start any token", "", "this character cannot begin a value: put the value in quotes"),
    (
        "mapping values are not allowed",
        "",
        "a `:` is not allowed here: does the line above lack one, is the indentation wrong, or is a value not quoted?",
    ),
    ("expected <block end>", "", "this line is not indented like the other lines of its block"),
    ("could not find expected ':'", "", "a key needs a `:` after it"),
    ("expected ',' or ']'", "", "a list in `[ ]` is not closed, or a comma is missing"),
    ("expected ',' or '}'", "", "a map in `{ }` is not closed, or a comma is missing"),
    ("expected the node content", "", "a value is missing here: is a `[` or `{` not closed, or a comma too many?"),
    ("found undefined alias", "", "this alias (`*name`) has no anchor (`&name`) above it"),
    ("found duplicate anchor", "", "this anchor is defined twice"),
    ("found unexpected end of stream", "", "a text in quotes is not closed"),
    ("but found another document", "", "a second document begins here (`---`): a configuration is one document"),
)
"""Two texts that PyYAML's message contains, and the message to report instead."""


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's loader up to the composer, with the scalar types of YAML 1.2."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)


for _name, _pattern in (
    ("null", _NULL),
    ("bool", _BOOL),
    ("int", _INT),
    ("float", _FLOAT),
    ("merge", re.compile("<<")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern.pattern})$"), None)


def parse(text: str, file: str, problems: list[Problem], origin: Place | None = None) -> Node:
    """Parse `text` into a tree of nodes; an empty text is a null. `file` is the name for positions.

    Duplicate keys and other recoverable errors are appended to `problems`; raises `ConfigError` for invalid YAML. With
    `origin`, all nodes get that position: for YAML that came from a variable.
    """
    return _Builder(file, problems, origin).build(text)


class _Builder:
    """Builds the nodes of one text."""

    def __init__(self, file: str, problems: list[Problem], origin: Place | None) -> None:
        self._file = file
        self._problems = problems
        self._origin = origin
        self._count = 0

    def build(self, text: str) -> Node:
        try:
            composed = _Loader(text).get_single_node()
            if composed is None:
                place = self._origin or Place(self._file, 1, 1)
                return Node(None, place, place)
            return self._node(composed, self._place(composed.start_mark), ())
        except ReaderError as error:
            before = text[: error.position]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            self._fail(f"character U+{error.character:04X} is not allowed in YAML: remove it", line, column)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            self._fail(_explain(error, text, line), line, column)
        except RecursionError:
            self._fail(f"maps and lists are nested more than {MAX_DEPTH} deep", 1, 1)
        raise AssertionError  # every branch has returned or raised

    def _fail(self, message: str, line: int, column: int) -> None:
        place = self._origin or Place(self._file, line, column)
        raise ConfigError([*self._problems, Problem(message, "", place.file, place.line, place.column)]) from None

    def _place(self, mark: Any) -> Place:  # noqa: ANN401 - PyYAML's marks are untyped
        return self._origin or Place(self._file, mark.line + 1, mark.column + 1)

    def _node(self, composed: yaml.Node, key_at: Place, inside: tuple[yaml.Node, ...]) -> Node:
        at = self._place(composed.start_mark)
        self._count += 1
        if self._count > MAX_NODES:
            self._fail(
                f"more than {MAX_NODES} values, including those of aliases (`*name`): remove some", at.line, at.column
            )
        if composed in inside:
            self._fail("an anchor (`&name`) contains an alias of itself: remove the alias", at.line, at.column)
        if len(inside) > MAX_DEPTH:
            self._fail(f"maps and lists are nested more than {MAX_DEPTH} deep", at.line, at.column)
        inside = (*inside, composed)
        if isinstance(composed, yaml.MappingNode):
            return Node(self._map(composed, inside), at, key_at)
        if isinstance(composed, yaml.SequenceNode):
            items = [self._node(item, self._place(item.start_mark), inside) for item in composed.value]
            return Node(list(items), at, key_at)
        if isinstance(composed, yaml.ScalarNode):
            return Node(self._scalar(composed, at), at, key_at)
        raise TypeError(composed)

    def _map(self, composed: yaml.MappingNode, inside: tuple[yaml.Node, ...]) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in composed.value:
            at = self._place(key.start_mark)
            if key.tag == f"{_TAG}merge":
                for part in self._merged(value, inside):
                    for name, node in part.items():
                        merged.setdefault(name, node)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._report("a key must be plain text, not a map or a list", at)
                continue
            node = self._node(value, at, inside)
            if key.value in own:
                first = own[key.value].key_at
                self._report(f"duplicate key `{key.value}`; the first is at line {first.line}: remove one", at)
                continue
            own[key.value] = node
        return {**{name: node for name, node in merged.items() if name not in own}, **own}

    def _merged(self, value: yaml.Node, inside: tuple[yaml.Node, ...]) -> Iterator[dict[str, Node]]:
        for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            node = self._node(part, self._place(part.start_mark), inside)
            if isinstance(node.value, dict):
                yield node.value
            else:
                self._report("`<<` merges maps: write `<<: *name`, where `&name` marks a map", node.at)

    def _scalar(self, composed: yaml.ScalarNode, at: Place) -> Scalar:
        kind = composed.tag.removeprefix(_TAG)
        text: str = composed.value
        if kind in ("str", "merge", "binary", "timestamp"):
            return text
        read = read_scalar(text) if kind in ("null", "bool", "int", "float") else text
        if kind == composed.tag:
            self._report(f"tag `{composed.tag}` is not supported: remove it", at)
        return float(read) if kind == "float" and isinstance(read, int) else read

    def _report(self, message: str, at: Place) -> None:
        self._problems.append(Problem(message, "", at.file, at.line, at.column))


def read_scalar(text: str) -> Scalar:
    """Return the value of a plain (unquoted) scalar: null, a boolean, a number or text."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return _read_int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _read_int(text: str) -> int:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    for prefix, base in (("0b", 2), ("0o", 8), ("0x", 16)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    if len(digits) > 1 and digits[0] == "0" and not {"8", "9"} & {*digits}:
        return sign * int(digits, 8)
    return sign * int(digits)


def _explain(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    theirs = error.problem or error.context or "invalid YAML"
    plain = (ours for words, also, ours in _EXPLAINED if words in theirs and also in theirs)
    message = next(plain, f"invalid YAML: {theirs}")
    if error.context_mark and error.context_mark.line + 1 != line:
        message += f" (its block begins at line {error.context_mark.line + 1})"
    lines = text.splitlines()
    if theirs.startswith("expected ','") and 0 < line <= len(lines) and "${" in lines[line - 1]:
        message += "; inside `[ ]` and `{ }`, `${…}` must be in quotes"
    return message
