"""Replace `${env:NAME}`, `${env:NAME:-default}`, `${NAME}` and `${file:PATH}` in values.

The rules are the Collector's: `$$` is a dollar sign; references may contain references, and so may their values; a
value that consists of one reference only is read as YAML (`8888` becomes a number, `[a, b]` a list), but a field of
type text gets the text. Unlike in the Collector, a variable that is not set and has no default is an error.

Relative paths are relative to the working directory. One newline at the end of a file is removed.
"""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.config.document import Node
from otelwp_agent.config.parse import parse
from otelwp_agent.errors import ConfigError, Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.config.document import Path

MAX_FILE = 4 * 2**20
"""Largest size of a file, in bytes."""

_MAX_NESTING = 32
_MAX_TEXT = 2**20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ExpansionError(Exception):
    """A reference cannot be replaced; the message gives the reason and never contains a value."""

    def __init__(self, message: str, line: int = 0) -> None:
        """Describe the problem; `line` is the line in the file that was read, 0 if unknown."""
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class _Brought:
    """Value of a reference: its text, the file it came from (or ""), and whether references in it are replaced."""

    text: str
    file: str = ""
    done: bool = False


def read_text(path: str) -> str:
    """Return the text of a file; raise `ExpansionError` with the reason if it cannot be read."""
    try:
        with pathlib.Path(path).open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise ExpansionError(f"file `{path}` does not exist") from None
    except IsADirectoryError:
        raise ExpansionError(f"`{path}` is a directory, not a file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ExpansionError(f"file `{path}` cannot be read: {reason}") from None
    if len(raw) > MAX_FILE:
        raise ExpansionError(f"file `{path}` is larger than {MAX_FILE // 2**20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ExpansionError(f"file `{path}` is not UTF-8 text: save it as UTF-8", line) from None


class Expander:
    """Replaces references in a tree, in place; appends errors and warnings to `problems`."""

    def __init__(self, env: Mapping[str, str], problems: list[Problem]) -> None:
        """Read variables from `env`."""
        self._env = env
        self._problems = problems
        self._size = 0

    def expand(self, node: Node, path: Path = (), nesting: int = 0) -> None:
        """Replace every reference in `node` and below it; `path` is the path of `node`."""
        if isinstance(node.value, str):
            if "$" in node.value:
                self._scalar(node, node.value, path, nesting)
            return
        for part, child in node.children():
            self.expand(child, (*path, part), nesting)

    def _scalar(self, node: Node, written: str, path: Path, nesting: int) -> None:
        try:
            whole = written.startswith("${") and _closing(written, 2) == len(written) - 1
            if whole:
                node.written = written
                self._whole(node, written[2:-1], path, nesting)
            else:
                node.value = self._text(written, nesting)
                if "${" in written.replace("$$", ""):
                    node.written = written
                    if _closing(written, written.replace("$$", "  ").find("${") + 2) < 0:
                        message = "`${` is not closed and is left unchanged: write `$${` for a plain `${`"
                        self._problems.append(node.problem(message, path, severity=Severity.WARNING))
        except ExpansionError as error:
            self._problems.append(node.problem(str(error), path))
            node.value, node.broken = None, True

    def _whole(self, node: Node, inner: str, path: Path, nesting: int) -> None:
        """Replace a value that consists of one reference: read its value as YAML, and keep the text."""
        brought = self._retrieve(inner, nesting)
        if brought.done and not brought.text:  # `${env:NAME:-}` is an empty text; an empty variable is null
            node.value = node.text = ""
            return
        found: list[Problem] = []
        try:
            tree = parse(brought.text, brought.file or node.at.file, found, None if brought.file else node.at)
        except ConfigError:
            tree, found = Node(brought.text, node.at, node.key_at), []
        if isinstance(tree.value, str):
            node.value = node.text = self._final(brought, nesting)
            return
        self._problems += found
        if not brought.done:
            for part, child in tree.children():
                self.expand(child, (*path, part), nesting + 1)
        node.value = tree.value
        if isinstance(tree.value, dict | list):
            node.at = tree.at
        try:
            node.text = self._final(brought, nesting)
        except ExpansionError:
            node.text = None  # valid as YAML but not as text, for example because of a `${…}` in a comment

    def _final(self, brought: _Brought, nesting: int) -> str:
        return brought.text if brought.done else self._text(brought.text, nesting + 1)

    def _text(self, text: str, nesting: int) -> str:
        """Return `text` with every reference replaced by text, and `$$` by `$`."""
        if nesting > _MAX_NESTING:
            raise ExpansionError(f"references in references are nested more than {_MAX_NESTING} deep")
        parts: list[str] = []
        position = 0
        while (dollar := text.find("$", position)) >= 0:
            parts.append(text[position:dollar])
            following = text[dollar + 1 : dollar + 2]
            end = _closing(text, dollar + 2) if following == "{" else -1
            if end >= 0:
                parts.append(self._final(self._retrieve(text[dollar + 2 : end], nesting), nesting))
                position = end + 1
            else:
                parts.append("$")
                position = dollar + (2 if following == "$" else 1)
        parts.append(text[position:])
        joined = "".join(parts)
        self._size += len(joined)
        if self._size > _MAX_TEXT:
            raise ExpansionError(f"the references of this configuration expand to more than {_MAX_TEXT} characters")
        return joined

    def _retrieve(self, inner: str, nesting: int) -> _Brought:
        """Return the value of `${inner}`."""
        reference = self._text(inner, nesting + 1)
        scheme, colon, rest = reference.partition(":")
        if not colon or rest.startswith("-"):
            scheme, rest = "env", reference
        if scheme == "env":
            return self._variable(rest, inner)
        if scheme == "file":
            return _Brought(read_text(rest).removesuffix("\n").removesuffix("\r"), file=rest)
        if scheme == "yaml":
            return _Brought(rest, done=True)
        raise ExpansionError(
            f"`${{{inner}}}` is not a known reference: write `${{env:NAME}}` or `${{file:PATH}}`, "
            "or `$${` for a plain `${`"
        )

    def _variable(self, reference: str, inner: str) -> _Brought:
        name, dash, default = reference.partition(":-")
        if not _NAME.fullmatch(name):
            raise ExpansionError(
                f"`${{{inner}}}` names no environment variable: write `${{env:NAME}}`, or `$${{` for a plain `${{`"
            )
        if name in self._env:
            return _Brought(self._env[name])
        if dash:
            return _Brought(default, done=True)
        raise ExpansionError(
            f"environment variable {name} is not set: set it, or give a default: `${{env:{name}:-default}}`"
        )


def _closing(text: str, start: int) -> int:
    """Return the index of the brace that closes the one opened before `start`, or -1."""
    depth = 1
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if not depth:
                return index
    return -1
