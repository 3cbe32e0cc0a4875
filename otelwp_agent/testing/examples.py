"""Find configuration examples in docstrings and documentation, complete them, and load them with the real loader.

Terms: a *snippet* is a part of a configuration file, such as the section `processors`.
"""

from __future__ import annotations

import re
import textwrap
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import yaml

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otelwp_agent.component import Factory
    from otelwp_agent.pipeline.plan_types import Plan

_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)\}")


class CatalogWith(Catalog):
    """The installed components, and one that does not have to be installed."""

    def __init__(self, factory: Factory) -> None:
        """Add the component of `factory`."""
        self._factory = factory

    def names(self, kind: Kind) -> list[str]:
        """Return every component type of `kind` that may be used in YAML."""
        return sorted({*super().names(kind), *([self._factory.type] if kind is self._factory.kind else [])})

    def get(self, kind: Kind, type_: str) -> Factory | None:
        """Return the factory of a component type, `None` if it is unknown; raise `LoadError` if it cannot be loaded."""
        if (kind, type_) == (self._factory.kind, self._factory.type):
            return self._factory
        return super().get(kind, type_)


def example(docstring: str) -> str:
    """Return the block below `Example::` in a component's docstring; raise `ValueError` if there is none."""
    lines = iter(cleandoc(docstring).splitlines())
    if not any(line == "Example::" for line in lines):  # consumes the lines up to it
        raise ValueError("the docstring has no block `Example::`")
    block: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            break
        block.append(line)
    return textwrap.dedent("\n".join(block)).strip("\n") + "\n"


def plan_of(snippet: str, folder: Path, catalog: Catalog | None = None) -> Plan:
    """Complete a snippet with the missing sections, load it with the real loader and planner, and return the plan.

    Raises `ConfigError` like the agent. Variables without a default are set to an address on loopback.
    """
    catalog = catalog or Catalog()
    file, rest = folder / "snippet.yaml", folder / "rest.yaml"
    file.write_text(snippet, "utf-8")
    rest.write_text(yaml.safe_dump(_missing(yaml.safe_load(snippet), catalog)), "utf-8")
    env = dict.fromkeys(_VARIABLE.findall(snippet), "127.0.0.1:9")
    return make_plan(load([str(rest), str(file)], (), env), catalog)


def strings_in(value: object) -> Iterator[str]:
    """Yield every string in a value of YAML: keys, values and list items, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from strings_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings_in(each)


def _missing(snippet: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return the sections that a snippet lacks, so that every component in it is used."""
    declared = {kind: [ComponentId.parse(name) for name in snippet.get(kind.value) or {}] for kind in Kind}
    service = snippet.get("service") or {}
    rest: dict[str, Any] = {"service": {}}
    if "extensions" not in service and declared[Kind.EXTENSION]:
        rest["service"]["extensions"] = [str(identifier) for identifier in declared[Kind.EXTENSION]]
    if "pipelines" in service and any(declared.values()):
        return rest
    if "pipelines" in service:
        return rest | {kind.value: _named(service, kind) for kind in (Kind.RECEIVER, Kind.EXPORTER)}
    if not declared[Kind.RECEIVER]:
        rest["receivers"] = {"otlp": {"protocols": {"http": None}}}
    if not declared[Kind.EXPORTER]:
        rest["exporters"] = {"debug": None}
    rest["service"]["pipelines"] = _pipelines(declared, catalog)
    return rest


def _named(service: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """Return a component with default settings for each receiver or exporter that only the pipelines name."""
    plain = {Kind.RECEIVER: {"protocols": {"http": None}}, Kind.EXPORTER: None}
    return {name: plain[kind] for pipeline in service["pipelines"].values() for name in pipeline[kind.value]}


def _pipelines(declared: dict[Kind, list[ComponentId]], catalog: Catalog) -> dict[str, Any]:
    """Return pipelines that use all declared components, with two pipelines for a signal if there are connectors."""

    def carrying(kind: Kind, signal: Signal, default: list[str]) -> list[str]:
        factories = [(str(identifier), catalog.get(kind, identifier.type)) for identifier in declared[kind]]
        return [name for name, factory in factories if factory and signal in factory.signals] if factories else default

    connectors = [str(identifier) for identifier in declared[Kind.CONNECTOR]]
    found: dict[str, Any] = {}
    for signal in Signal:
        receivers = carrying(Kind.RECEIVER, signal, ["otlp"])
        processors = carrying(Kind.PROCESSOR, signal, [])
        exporters = carrying(Kind.EXPORTER, signal, ["debug"])
        if not receivers or not exporters or (declared[Kind.PROCESSOR] and not processors):
            continue
        stages = {"processors": processors}
        if connectors:
            found[signal.value] = {"receivers": receivers, **stages, "exporters": connectors}
            found[f"{signal.value}/next"] = {"receivers": connectors, "exporters": exporters}
        else:
            found[signal.value] = {"receivers": receivers, **stages, "exporters": exporters}
    return found
