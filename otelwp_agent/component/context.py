"""The values that a component gets when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.transport.in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.component.declarations import Kind
    from otelwp_agent.component.host import Host
    from otelwp_agent.telemetry.metrics import Registry


@dataclass(frozen=True, slots=True, order=True)
class ComponentId:
    """`type[/name]`, as written in YAML."""

    type: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ComponentId:
        """Parse `type[/name]`; raise `ValueError` with the reason if it is invalid."""
        type_, slash, name = text.strip().partition("/")
        if not type_ or (slash and not name):
            message = f"{text!r} is not a component id: write `type` or `type/name`"
            raise ValueError(message)
        return cls(type_.strip(), name.strip())

    def __str__(self) -> str:
        """Return the id as written in YAML."""
        return f"{self.type}/{self.name}" if self.name else self.type


@dataclass(frozen=True, slots=True)
class Context:
    """The values that a component gets when it is built."""

    id: ComponentId
    kind: Kind
    registry: Registry
    """The registry to which the component binds its instruments."""
    log: structlog.typing.FilteringBoundLogger
    """A logger that adds the component's id to every event."""
    clock: Callable[[], float]
    """A monotonic clock in seconds."""
    host: Host
    pipeline: str = ""
    """The pipeline of a processor."""
    in_flight: InFlight = field(default_factory=InFlight)
    """The bytes of requests that are being received or decoded, over all receivers of the process."""
    ledgers: Ledgers = field(default_factory=Ledgers)
    """The accounts of the process, for components that create items of their own."""
