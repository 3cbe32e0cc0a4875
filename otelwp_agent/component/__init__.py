"""The contracts between the pipeline and its components.

A component is one file: docstring with a YAML example → `Config` → the class → `FACTORY`. The kinds of components:

* A **receiver** creates batches and forwards each with `next[signal].consume(batch)`.
* A **processor** receives batches in `consume` and forwards them with `self.next.consume(batch)`.
* An **exporter** sends one batch in `export`; `sending.sender` wraps it with queue, retry, splitting and timeouts.
* A **connector** ends one pipeline and starts others: it receives batches in `consume` and forwards them to
  `self.next[signal]`.
* An **extension** does not process batches.

`consume` is a plain call, not a coroutine: it returns if it has accepted the batch and raises `ConsumeError` if it has
accepted nothing of it (docs/adr/0002). The later result is reported through the receipts of the batch.

Everything runs on one event loop, in one thread, except the health endpoint (`transport.side_loop`); `start` and
`shutdown` are coroutines. `shutdown` may be called on a component that was never started, and more than once; it
forwards all buffered data before it returns.
"""

from __future__ import annotations

from otelwp_agent.component.bases import (
    Backend,
    BackendGroup,
    Component,
    Connector,
    Consumer,
    Exporter,
    Extension,
    Processor,
    Receiver,
    ReceiverSink,
)
from otelwp_agent.component.context import ComponentId, Context
from otelwp_agent.component.declarations import (
    Carries,
    Effect,
    KeptPercentage,
    Kind,
    NeedsPlan,
    NeedsTier,
    Reads,
    Stability,
)
from otelwp_agent.component.factory import ConfigClass, Factory
from otelwp_agent.component.host import ComponentHealth, Host, NoHost, Stall
from otelwp_agent.component.settings import ComponentConfig, ExporterConfig, ReceiverConfig, Unfit
from otelwp_agent.tier import Tier

__all__ = [
    "Backend",
    "BackendGroup",
    "Carries",
    "Component",
    "ComponentConfig",
    "ComponentHealth",
    "ComponentId",
    "ConfigClass",
    "Connector",
    "Consumer",
    "Context",
    "Effect",
    "Exporter",
    "ExporterConfig",
    "Extension",
    "Factory",
    "Host",
    "KeptPercentage",
    "Kind",
    "NeedsPlan",
    "NeedsTier",
    "NoHost",
    "Processor",
    "Reads",
    "Receiver",
    "ReceiverConfig",
    "ReceiverSink",
    "Stability",
    "Stall",
    "Tier",
    "Unfit",
]
