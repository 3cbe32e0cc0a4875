"""Snippets of configuration, as documentation shows them: found, and made whole so that the real loader takes them."""

from __future__ import annotations

import re
import textwrap
from inspect import cleandoc

import yaml

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan import make_plan

VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)\}")


def fenced(text, language):
    """Return (line, block) of every fenced block of a language in Markdown."""
    pattern = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 2, textwrap.dedent(match[2])) for match in pattern.finditer(text)]


def example(docstring):
    """Return the block below `Example::` in a component's docstring."""
    lines = cleandoc(docstring).splitlines()
    block = []
    for line in lines[lines.index("Example::") + 1 :]:
        if line and not line.startswith(" "):
            break
        block.append(line)
    return textwrap.dedent("\n".join(block)).strip("\n") + "\n"


def plan_of(snippet, folder):
    """Load a snippet with the real loader and planner, what it leaves out filled in; return the plan.

    Raises `ConfigError` as the agent would. Variables without a default are set to an address on loopback.
    """
    file, rest = folder / "snippet.yaml", folder / "rest.yaml"
    file.write_text(snippet, "utf-8")
    rest.write_text(yaml.safe_dump(missing(yaml.safe_load(snippet))), "utf-8")
    env = dict.fromkeys(VARIABLE.findall(snippet), "127.0.0.1:9")
    return make_plan(load([str(rest), str(file)], (), env), Catalog())


def missing(snippet):
    """Return the sections that a snippet needs beside its own, so that everything in it is used."""
    declared = {kind: [ComponentId.parse(name) for name in snippet.get(kind.value) or {}] for kind in Kind}
    service = snippet.get("service") or {}
    rest = {"service": {}}
    if "extensions" not in service and declared[Kind.EXTENSION]:
        rest["service"]["extensions"] = [str(identifier) for identifier in declared[Kind.EXTENSION]]
    if "pipelines" in service and any(declared.values()):
        return rest
    if "pipelines" in service:
        return rest | {kind.value: named(service, kind) for kind in (Kind.RECEIVER, Kind.EXPORTER)}
    if not declared[Kind.RECEIVER]:
        rest["receivers"] = {"otlp": {"protocols": {"http": None}}}
    if not declared[Kind.EXPORTER]:
        rest["exporters"] = {"debug": None}
    rest["service"]["pipelines"] = pipelines(declared)
    return rest


def named(service, kind):
    """Return a plain component for each that pipelines name and nobody declares."""
    plain = {Kind.RECEIVER: {"protocols": {"http": None}}, Kind.EXPORTER: None}
    return {name: plain[kind] for pipeline in service["pipelines"].values() for name in pipeline[kind.value]}


def pipelines(declared):
    """Return pipelines that use everything declared, through its connectors if there are any."""
    catalog = Catalog()

    def carrying(kind, signal, default):
        factories = [(str(identifier), catalog.get(kind, identifier.type)) for identifier in declared[kind]]
        return [name for name, factory in factories if factory and signal in factory.signals] if factories else default

    connectors = [str(identifier) for identifier in declared[Kind.CONNECTOR]]
    found = {}
    for signal in Signal:
        receivers = carrying(Kind.RECEIVER, signal, ["otlp"])
        processors = carrying(Kind.PROCESSOR, signal, [])
        exporters = carrying(Kind.EXPORTER, signal, ["debug"])
        if not receivers or not exporters:
            continue
        stages = {"processors": processors}
        if connectors:
            found[signal.value] = {"receivers": receivers, **stages, "exporters": connectors}
            found[f"{signal.value}/next"] = {"receivers": connectors, "exporters": exporters}
        else:
            found[signal.value] = {"receivers": receivers, **stages, "exporters": exporters}
    return found
