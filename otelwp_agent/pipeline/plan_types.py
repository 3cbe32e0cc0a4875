"""Types of a plan: components to build and pipelines to connect, after every check has passed.

`plan.make_plan` makes a plan from a document, `graph.Graph` builds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.config.references import references

if TYPE_CHECKING:
    from otelwp_agent.component import Carries, ComponentConfig, Factory
    from otelwp_agent.config.document import Place
    from otelwp_agent.config.service import ServiceConfig
    from otelwp_agent.errors import Problem
    from otelwp_agent.model.signal import Signal

Key = tuple[Kind, ComponentId]
"""Identifies a component within a configuration."""


class Components(Protocol):
    """A source of factories, such as `components.Catalog`."""

    def names(self, kind: Kind) -> list[str]:
        """Return every type name of `kind` that YAML may use, aliases included."""

    def get(self, kind: Kind, type_: str) -> Factory | None:
        """Return a component's factory, or `None` if there is none of that type; raise `LoadError`."""


@dataclass(frozen=True, slots=True)
class ComponentPlan:
    """A component to build."""

    kind: Kind
    id: ComponentId
    factory: Factory
    config: ComponentConfig
    at: Place | None = field(default=None, compare=False)
    """Position of its id in the configuration, if it was read from a file."""

    @property
    def encodes(self) -> Carries:
        """How far it encodes its bodies, according to its factory and its settings."""
        return max(self.factory.encodes, self.config.encodes())

    @property
    def references(self) -> tuple[ComponentId, ...]:
        """The extensions that its settings refer to."""
        return tuple(dict.fromkeys(ComponentId.parse(reference) for reference, _ in references(self.config)))


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """A pipeline to connect.

    Its lists are not empty, except in the plan for a tier that does not enable its receivers.

    `receivers` and `exporters` may contain connectors: `(Kind.CONNECTOR, id)` is then a key of `Plan.components`.
    """

    id: str
    signal: Signal
    receivers: tuple[ComponentId, ...]
    processors: tuple[ComponentId, ...]
    exporters: tuple[ComponentId, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration without errors, ready to be built."""

    components: dict[Key, ComponentPlan]
    """The components that pipelines and `service.extensions` use."""
    pipelines: dict[str, PipelinePlan]
    """Pipelines by id, in the order of the file."""
    service: ServiceConfig
    extensions: list[ComponentId]
    """Extensions in the order in which they start."""
    unused: dict[Key, ComponentPlan] = field(default_factory=dict)
    """Components that are configured and valid, but that no pipeline uses."""
    warnings: tuple[Problem, ...] = ()
    emptying: frozenset[ComponentId] = frozenset()
    """Exporters that no pipeline lists any more. If they run, they send what is in their queues and get nothing new."""
