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

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from otelwp_agent.component import (
    Carries,
    ComponentConfig,
    ComponentHealth,
    Connector,
    Context,
    Factory,
    Kind,
    Stability,
)
from otelwp_agent.config.blocks import Queue  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.references import PipelineRef  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import Duration, Ignored, PositiveDuration
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.availability import Readiness
from otelwp_agent.routing.destinations import DestinationGroup
from otelwp_agent.routing.metrics import INSTRUMENTS, DestinationMetrics
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from otelwp_agent.config.document import Path
    from otelwp_agent.errors import RetryableError
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.routing.availability import Availability
    from otelwp_agent.routing.outlets import Outlets

_GAP = Ignored("each level has its own time for its next test")
_RETRIES = Ignored("a level is tested for as long as it is down")
_QUEUE = Ignored("the queues of the exporters are used, and what waits in them moves to the next level")


class Config(ComponentConfig):
    """The levels, in their order."""

    priority_levels: list[Annotated[list[PipelineRef], Field(min_length=1)]] = Field(min_length=1)
    """The destinations, the preferred one first. All pipelines of a level get the data. If an exporter of any of them
    is down, the level is."""
    retry_interval: PositiveDuration = 30.0
    """Time between the tests of a level that is down. The Collector's default is 10m; here, a test that fails loses
    nothing, so that it may be more frequent."""
    return_time: Duration = 30.0
    """Time in which a level that works again gets all of its data back. 0: at once."""
    failures: int = Field(5, ge=1)
    """Number of batches in a row that fail, after which a level is down even if no circuit breaker is open: for example
    because its backend refuses the credentials."""
    sticky: bool = False
    """Let batches that are queued or whose sending failed wait for their exporter, instead of moving to another level.
    Batches that are refused permanently move in any case."""
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


class Failover(Connector):
    """Forwards each batch to one level."""

    def __init__(self, config: Config, context: Context) -> None:
        """Create a group of destinations for each signal."""
        super().__init__(context)
        self._metrics = DestinationMetrics(context.registry, str(context.id))
        self._groups = {
            signal: self._group(config, signal, levels)
            for signal in Signal
            if (levels := [own for level in config.priority_levels if (own := _of(level, signal))])
        }
        for signal, group in self._groups.items():
            for one in group.destinations:
                self._metrics.show_share(one.name, signal.value, partial(_share, one.state, context.clock))

    def consume(self, batch: Batch) -> None:
        """Forward the batch to the first level that works and accepts it, or raise with nothing accepted."""
        group = self._groups.get(batch.signal)
        if group is None:
            self.next[batch.signal].consume(batch)
        else:
            group.consume(batch)

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if no level that works accepts the batch now, else `None`."""
        group = self._groups.get(batch.signal)
        return super().refusal(batch) if group is None else group.refusal(batch)

    def admit(self, signal: Signal) -> None:
        """Raise `Overloaded` if no level that works accepts anything now."""
        group = self._groups.get(signal)
        if group is None:
            super().admit(signal)
        else:
            group.admit()

    def fill(self, signal: Signal, fills: Mapping[str, float]) -> float:
        """Return the used share of the queues of the level with the most capacity."""
        group = self._groups.get(signal)
        return super().fill(signal, fills) if group is None else group.fill(fills)

    def connect(self, outlets: Mapping[Signal, Mapping[str, Outlets]]) -> None:
        """Watch the exporters of all levels."""
        for signal, group in self._groups.items():
            group.connect(outlets.get(signal, {}))

    async def shutdown(self) -> None:
        """Stop watching the exporters."""
        for group in self._groups.values():
            group.close()
        self._metrics.close()

    def health(self) -> ComponentHealth:
        """Report the readiness of each level: unhealthy while every level of a signal is down."""
        conditions = {
            signal.value: {one.name: one.state.readiness.label for one in group.destinations}
            for signal, group in self._groups.items()
        }
        down = [name for name, found in conditions.items() if {*found.values()} == {Readiness.DOWN.label}]
        message = f"every level is down for {', '.join(down)}: batches wait in the queues" if down else ""
        return ComponentHealth(Kind.CONNECTOR, str(self.context.id), not down, message, {"levels": conditions})

    def _group(self, config: Config, signal: Signal, levels: Sequence[Sequence[str]]) -> DestinationGroup:
        context = self.context
        return DestinationGroup(
            {", ".join(level): level for level in levels},
            failures=config.failures,
            retry_interval=config.retry_interval,
            return_time=config.return_time,
            sticky=config.sticky,
            entrance=lambda pipelines: self.choose(signal, pipelines),
            counts=self._metrics,
            clock=context.clock,
            log=context.log,
        )


def _share(state: Availability, clock: Callable[[], float]) -> float:
    return state.share(clock())


def _of(pipelines: Sequence[str], signal: Signal) -> list[str]:
    """Return the pipelines of one signal."""
    return [name for name in pipelines if name.partition("/")[0] == signal.value]


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
