"""The declaration of a component type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otelwp_agent.component.declarations import Carries, Effect, Kind, Reads, Stability
from otelwp_agent.component.settings import ComponentConfig
from otelwp_agent.model.signal import ALL_SIGNALS, Signal
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component.bases import Component
    from otelwp_agent.component.context import Context
    from otelwp_agent.config.references import Capability
    from otelwp_agent.telemetry.metrics import Instrument

ConfigClass = type[ComponentConfig]


@dataclass(frozen=True, slots=True)
class Factory:
    """The declaration of a component type, used by `validate`, the pipeline graph and the documentation."""

    kind: Kind
    type: str
    config: ConfigClass
    build: Callable[[Any, Context], Component]
    """Function that creates the component from its validated config, without opening files or sockets."""
    signals: frozenset[Signal] = ALL_SIGNALS
    emits: frozenset[Signal] | None = None
    """Connectors: the signals of the batches that they forward; the same as `signals` by default."""
    aliases: tuple[str, ...] = ()
    stability: Stability = Stability.BETA
    tier: Tier = Tier.FREE
    """The lowest tier that enables it."""
    counted: bool = True
    """Exporters: whether they count towards a tier's limit of exporters. Those that only show telemetry or write it to
    this host's disk do not count."""
    accepts: Carries = Carries.PLAIN
    """The most encoded bodies that it accepts. Its settings may allow less (`ComponentConfig.unfit_for`)."""
    encodes: Carries = Carries.PLAIN
    """How far it encodes the bodies that it forwards; then only stages that accept this may follow. Its settings may
    encode further (`ComponentConfig.encodes`)."""
    reads: Reads = Reads.NOTHING
    """The largest projection that the component parses."""
    effects: frozenset[Effect] = frozenset()
    """Processors and connectors: their effects on items; none by default."""
    capabilities: frozenset[Capability] = frozenset()
    """Extensions: what other components may use it for; each has an abstract class to derive from."""
    instruments: tuple[Instrument, ...] = ()
