"""Send data to the first destination that works, and move it away from one that fails.

Each level of `priority_levels` is a destination: one or several pipelines. Data go to the first level that works. A
level is down when the circuit breaker of one of its exporters opens, or after `failures` failed batches in a row. Then
the next level gets the data: new batches, the batches that failed, and those that wait in the queue of the exporter. A
full queue sends new data to the next level, too.

While a level is down, one batch in `retry_interval` is sent there as a test. When a batch is delivered, the level gets
a share of the data that grows to all of it within `return_time`.

No batch is lost or sent to two levels, except that a backend may have kept a batch although its answer did not arrive.
Batches that are already queued move if the level has one pipeline, with one exporter and no compression or encryption,
and if only the connector feeds this pipeline; otherwise they wait for their exporter. They have passed the processors
of the level that they leave.

The settings are those of the Collector's connector of this name. `failures`, `return_time` and `sticky` are additions.

Example::

    receivers:
      otlp: {protocols: {http: }}
    exporters:
      otlp_http/first: {endpoint: "https://otlp.first.example"}
      otlp_http/second: {endpoint: "https://otlp.second.example"}
    connectors:
      failover:
        priority_levels:
          - [traces/first]
          - [traces/second]
        retry_interval: 1m
    service:
      pipelines:
        traces: {receivers: [otlp], exporters: [failover]}
        traces/first: {receivers: [failover], exporters: [otlp_http/first]}
        traces/second: {receivers: [failover], exporters: [otlp_http/second]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from otelwp_agent.component import Carries, Context, Factory, Kind, Stability
from otelwp_agent.component.choosing import ChoosingConfig, ChoosingConnector
from otelwp_agent.config.blocks import Queue  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.references import PipelineRef  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import Duration, Ignored
from otelwp_agent.routing.metrics import INSTRUMENTS
from otelwp_agent.routing.strategies import Strategy
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.config.document import Path

_GAP = Ignored("each level has its own time for its next test")
_RETRIES = Ignored("a level is tested for as long as it is down")
_QUEUE = Ignored("the queues of the exporters are used, and what waits in them moves to the next level")


class Config(ChoosingConfig):
    """The levels, in their order."""

    priority_levels: list[Annotated[list[PipelineRef], Field(min_length=1)]] = Field(min_length=1)
    """The destinations, the preferred one first. All pipelines of a level get the data. If an exporter of any of them
    is down, the level is."""
    retry_gap: Annotated[Duration, _GAP] = 0.0
    """Accepted for compatibility with the Collector, without effect: each level has its own time for its next test."""
    max_retries: Annotated[int, _RETRIES] = Field(0, ge=0)
    """Accepted for compatibility with the Collector, without effect: a level is tested for as long as it is down."""
    sending_queue: Annotated[Queue | None, _QUEUE] = None
    """Accepted for compatibility with the Collector, without effect: the queues of the exporters are used."""

    def contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield pipelines that are listed twice."""
        seen: dict[str, int] = {}
        for place, level in enumerate(self.priority_levels):
            for number, name in enumerate(level):
                if name in seen:
                    message = (
                        f"pipeline `{name}` is in level {seen[name]} already: a level can only replace another one "
                        "with other pipelines; remove one of them"
                    )
                    yield ("priority_levels", place, number), message
                seen.setdefault(name, place + 1)


class Failover(ChoosingConnector):
    """Forwards each batch to the first level that works."""

    def __init__(self, config: Config, context: Context) -> None:
        """Make each level a destination with the names of its pipelines."""
        levels = {", ".join(level): level for level in config.priority_levels}
        super().__init__(config, context, levels, Strategy)


FACTORY = Factory(
    Kind.CONNECTOR,
    "failover",
    Config,
    Failover,
    stability=Stability.ALPHA,
    accepts=Carries.ENCODED,
    tier=Tier.ENTERPRISE,
    instruments=INSTRUMENTS,
)
