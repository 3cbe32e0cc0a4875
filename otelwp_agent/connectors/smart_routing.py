"""Send each batch to one of several destinations, chosen by a strategy and by how they perform now.

A destination is one or several pipelines, all of which get the batch. `strategy` orders the destinations that work:

* `failover`: in the order of the configuration.
* `round_robin`: batches in turn.
* `weighted`: items in proportion to `weight`.
* `least_latency`: the shortest expected wait, from the median latency and the queued batches.
* `quality`: the highest `quality`.
* `hash`: the destination of a key, such as the trace id, by rendezvous hashing. Batches are divided between the keys.

Destinations that do not keep the `constraints` are used only if no other one works.

A destination that fails is handled as a level of the connector `failover`: what failed or waits moves to another
destination, and one that works again gets its data back gradually.

Example::

    receivers:
      otlp: {protocols: {http: }}
    exporters:
      otlp_http/paris: {endpoint: "https://paris.example"}
      otlp_http/berlin: {endpoint: "https://berlin.example"}
    connectors:
      smart_routing:
        strategy: least_latency
        destinations:
          paris: {pipelines: [traces/paris], region: eu}
          berlin: {pipelines: [traces/berlin], region: eu}
        constraints:
          max_latency: 2s
          min_success_ratio: 0.9
          regions: [eu]
    service:
      pipelines:
        traces: {receivers: [otlp], exporters: [smart_routing]}
        traces/paris: {receivers: [smart_routing], exporters: [otlp_http/paris]}
        traces/berlin: {receivers: [smart_routing], exporters: [otlp_http/berlin]}
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from otelwp_agent.component import Carries, Context, Factory, Kind, Reads, Stability
from otelwp_agent.component.choosing import ChoosingConfig, ChoosingConnector
from otelwp_agent.component.settings import Unfit
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.explain import listing
from otelwp_agent.config.references import PipelineRef  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import Duration  # noqa: TC001 - pydantic reads it
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.balancing import by_resource_attribute, by_tenant, divider
from otelwp_agent.routing.metrics import INSTRUMENTS
from otelwp_agent.routing.strategies import Constrained, LeastLatency, Ranked, Strategy, Weighted
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.config.document import Path
    from otelwp_agent.routing.balancing import Divider

_READERS = {"weight": "weighted", "quality": "quality"}
"""Settings of a destination that only one strategy reads."""


class DestinationSettings(Block):
    """One destination."""

    pipelines: list[PipelineRef] = Field(min_length=1)
    """Pipelines that get the data. Those of other signals than the batch are left out."""
    weight: float = Field(1.0, gt=0)
    """With `weighted`: its part of the items, in proportion to the weights of the others."""
    quality: float = 0.0
    """With `quality`: any number; the destination with the highest one is preferred."""
    region: str = ""
    """Name of its region, for `constraints.regions`."""


class Constraints(Block):
    """Requirements of destinations."""

    max_latency: Duration = 0.0
    """Maximum latency of 95 % of the recent successful attempts. 0: no limit."""
    min_success_ratio: float = Field(0.0, ge=0, le=1)
    """Minimum share of the recent attempts that succeed."""
    regions: list[str] = Field(default_factory=list)
    """Permitted regions; a destination in another one is an error of the configuration. Empty: all."""


class Config(ChoosingConfig):
    """The destinations, and how to choose one."""

    strategy: Literal["failover", "round_robin", "weighted", "least_latency", "quality", "hash"] = "failover"
    """How the destinations that work are ordered."""
    hash_key: Literal["trace_id", "tenant", "resource_attribute"] = "trace_id"
    """With `hash`: what decides. `trace_id` is for traces and logs only; log records without one are spread evenly."""
    hash_attribute: str = ""
    """With `hash_key: resource_attribute`: name of the attribute. Resources without it go to the same destination."""
    destinations: dict[str, DestinationSettings] = Field(min_length=1)
    """The destinations, by name."""
    constraints: Constraints = Constraints()
    """Requirements of destinations. Those that do not keep them are used only if no other one works."""

    def contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield pipelines of two destinations, settings that the strategy does not read, and regions not permitted."""
        yield from self._hash_contradictions()
        owners: dict[str, str] = {}
        regions = self.constraints.regions
        for name, one in self.destinations.items():
            for number, pipeline in enumerate(one.pipelines):
                if pipeline in owners:
                    where = f"destination `{owners[pipeline]}`" if owners[pipeline] != name else "this list"
                    message = f"pipeline `{pipeline}` is in {where} already: remove one of them"
                    yield ("destinations", name, "pipelines", number), message
                owners.setdefault(pipeline, name)
            for setting, strategy in _READERS.items():
                if setting in one.model_fields_set and self.strategy != strategy:
                    message = f"strategy `{self.strategy}` does not read it: remove it, or use strategy `{strategy}`"
                    yield ("destinations", name, setting), message
            if regions and one.region not in regions:
                where = f"is in region `{one.region}`" if one.region else "has no region"
                message = (
                    f"destination `{name}` {where}, but `constraints.regions` permits only {listing(regions, 'and')}"
                )
                yield ("destinations", name, *(("region",) if one.region else ())), message

    def _hash_contradictions(self) -> Iterator[tuple[Path, str]]:
        given = self.model_fields_set
        if self.strategy != "hash":
            for setting in ("hash_key", "hash_attribute"):
                if setting in given:
                    yield (
                        (setting,),
                        f"strategy `{self.strategy}` does not read it: remove it, or use strategy `hash`",
                    )
            return
        if self.hash_key == "resource_attribute" and not self.hash_attribute:
            message = "the name of the attribute is missing: give `hash_attribute`, for example `service.name`"
            yield ("hash_key",), message
        if self.hash_key != "resource_attribute" and "hash_attribute" in given:
            message = f"`hash_key: {self.hash_key}` does not read it: remove it, or use `hash_key: resource_attribute`"
            yield ("hash_attribute",), message
        for name, one in self.destinations.items() if self.hash_key == "trace_id" else ():
            for number, pipeline in enumerate(one.pipelines):
                if pipeline.partition("/")[0] == Signal.METRICS.value:
                    message = (
                        "metrics have no trace id: use `hash_key: tenant` or `hash_key: resource_attribute` for them"
                    )
                    yield ("destinations", name, "pipelines", number), message

    def unfit_for(self, bodies: Carries) -> Unfit | None:
        """Return why encoded bodies cannot be divided: the key is in the body."""
        if bodies is Carries.PLAIN or self.strategy != "hash" or self.hash_key == "tenant":
            return None
        where = "hash_key" if "hash_key" in self.model_fields_set else "strategy"
        return Unfit((where,), "its key is read from them: use `hash_key: tenant`, or another strategy")


class SmartRouting(ChoosingConnector):
    """Forwards each batch to the destination that the strategy prefers."""

    def __init__(self, config: Config, context: Context) -> None:
        """Use the strategy of the configuration."""
        destinations = {name: one.pipelines for name, one in config.destinations.items()}
        hashed = partial(divider_of, config) if config.strategy == "hash" else None
        super().__init__(config, context, destinations, lambda: strategy_of(config), hashed)


def divider_of(config: Config, signal: Signal) -> Divider:
    """Return the function that divides batches of a signal by the key of the strategy `hash`."""
    if config.hash_key == "tenant":
        return by_tenant
    if config.hash_key == "resource_attribute":
        return by_resource_attribute(config.hash_attribute)
    return divider("traceID", signal)


def strategy_of(config: Config) -> Strategy:
    """Return a new strategy with these settings."""
    strategy: Strategy
    if config.strategy == "round_robin":
        strategy = Weighted(dict.fromkeys(config.destinations, 1.0), in_batches=True)
    elif config.strategy == "weighted":
        strategy = Weighted({name: one.weight for name, one in config.destinations.items()})
    elif config.strategy == "least_latency":
        strategy = LeastLatency()
    elif config.strategy == "quality":
        strategy = Ranked({name: one.quality for name, one in config.destinations.items()})
    else:
        strategy = Strategy()
    limits = config.constraints
    if limits.max_latency or limits.min_success_ratio:
        return Constrained(strategy, limits.max_latency, limits.min_success_ratio)
    return strategy


FACTORY = Factory(
    Kind.CONNECTOR,
    "smart_routing",
    Config,
    SmartRouting,
    stability=Stability.ALPHA,
    accepts=Carries.ENCODED,
    tier=Tier.ENTERPRISE,
    reads=Reads.ATTRIBUTES,
    instruments=INSTRUMENTS,
)
