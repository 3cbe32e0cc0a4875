"""Load one document from several sources: read them, merge them, replace references.

Sources are the values of `--config`: `PATH`, `file:PATH`, `env:NAME` (YAML in a variable) or `yaml:…` (YAML itself, in
which `::` may separate keys: `yaml:processors::batch::timeout: 2s`). Later sources override earlier ones: maps are
merged, lists and scalars replaced. `--set a.b=c` is applied last.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.config.document import Document, Node, Place, merge
from otelwp_agent.config.expand import Expander, ExpansionError, read_text
from otelwp_agent.errors import ConfigError, Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_SCHEMES = ("file", "env", "yaml")


@dataclass(frozen=True, slots=True)
class Source:
    """Source of configuration: `scheme` is `file`, `env` or `yaml`; `rest` is the part after the scheme."""

    scheme: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse a value of `--config`; raise `ConfigError` if its scheme is not supported."""
        match = _URI.fullmatch(text)
        if not match:
            return cls("file", text)
        if match[1] not in _SCHEMES:
            raise ConfigError(
                [
                    Problem(
                        f"`{match[1]}:` is not supported: give `PATH`, `file:PATH`, `env:NAME` or `yaml:…`",
                        file="--config",
                    )
                ]
            )
        return cls(match[1], match[2])

    @property
    def name(self) -> str:
        """Name of the source in messages."""
        return {"file": self.rest, "env": f"env:{self.rest}", "yaml": "yaml"}[self.scheme]

    def read(self, env: Mapping[str, str]) -> str:
        """Return the text of the source; raise `ExpansionError` with the reason if it cannot be read."""
        if self.scheme == "yaml":
            return self.rest
        if self.scheme == "file":
            return read_text(self.rest)
        if self.rest not in env:
            raise ExpansionError(f"environment variable {self.rest} is not set")
        return env[self.rest]


def load(sources: Sequence[Source | str], sets: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Document:
    """Read and merge `sources`, apply the `--set` assignments, replace references to `env`, and return the document.

    Problems that leave a document to check (a variable that is not set, a duplicate key) are in `Document.problems`, to
    be reported with all others. Raises `ConfigError` for the rest: a missing file, invalid YAML, no map at the top.
    """
    from otelwp_agent.config.parse import parse  # noqa: PLC0415 - load PyYAML only if there is something to parse

    env = os.environ if env is None else env
    problems: list[Problem] = []
    fatal: list[Problem] = []
    merged: Node | None = None
    read = [Source.parse(source) if isinstance(source, str) else source for source in sources]
    for source in read:
        try:
            node = _flattened_keys(parse(source.read(env), source.name, problems))
        except ExpansionError as error:
            place = Place(source.name, error.line) if error.line else Place("--config")
            fatal.append(Problem(str(error), "", place.file, place.line))
            continue
        except ConfigError as error:
            fatal += [problem for problem in error.problems if problem not in problems]
            continue
        if node.value is None:
            problems.append(node.problem("the file is empty", severity=Severity.WARNING))
        elif not isinstance(node.value, dict):
            fatal.append(node.problem("a configuration is a map: `receivers:`, `exporters:`, `service:` and so on"))
        else:
            merged = node if merged is None else merge(merged, node)
    for text in sets:
        try:
            node = _assignment(text, problems)
        except ConfigError as error:
            fatal += error.problems
            continue
        merged = node if merged is None else merge(merged, node)
    if not fatal and merged is None:
        names = ", ".join(source.name for source in read) or "--config"
        fatal.append(Problem("the configuration is empty: it needs `receivers`, `exporters` and `service`", file=names))
    if fatal or merged is None:
        raise ConfigError([*(problem for problem in problems if problem.severity is Severity.ERROR), *fatal])
    Expander(env, problems).expand(merged)
    return Document(merged, problems, tuple(source.name for source in read))


def _flattened_keys(node: Node) -> Node:
    """Expand `a::b: c` at the top of a source to `a: {b: c}`, as the Collector does."""
    if not isinstance(node.value, dict) or not any("::" in key for key in node.value):
        return node
    merged = Node({}, node.at, node.key_at)
    for key, child in node.value.items():
        merged = merge(merged, _nested(key.split("::"), child, node.at))
    return merged


def _nested(keys: list[str], node: Node, place: Place) -> Node:
    for key in reversed(keys):
        node = Node({key: node}, place, node.key_at)
    return node


def _assignment(text: str, problems: list[Problem]) -> Node:
    """Parse `a.b=value`, where the value is YAML, into nested nodes; `a::b=value` is for keys that contain dots."""
    from otelwp_agent.config.parse import parse  # noqa: PLC0415 - see `load`

    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split("::" if "::" in key else ".")]
    if not equals or not all(keys):
        message = f"{text!r} is not an assignment: write `--set processors.batch.timeout=5s`"
        raise ConfigError([Problem(message, file="--set")])
    place = Place(f"--set {key}")
    return _nested(keys, parse(value, place.file, problems, origin=place), place)
