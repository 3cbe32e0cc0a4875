"""Make a plan from a document: find all configuration errors before any component is built.

`validate` makes a plan to check a configuration; `graph.Graph` builds one. Making a plan imports only the modules of
the components that the document names. It opens and starts nothing, so that a reload may make one at any time.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.explain import check, did_you_mean, hide, kind_of, listing
from otelwp_agent.config.service import PipelineConfig, ServiceConfig
from otelwp_agent.errors import ConfigError, LoadError, Problem, Severity
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan_bodies import check_bodies
from otelwp_agent.pipeline.plan_graph import PlanGraph, check_graph
from otelwp_agent.pipeline.plan_references import check_references, in_order
from otelwp_agent.pipeline.plan_types import ComponentPlan, PipelinePlan, Plan
from otelwp_agent.pipeline.tiers import Declared, check_tiers, stated_tier
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from otelwp_agent.config.document import Document, Node, Path
    from otelwp_agent.pipeline.plan_types import Components, Key

_SECTIONS = (*(kind.value for kind in Kind), "service")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_LISTED = {"receivers": Kind.RECEIVER, "processors": Kind.PROCESSOR, "exporters": Kind.EXPORTER}
_NOT_NEEDED = {
    "pprof": "it profiles programs in Go",
    "zpages": "`/health/detailed` of the extension `health_check` shows the state of every component",
}
"""Debugging extensions of the Collector, with the reason why they are not needed; they are ignored with a warning."""
_PATH_SERVICE: Path = ("service",)


class _Named(Block):
    """The list of extensions of a section `service` that has errors elsewhere."""

    model_config = ConfigDict(extra="ignore")

    extensions: list[str] = Field(default_factory=list)


def make_plan(document: Document, catalog: Components, tier: Tier | None = None) -> Plan:
    """Return the plan of `document`; raise `ConfigError` with all errors, in the order of the file.

    With `tier`, which a licence permits, its warnings include what needs a higher tier: the agent would run without it.
    """
    return _Planner(document, catalog).plan(tier)


class _Planner:
    """Makes the plan of one document and collects its problems."""

    def __init__(self, document: Document, catalog: Components) -> None:
        self._document = document
        self._catalog = catalog
        self._problems = list(document.problems)
        self._left_out: set[ComponentId] = set()
        self._declared: dict[Key, ComponentPlan | None] = {}  # None: invalid, and reported
        self._known: dict[Key, Declared] = {}  # components of an existing type, valid or not

    def plan(self, permitted: Tier | None) -> Plan:
        root = self._document.root
        for name, node in _entries(root):
            if name not in _SECTIONS:
                hint = did_you_mean(name, _SECTIONS) or f": the sections are {listing(_SECTIONS, 'and')}"
                self._report(node, f"there is no section `{name}`{hint}", (name,), at_key=True)
        for kind in Kind:
            self._section(kind)
        self._ambiguous()
        service, pipelines, extensions = self._service()
        used: dict[Key, list[str]] = {(Kind.EXTENSION, identifier): [] for identifier in extensions}
        for pipeline in pipelines.values():
            for key in self._uses(pipeline):
                used.setdefault(key, []).append(pipeline.id)
        self._unused(used)
        components = {key: planned for key, planned in self._declared.items() if planned is not None}
        graph = PlanGraph(pipelines, components, self._document)
        self._problems += check_graph(graph)
        self._problems += check_bodies(graph, self._catalog)
        self._problems += check_references(self._declared, extensions, self._document, self._catalog)
        self._check_tiers(used, permitted)
        errors = [problem for problem in self._problems if problem.severity is Severity.ERROR]
        if errors or service is None:
            raise ConfigError(self._sorted(errors))
        return Plan(
            {key: planned for key, planned in components.items() if key in used},
            pipelines,
            service,
            in_order(components, extensions),
            {key: planned for key, planned in components.items() if key not in used},
            tuple(self._sorted(self._problems)),
        )

    def _report(
        self, node: Node, message: str, path: Path, *, at_key: bool = False, severity: Severity = Severity.ERROR
    ) -> None:
        if not node.broken:
            self._problems.append(node.problem(hide(message, node), path, at_key=at_key, severity=severity))

    def _sorted(self, problems: list[Problem]) -> list[Problem]:
        """Return problems sorted by their position in the files."""
        order = {name: number for number, name in enumerate(self._document.files)}
        return sorted(problems, key=lambda problem: (order.get(problem.file, len(order)), problem.line, problem.column))

    def _check_tiers(self, used: Mapping[Key, Sequence[str]], permitted: Tier | None) -> None:
        """Report what needs a higher tier: as errors for the tier that the document states, else as warnings."""
        stated = stated_tier(self._document)
        path: Path = (*_PATH_SERVICE, "tier")
        node = self._node(path)
        if stated is None and node is not self._node(_PATH_SERVICE) and node.value in [tier.value for tier in Tier]:
            message = "this has no effect, because the licence decides: remove it"
            self._report(node, message, path, at_key=True, severity=Severity.WARNING)
        if stated is not None:
            self._problems += check_tiers(self._known, used, stated, "`service.tier`")
        if permitted is not None:
            found = check_tiers(self._known, used, permitted, "the tier of this agent")
            self._problems += [replace(problem, severity=Severity.WARNING) for problem in found]

    # Components

    def _section(self, kind: Kind) -> None:
        """Check the components of one section."""
        section = self._document.root.get(kind.value)
        if section is None or section.value is None:
            return
        if not isinstance(section.value, dict):
            names = self._catalog.names(kind) or ["type"]
            example = "otlp" if "otlp" in names else names[0]
            message = f"this must be a map of {kind.value}, like `{example}:`, not {kind_of(section)}"
            self._report(section, message, (kind.value,))
            return
        for text, node in section.value.items():
            path: Path = (kind.value, text)
            identifier = self._identifier(text, node, path)
            if identifier is None:
                continue
            if (kind, identifier) in self._declared:
                self._report(
                    node, f"{kind.label} `{identifier}` is defined twice: give one of them a name", path, at_key=True
                )
                continue
            self._declared[kind, identifier] = self._component(kind, identifier, node, path)

    def _identifier(self, text: str, node: Node, path: Path) -> ComponentId | None:
        try:
            identifier = ComponentId.parse(text)
        except ValueError as error:
            self._report(node, str(error), path, at_key=True)
            return None
        if not _TYPE.fullmatch(identifier.type):
            message = (
                f"{identifier.type!r} is not a component type: use letters, digits and `_`, beginning with a letter"
            )
            self._report(node, message, path, at_key=True)
            return None
        return identifier

    def _component(self, kind: Kind, identifier: ComponentId, node: Node, path: Path) -> ComponentPlan | None:
        """Check the settings of one component; return its plan, or `None` if it is invalid or ignored."""
        try:
            factory = self._catalog.get(kind, identifier.type)
        except LoadError as error:
            self._report(node, str(error), (), at_key=True)
            return None
        if factory is None and kind is Kind.EXTENSION and identifier.type in _NOT_NEEDED:
            message = f"`{identifier.type}` is ignored, because it is not needed here: {_NOT_NEEDED[identifier.type]}"
            self._report(node, message, path, at_key=True, severity=Severity.WARNING)
            self._left_out.add(identifier)
            return None
        if factory is None:
            self._report(node, self._unknown_type(kind, identifier.type), path, at_key=True)
            return None
        self._known[kind, identifier] = Declared(factory, node, path)
        try:
            config, problems = check(factory.config, node, path)
        except Exception as error:  # noqa: BLE001 - a bug in a third party's Config is a problem among others
            what = " ".join(str(error).split())
            message = f"{kind.value}/{identifier}: its Config has a bug: {type(error).__name__}: {what}"
            self._report(node, message, (), at_key=True)
            return None
        self._problems += problems
        for below, message in config.contradictions() if config is not None else ():
            self._report(node.below(below), message, (*path, *below))
        return None if config is None else ComponentPlan(kind, identifier, factory, config, node.key_at)

    def _unknown_type(self, kind: Kind, type_: str) -> str:
        names = self._catalog.names(kind)
        message = f"there is no {kind.label} of type `{type_}`"
        if hint := did_you_mean(type_, names):
            return message + hint
        others = [other.label for other in Kind if other is not kind and type_ in self._catalog.names(other)]
        if others:
            return f"{message}: it is {_a(others[0])}: write it under `{others[0]}s`"
        return f"{message}: there {'are' if len(names) > 1 else 'is'} {listing(names, 'and')}"

    def _ambiguous(self) -> None:
        """Refuse a connector with the id of a receiver or exporter, because pipelines name both only by id."""
        for kind, identifier in self._declared:
            if kind is not Kind.CONNECTOR:
                continue
            for other in (Kind.RECEIVER, Kind.EXPORTER):
                if (other, identifier) in self._declared:
                    path: Path = (kind.value, str(identifier))
                    message = f"there is also {_a(other.label)} `{identifier}`: give one of them another name"
                    self._report(self._node(path), message, path, at_key=True)

    # The service

    def _service(self) -> tuple[ServiceConfig | None, dict[str, PipelinePlan], list[ComponentId]]:
        node = self._document.root.get("service")
        if node is None or node.value is None:
            if not (node is not None and node.broken):
                at = node or self._document.root
                self._report(
                    at,
                    "`service` is missing: it lists the pipelines to run (`service: {pipelines: {traces: …}}`)",
                    _PATH_SERVICE,
                )
            return None, {}, []
        service, problems = check(ServiceConfig, node, _PATH_SERVICE)
        self._problems += problems
        listed = node.get("pipelines")
        if listed is None or listed.value in (None, {}):
            message = "a pipeline is needed, such as `traces: {receivers: [otlp], exporters: [debug]}`"
            self._report(listed or node, message, (*_PATH_SERVICE, "pipelines"), at_key=True)
        pipelines: dict[str, PipelinePlan] = {}
        for text, below in _entries(listed or node) if listed else ():
            # Errors of its form have been reported above; the components that it names are checked in any case.
            config, _ = check(PipelineConfig, below)
            pipeline = self._pipeline(text, below, config) if config else None
            if pipeline is not None:
                pipelines[pipeline.id] = pipeline
        return service, pipelines, self._extensions(node, service)

    def _pipeline(self, text: str, node: Node, config: PipelineConfig) -> PipelinePlan | None:
        """Check one pipeline's id and lists."""
        path: Path = (*_PATH_SERVICE, "pipelines", text)
        try:
            identifier = ComponentId.parse(text)
        except ValueError:
            self._report(node, f"{text!r} is not a pipeline id: write `traces` or `traces/name`", path, at_key=True)
            return None
        signals = [signal.value for signal in Signal]
        signal = next((signal for signal in Signal if signal.value == identifier.type), None)
        if signal is None:
            hint = did_you_mean(identifier.type, signals) or f": pipelines carry {listing(signals)}"
            self._report(node, f"there is no signal `{identifier.type}`{hint}", path, at_key=True)
            return None
        lists = {
            name: self._members(kind, getattr(config, name), node, (*path, name)) for name, kind in _LISTED.items()
        }
        for name in ("receivers", "exporters"):
            if not getattr(config, name) and not node.broken:
                at = node.get(name) or node
                self._report(at, f"a pipeline needs at least one {_LISTED[name].label}", (*path, name), at_key=True)
        return PipelinePlan(str(identifier), signal, lists["receivers"], lists["processors"], lists["exporters"])

    def _members(self, kind: Kind, texts: list[str], pipeline: Node, path: Path) -> tuple[ComponentId, ...]:
        """Return the existing components that a list names; report the others."""
        listed = pipeline.get(path[-1])
        found: list[ComponentId] = []
        for index, text in enumerate(texts):
            at: Path = (*path, index)
            node = (listed.get(index) if listed else None) or listed or pipeline
            identifier = self._identifier(text, node, at)
            if identifier is None:
                continue
            if identifier in found:
                self._report(node, f"`{identifier}` is in this list twice: remove one of them", at)
            elif self._exists(kind, identifier):
                found.append(identifier)
            else:
                self._report(node, self._undefined(kind, identifier), at)
        return tuple(found)

    def _exists(self, kind: Kind, identifier: ComponentId) -> bool:
        return (kind, identifier) in self._declared or (
            kind in (Kind.RECEIVER, Kind.EXPORTER) and (Kind.CONNECTOR, identifier) in self._declared
        )

    def _undefined(self, kind: Kind, identifier: ComponentId) -> str:
        """Return a message that an id is not configured, with a suggestion if there is one."""
        message = f"{kind.label} `{identifier}` is not configured"
        kinds = (kind, Kind.CONNECTOR) if kind in (Kind.RECEIVER, Kind.EXPORTER) else (kind,)
        known = [str(other) for of, other in self._declared if of in kinds]
        if hint := did_you_mean(str(identifier), known):
            return message + hint
        if identifier.type in self._catalog.names(kind):
            return f"{message}: write `{identifier}:` with its settings under `{kind.value}`"
        elsewhere = next((of for of, other in self._declared if other == identifier), None)
        if elsewhere is not None:
            where = {Kind.EXTENSION: "service.extensions", Kind.CONNECTOR: "receivers` and `exporters"}
            section = where.get(elsewhere, elsewhere.value)
            return f"{message}: `{identifier}` is {_a(elsewhere.label)}: list it under `{section}`"
        hint = did_you_mean(identifier.type, self._catalog.names(kind))
        return message + (
            hint or (f": there {'are' if len(known) > 1 else 'is'} {listing(known, 'and')}" if known else "")
        )

    def _extensions(self, node: Node, service: ServiceConfig | None) -> list[ComponentId]:
        # As with pipelines, the extensions that it names are checked whatever other errors it has.
        named = service or check(_Named, node)[0]
        texts = named.extensions if named is not None else []
        listed = self._members(Kind.EXTENSION, texts, node, (*_PATH_SERVICE, "extensions"))
        return [identifier for identifier in listed if identifier not in self._left_out]

    # What is used

    def _uses(self, pipeline: PipelinePlan) -> Iterator[Key]:
        for name, kind in _LISTED.items():
            for identifier in getattr(pipeline, name):
                connector = (Kind.CONNECTOR, identifier)
                yield connector if kind is not Kind.PROCESSOR and connector in self._declared else (kind, identifier)

    def _unused(self, used: Container[Key]) -> None:
        for kind, identifier in self._declared:
            if (kind, identifier) in used or (kind is Kind.EXTENSION and identifier in self._left_out):
                continue
            path: Path = (kind.value, str(identifier))
            where = "`service.extensions` does not list it" if kind is Kind.EXTENSION else "no pipeline lists it"
            message = f"this {kind.label} does not run: {where}"
            self._report(self._node(path), message, path, at_key=True, severity=Severity.WARNING)

    def _node(self, path: Path) -> Node:
        node = self._document.root
        for part in path:
            node = node.get(part) or node
        return node


def _entries(node: Node) -> Iterator[tuple[str, Node]]:
    for name, child in node.children():
        yield str(name), child


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
