"""From sources to one document: read, merge, replace references.

Sources are what `--config` takes: `PATH`, `file:PATH`, `env:NAME` (YAML in a variable) or `yaml:…` (YAML itself, in
which `::` may separate keys: `yaml:processors::batch::timeout: 2s`). Later sources lie over earlier ones: maps merge,
lists and scalars replace; `--set a.b=c` comes last.
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
    """Where configuration comes from: `scheme` is `file`, `env` or `yaml`; `rest` what follows it."""

    scheme: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read what `--config` was given; raise `ConfigError` if it names a scheme that nobody here reads."""
        match = _URI.fullmatch(text)
        if not match:
            return cls("file", text)
        if match[1] not in _SCHEMES:
            raise ConfigError(
                [
                    Problem(
                        f"`{match[1]}:` is not read here: give `PATH`, `file:PATH`, `env:NAME` or `yaml:…`",
                        file="--config",
                    )
                ]
            )
        return cls(match[1], match[2])

    @property
    def name(self) -> str:
        """What messages call it."""
        return {"file": self.rest, "env": f"env:{self.rest}", "yaml": "yaml"}[self.scheme]

    def read(self, env: Mapping[str, str]) -> str:
        """Return its text; raise `ExpansionError` that says why not."""
        if self.scheme == "yaml":
            return self.rest
        if self.scheme == "file":
            return read_text(self.rest)
        if self.rest not in env:
            raise ExpansionError(f"environment variable {self.rest} is not set")
        return env[self.rest]


def load(sources: Sequence[Source | str], sets: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Document:
    """Return the configuration that the sources make together.

    What does not stop reading (a variable that is not set, a key twice) is in `Document.problems`, to be reported with
    everything else; raises `ConfigError` for what leaves nothing to check: a missing file, no YAML, no map at the top.
    """
    from otelwp_agent.config.parse import parse  # noqa: PLC0415 - PyYAML is loaded when there is something to read

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
        fatal.append(
            Problem("there is nothing in it: a configuration needs `receivers`, `exporters` and `service`", file=names)
        )
    if fatal or merged is None:
        raise ConfigError([*(problem for problem in problems if problem.severity is Severity.ERROR), *fatal])
    Expander(env, problems).expand(merged)
    return Document(merged, problems, tuple(source.name for source in read))


def _flattened_keys(node: Node) -> Node:
    """Read `a::b: c` at the top of a source as `a: {b: c}`, as the Collector does."""
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
    """Read `a.b=value` (or `a::b=value`, for keys with dots in them); the value is YAML."""
    from otelwp_agent.config.parse import parse  # noqa: PLC0415 - see `load`

    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split("::" if "::" in key else ".")]
    if not equals or not all(keys):
        raise ConfigError([Problem(f"{text!r} sets nothing: write `--set processors.batch.timeout=5s`", file="--set")])
    place = Place(f"--set {key}")
    return _nested(keys, parse(value, place.file, problems, origin=place), place)
