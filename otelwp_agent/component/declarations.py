"""The terms in which a component declares its kind, tier, input and effects to the agent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otelwp_agent.tier import Tier


class Kind(Enum):
    """A kind of component. `value` is its section in YAML; `label` is its name in messages and metric labels."""

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    EXPORTER = "exporters"
    CONNECTOR = "connectors"
    EXTENSION = "extensions"

    @property
    def label(self) -> str:
        """The name in the singular."""
        return self.value.removesuffix("s")


class Stability(Enum):
    """How much a component may change in later versions."""

    ALPHA = "alpha"
    BETA = "beta"
    STABLE = "stable"


_DEFAULT: Any = object()


@dataclass(frozen=True, slots=True)
class NeedsTier:
    """Marks a setting that needs a higher tier than its component: `Annotated[Sites | None, NeedsTier(…)] = None`.

    A lower tier refuses a configuration that gives the setting another value than the one for lower tiers.
    """

    tier: Tier
    otherwise: Any = _DEFAULT
    """Value on lower tiers; the setting's default if this is left out."""

    def value_below(self, default: object) -> Any:  # noqa: ANN401 - any setting
        """Return the value on lower tiers of a setting with this default."""
        return default if self.otherwise is _DEFAULT else self.otherwise


@dataclass(frozen=True, slots=True)
class NeedsPlan:
    """Marks a receiver's setting for requests that only tenants with a plan of this tier may send.

    The receiver refuses them from other tenants (`Receiver.require_plan`). Without a control store, there are no plans
    and all senders may send them.
    """

    tier: Tier
    feature: str
    """The requests, in the plural, for messages and metrics."""
    instead: str = ""
    """The alternative for a sender without such a plan, for messages."""


@dataclass(frozen=True, slots=True)
class KeptPercentage:
    """Marks a sampler's setting that is the percentage of items it keeps, which a tier may limit.

    Only a value in the configuration is checked, so the default must be within the limit of every tier.
    """


class Carries(IntEnum):
    """How far bodies are encoded, from plain to encrypted. A stage that accepts one value accepts those before it."""

    PLAIN = 0
    """OTLP as it is."""
    COMPRESSED = 1
    """Compressed."""
    ENCODED = 2
    """Encrypted, whether compressed before or not."""


class Reads(Enum):
    """The projection that a component parses; with several settings, the one that reads most.

    Ordered by cost. CONTRIBUTING.md, "Which projection for which job", explains how to choose.
    """

    NOTHING = "nothing"
    """Bodies are forwarded, merged or sent as they are."""
    OPAQUE = "opaque"
    """The outline (`Opaque`): items stay bytes; they can be counted, split and dropped."""
    SHAPE = "shape"
    """The structure down to the items: every message must parse, no value is read (`Shape`, `PointShape`)."""
    RESOURCES = "resources"
    """Resources (`Resources`): items stay bytes."""
    KEYS = "keys"
    """Ids, times and status of spans (`Keys`): all other fields stay bytes."""
    ATTRIBUTES = "attributes"
    """Attributes at any level, names and severities (`Slices` and the messages below it)."""
    FULL = "full"
    """All fields, with the complete message types."""


class Effect(Enum):
    """An effect of a processor or connector on the items that pass through it.

    The contract suite (`otelwp_agent.testing`) checks the declared effects, using the example in the component's
    docstring. A component that declares no effect forwards every item unchanged: it may merge, split, delay and refuse
    batches.
    """

    EDITS = "edits"
    """Changes items, or the resources and scopes around them."""
    DROPS = "drops"
    """Settles items as sampled out or filtered instead of forwarding them."""
