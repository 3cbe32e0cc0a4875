"""Objects of the service that all components of a graph share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelwp_agent.model.deliveries import Deliveries
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.tenant_tiers import TenantTiers
from otelwp_agent.sealing.message_memory import MessageMemory
from otelwp_agent.transport.in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.component import Host
    from otelwp_agent.pipeline.intake import Intake
    from otelwp_agent.sending.delivery import DeadLetters
    from otelwp_agent.telemetry.metrics import Registry


@dataclass(slots=True)
class Environment:
    """Objects that every component gets besides its configuration."""

    registry: Registry
    log: structlog.typing.FilteringBoundLogger
    clock: Callable[[], float]
    host: Host
    ledgers: Ledgers = field(default_factory=Ledgers)
    deliveries: Deliveries = field(default_factory=Deliveries)
    """Shared by all exporters, also across reloads."""
    dead_letters: DeadLetters | None = None
    """Keeps undeliverable batches."""
    intake: Intake | None = None
    """Writes requests to the journal and feeds them to the pipelines; `None` without a journal."""
    messages: MessageMemory = field(default_factory=MessageMemory)
    """The ids of accepted requests of all receivers, also across reloads."""
    in_flight: InFlight = field(default_factory=InFlight)
    """Shared by all receivers and memory limiters, also across reloads."""
    tenant_tiers: TenantTiers = field(init=False)
    """The tiers of the plans of tenants; the control stores of the graph add themselves."""

    def __post_init__(self) -> None:
        """Count for tenants in the registry of the service."""
        self.tenant_tiers = TenantTiers(self.registry, self.clock)
