"""Read YAML into nodes that know their places.

Scalars are read as YAML 1.2's core schema has it (as the Collector does): `yes` and `on` are text, `1e3` is a number,
dates are text. Twice the same key is an error. What an alias repeats is counted, so that a few lines cannot become
millions of values.
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
"""Values in one file, aliases counted as often as they are used. The largest sensible file has some thousand."""

MAX_DEPTH = 64
"""Maps and lists inside each other."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_EXPLAINED = (
    ("cannot start any token", "'\\t'", "a tab stands here: YAML is indented with spaces"),
    ("cannot start any token", "'%'", "`%` cannot begin a value: put the value in quotes"),
    ("cannot start any token", "", "this character cannot begin a value: put the value in quotes"),
    (
        "mapping values are not allowed",
        "",
        "a `:` cannot stand here: does the line above lack one, is this line indented right, or is a value not quoted?",
    ),
    ("expected <block end>", "", "this line is not indented like the lines that it belongs with"),
    ("could not find expected ':'", "", "a key needs a `:` after it"),
    ("expected ',' or ']'", "", "a list in `[ ]` is not closed, or a comma is missing"),
    ("expected ',' or '}'", "", "a map in `{ }` is not closed, or a comma is missing"),
    ("expected the node content", "", "a value is missing here: is a `[` or `{` not closed, or a comma too many?"),
    ("found undefined alias", "", "this alias (`*name`) has no anchor (`&name`) above it"),
    ("found duplicate anchor", "", "this anchor is defined twice"),
    ("found unexpected end of stream", "", "a text in quotes is not closed"),
    ("but found another document", "", "a second document begins here (`---`): a configuration is one document"),
)
"""The parser's words, what else must stand in them, and ours."""


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML as far as nodes, with scalars read as YAML 1.2 has them."""

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
    """Return the text's tree; an empty text is a null.

    Duplicate keys and the like go to `problems`; raises `ConfigError` for what is no YAML at all. With `origin`,
    everything is said to stand there: for YAML that came out of a variable.
    """
    return _Builder(file, problems, origin).build(text)


class _Builder:
    """Turns one text into nodes."""

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
            self._fail(f"character U+{error.character:04X} cannot stand in YAML: remove it", line, column)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            self._fail(_explain(error, text, line), line, column)
        except RecursionError:
            self._fail(f"maps and lists stand more than {MAX_DEPTH} deep inside each other", 1, 1)
        raise AssertionError  # every branch has returned or raised

    def _fail(self, message: str, line: int, column: int) -> None:
        place = self._origin or Place(self._file, line, column)
        raise ConfigError([*self._problems, Problem(message, "", place.file, place.line, place.column)]) from None

    def _place(self, mark: Any) -> Place:  # noqa: ANN401 - PyYAML's marks have no types of their own
        return self._origin or Place(self._file, mark.line + 1, mark.column + 1)

    def _node(self, composed: yaml.Node, key_at: Place, inside: tuple[yaml.Node, ...]) -> Node:
        at = self._place(composed.start_mark)
        self._count += 1
        if self._count > MAX_NODES:
            self._fail(
                f"more than {MAX_NODES} values, aliases (`*name`) counted: this is no configuration", at.line, at.column
            )
        if composed in inside:
            self._fail("an anchor (`&name`) holds an alias of itself: such a value has no end", at.line, at.column)
        if len(inside) > MAX_DEPTH:
            self._fail(f"maps and lists stand more than {MAX_DEPTH} deep inside each other", at.line, at.column)
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
                self._say("a key must be plain text, not a map or a list", at)
                continue
            node = self._node(value, at, inside)
            if key.value in own:
                first = own[key.value].key_at
                self._say(f"key `{key.value}` is here a second time; the first is at line {first.line}: remove one", at)
                continue
            own[key.value] = node
        return {**{name: node for name, node in merged.items() if name not in own}, **own}

    def _merged(self, value: yaml.Node, inside: tuple[yaml.Node, ...]) -> Iterator[dict[str, Node]]:
        for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            node = self._node(part, self._place(part.start_mark), inside)
            if isinstance(node.value, dict):
                yield node.value
            else:
                self._say("`<<` merges maps: write `<<: *name`, where `&name` marks a map", node.at)

    def _scalar(self, composed: yaml.ScalarNode, at: Place) -> Scalar:
        kind = composed.tag.removeprefix(_TAG)
        text: str = composed.value
        if kind in ("str", "merge", "binary", "timestamp"):
            return text
        read = read_scalar(text) if kind in ("null", "bool", "int", "float") else text
        if kind == composed.tag:
            self._say(f"tag `{composed.tag}` means nothing here: remove it", at)
        return float(read) if kind == "float" and isinstance(read, int) else read

    def _say(self, message: str, at: Place) -> None:
        self._problems.append(Problem(message, "", at.file, at.line, at.column))


def read_scalar(text: str) -> Scalar:
    """Return what a plain (unquoted) scalar is: null, a truth value, a number or text."""
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
    said = error.problem or error.context or "not YAML"
    message = next((ours for words, also, ours in _EXPLAINED if words in said and also in said), f"not YAML: {said}")
    if error.context_mark and error.context_mark.line + 1 != line:
        message += f" (what it belongs to begins at line {error.context_mark.line + 1})"
    lines = text.splitlines()
    if said.startswith("expected ','") and 0 < line <= len(lines) and "${" in lines[line - 1]:
        message += "; inside `[ ]` and `{ }`, `${…}` must be in quotes"
    return message
