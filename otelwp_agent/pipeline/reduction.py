"""Reduce a plan to the components and settings that a tier enables, so that a running agent can change its tier.

The reduced plan always delivers telemetry, and what it delivers is as safe as before:

* Processors above the tier are bypassed, receivers and extensions above it are stopped. Settings above it get the value
  of the lower tier, samplers above the ceiling get the ceiling.
* Exporters above the limit are stopped when their queues are empty (`Plan.emptying`).
* A pipeline that would have no exporter left keeps its first one, whatever the tier: telemetry never stops.
* What protects data is kept, whatever the tier: processors that encrypt, because data that are meant to be encrypted
  must not leave in clear, and extensions that a component refers to, such as the authenticator of a receiver.

Nothing here performs I/O or knows a component by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from otelwp_agent.component import Carries, ComponentId, Kind
from otelwp_agent.config.document import show_path
from otelwp_agent.pipeline.tier_settings import fitted
from otelwp_agent.pipeline.tiers import LIMITS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from otelwp_agent.config.document import Path
    from otelwp_agent.pipeline.plan_types import ComponentPlan, Key, PipelinePlan, Plan
    from otelwp_agent.tier import Tier


class ChangeKind(Enum):
    """A difference between a plan and its reduction."""

    BYPASSED = "bypassed"
    """A processor above the tier is left out of its pipelines."""
    STOPPED = "stopped"
    """A receiver, exporter or extension is left out."""
    LIMITED = "limited"
    """A setting has another value."""
    KEPT = "kept"
    """A component above the tier runs nevertheless: to leave it out would stop telemetry or make it less safe."""


@dataclass(frozen=True, slots=True, order=True)
class PlanChange:
    """One difference between a plan and its reduction."""

    kind: str
    """Section of the component in YAML."""
    id: str
    action: str
    """Value of an `ChangeKind`."""
    detail: str = ""
    """The setting with its value, or the reason."""
    path: Path = field(default=(), compare=False)
    """Path of the component or setting in the document."""

    @property
    def component(self) -> str:
        """The component, like `processors/batch`."""
        return f"{self.kind}/{self.id}"

    def __str__(self) -> str:
        """Return the difference in words."""
        return f"{self.component} {self.action}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Reduction:
    """A plan for a tier, and how it differs from the plan of the configuration."""

    plan: Plan
    changes: tuple[PlanChange, ...]


def reduce_plan(plan: Plan, tier: Tier, emptied: Collection[ComponentId] = ()) -> Reduction:
    """Return `plan` with only what `tier` enables. `emptied` are exporters to stop now: their queues are empty."""
    return _Reducer(plan, tier).reduce(emptied)


class _Reducer:
    def __init__(self, plan: Plan, tier: Tier) -> None:
        self._plan = plan
        self._tier = tier
        self._changes: dict[PlanChange, None] = {}

    def reduce(self, emptied: Collection[ComponentId]) -> Reduction:
        plan = self._plan
        exporters = self._exporters()
        pipelines = {name: self._pipeline(pipeline, exporters) for name, pipeline in plan.pipelines.items()}
        emptying = frozenset(
            identifier
            for kind, identifier in plan.components
            if kind is Kind.EXPORTER and identifier not in exporters and identifier not in emptied
        )
        used = {key for pipeline in pipelines.values() for key in self._used(pipeline)}
        used |= {(Kind.EXPORTER, identifier) for identifier in emptying}
        extensions = self._extensions(used)
        used |= {(Kind.EXTENSION, identifier) for identifier in extensions}
        components = {key: self._fitted(one) for key, one in plan.components.items() if key in used}
        reduced = replace(plan, components=components, pipelines=pipelines, extensions=extensions, emptying=emptying)
        return Reduction(reduced, tuple(sorted(self._changes)))

    def _note(self, planned: ComponentPlan, action: ChangeKind, detail: str = "", setting: Path = ()) -> None:
        section, name = planned.kind.value, str(planned.id)
        self._changes[PlanChange(section, name, action.value, detail, (section, name, *setting))] = None

    def _enabled(self, planned: ComponentPlan) -> bool:
        return self._tier.enables(planned.factory.tier)

    # Pipelines

    def _exporters(self) -> set[ComponentId]:
        """Return the exporters that run; note the others."""
        most = LIMITS[self._tier].exporters
        exporters = [one for (kind, _), one in self._plan.components.items() if kind is Kind.EXPORTER]
        kept = {one.id for one in exporters if self._enabled(one) and not one.factory.counted}
        counted: list[ComponentId] = []
        for pipeline in self._plan.pipelines.values():
            for one in self._counted(pipeline):
                if self._enabled(one) and one.id not in counted and (most is None or len(counted) < most):
                    counted.append(one.id)
        for pipeline in self._plan.pipelines.values():
            members = self._counted(pipeline)
            if not members or any(one.id in counted for one in members):
                continue
            first = next((one for one in members if self._enabled(one)), members[0])
            counted.append(first.id)
            self._note(first, ChangeKind.KEPT, f"pipeline `{pipeline.id}` has no other exporter")
        kept |= {*counted}
        for one in exporters:
            if one.id not in kept:
                self._note(one, ChangeKind.STOPPED, "when its queue is empty")
        return kept

    def _counted(self, pipeline: PipelinePlan) -> list[ComponentPlan]:
        """Return the exporters of a pipeline that count, in its order."""
        found = [self._plan.components.get((Kind.EXPORTER, identifier)) for identifier in pipeline.exporters]
        return [one for one in found if one is not None and one.factory.counted]

    def _pipeline(self, pipeline: PipelinePlan, exporters: Collection[ComponentId]) -> PipelinePlan:
        receivers = [each for each in pipeline.receivers if self._receives(each)]
        processors = [each for each in pipeline.processors if self._processes(each)]
        kept = [each for each in pipeline.exporters if each in exporters or self._connects(each)]
        return replace(pipeline, receivers=tuple(receivers), processors=tuple(processors), exporters=tuple(kept))

    def _receives(self, identifier: ComponentId) -> bool:
        planned = self._plan.components.get((Kind.RECEIVER, identifier))
        if planned is None or self._enabled(planned):
            return planned is not None or self._connects(identifier)
        self._note(planned, ChangeKind.STOPPED)
        return False

    def _processes(self, identifier: ComponentId) -> bool:
        planned = self._plan.components[Kind.PROCESSOR, identifier]
        if self._enabled(planned):
            return True
        if planned.encodes is Carries.ENCODED:
            self._note(planned, ChangeKind.KEPT, "without it, data would leave unencrypted")
            return True
        self._note(planned, ChangeKind.BYPASSED)
        return False

    def _connects(self, identifier: ComponentId) -> bool:
        planned = self._plan.components.get((Kind.CONNECTOR, identifier))
        if planned is not None and not self._enabled(planned):
            self._note(planned, ChangeKind.KEPT, "without it, pipelines would have no source or no destination")
        return planned is not None

    def _used(self, pipeline: PipelinePlan) -> Iterator[Key]:
        for kind, listed in (
            (Kind.RECEIVER, pipeline.receivers),
            (Kind.PROCESSOR, pipeline.processors),
            (Kind.EXPORTER, pipeline.exporters),
        ):
            for identifier in listed:
                connector = (Kind.CONNECTOR, identifier)
                is_connector = kind is not Kind.PROCESSOR and connector in self._plan.components
                yield connector if is_connector else (kind, identifier)

    # Extensions and settings

    def _extensions(self, used: Collection[Key]) -> list[ComponentId]:
        """Return the extensions that run, in their order; note the others."""
        components = self._plan.components
        listed = [components[Kind.EXTENSION, identifier] for identifier in self._plan.extensions]
        needed = {each for key in used for each in components[key].references}
        for one in reversed(listed):  # each comes after those that it refers to
            if one.id in needed or self._enabled(one):
                needed.update(one.references)
        running = []
        for one in listed:
            if self._enabled(one):
                running.append(one.id)
            elif one.id in needed:
                running.append(one.id)
                self._note(one, ChangeKind.KEPT, "a component refers to it")
            else:
                self._note(one, ChangeKind.STOPPED)
        return running

    def _fitted(self, planned: ComponentPlan) -> ComponentPlan:
        config, settings = fitted(planned.config, self._tier)
        for path, value in settings:
            self._note(planned, ChangeKind.LIMITED, f"{show_path(path)} is {value}", path)
        return planned if config is planned.config else replace(planned, config=config)
