"""The values that a component gets when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from otelwp_agent.errors import StartError
from otelwp_agent.model.deliveries import Deliveries
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.tenant_tiers import TenantTiers
from otelwp_agent.sealing.message_memory import MessageMemory
from otelwp_agent.transport.authentication import ClientAuthenticator, ServerAuthenticator
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.limiting import RequestLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.component.declarations import Kind
    from otelwp_agent.component.host import Host
    from otelwp_agent.config.blocks import ClientAuth
    from otelwp_agent.config.references import ExtensionRef
    from otelwp_agent.telemetry.metrics import Registry
    from otelwp_agent.transport.gate import Gate, GatedServer

T = TypeVar("T")


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
    messages: MessageMemory = field(default_factory=MessageMemory)
    """The ids of accepted requests, of all receivers of the process."""
    deliveries: Deliveries = field(default_factory=Deliveries)
    """Counts of the items that the exporters of the process have delivered, by tenant."""
    tenant_tiers: TenantTiers = field(default_factory=TenantTiers)
    """The tiers of the plans of tenants, for receivers with features that a plan may not include."""
    extensions: Mapping[ComponentId, object] = field(default_factory=dict)
    """The extensions that the component's settings refer to."""

    def extension(self, reference: ExtensionRef, contract: type[T]) -> T:
        """Return the extension that a setting refers to, as an object of the abstract class `contract`."""
        found = self.extensions.get(ComponentId.parse(reference))
        if not isinstance(found, contract):
            message = f"{self.kind.value}/{self.id}: extension `{reference}` is not available as {contract.__name__}"
            raise StartError(message)
        return found

    def gate(self, settings: GatedServer) -> Gate | None:
        """Return what admits the requests of a server with these settings, or `None` if it admits all of them."""
        if settings.auth is None and not settings.middlewares:
            return None
        from otelwp_agent.transport.gate import Gate  # noqa: PLC0415 - only if it is configured

        authenticator = None
        if settings.auth is not None:
            found = self.extension(settings.auth.authenticator, ServerAuthenticator)  # type: ignore[type-abstract]
            authenticator = found.of_servers()
        limiters = [self.extension(each.id, RequestLimiter) for each in settings.middlewares or ()]  # type: ignore[type-abstract]
        return Gate(authenticator, limiters, log=self.log)

    def client_authenticator(self, auth: ClientAuth | None) -> ClientAuthenticator | None:
        """Return the extension that adds credentials to the requests of a client, or `None` if there is none."""
        return None if auth is None else self.extension(auth.authenticator, ClientAuthenticator)  # type: ignore[type-abstract]
