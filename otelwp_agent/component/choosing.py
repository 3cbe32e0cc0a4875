"""Base of connectors that forward each batch to one of several destinations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from otelwp_agent.component.bases import Connector
from otelwp_agent.component.declarations import Kind
from otelwp_agent.component.host import ComponentHealth
from otelwp_agent.component.settings import ComponentConfig
from otelwp_agent.config.types import Duration, PositiveDuration  # noqa: TC001 - pydantic reads them
from otelwp_agent.errors import ConsumeError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.availability import Readiness
from otelwp_agent.routing.destinations import DestinationGroup
from otelwp_agent.routing.metrics import DestinationMetrics
from otelwp_agent.routing.rendezvous import Rendezvous

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.component.context import Context
    from otelwp_agent.errors import RetryableError
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.routing.availability import Availability
    from otelwp_agent.routing.balancing import Divider
    from otelwp_agent.routing.outlets import Outlets
    from otelwp_agent.routing.strategies import Strategy


class ChoosingConfig(ComponentConfig):
    """When a destination is down, and how it gets its data back."""

    retry_interval: PositiveDuration = 30.0
    """Time between the tests of a destination that is down. The default of the Collector's `failover` is 10m; here, a
    test that fails loses nothing, so that it may be more frequent."""
    return_time: Duration = 30.0
    """Time in which a destination that works again gets all of its data back. 0: at once."""
    failures: int = Field(5, ge=1)
    """Number of batches in a row that fail, after which a destination is down even if no circuit breaker is open: for
    example because its backend refuses the credentials."""
    sticky: bool = False
    """Let batches that are queued or whose sending failed wait for their exporter, instead of moving to another
    destination. Batches that are refused permanently move in any case."""


class ChoosingConnector(Connector):
    """Forwards each batch to one destination, and moves batches away from one that fails."""

    def __init__(
        self,
        config: ChoosingConfig,
        context: Context,
        destinations: Mapping[str, Sequence[str]],
        strategy: Callable[[], Strategy],
        divider: Callable[[Signal], Divider] | None = None,
    ) -> None:
        """Create a group for each signal of `destinations`: pipelines by name. Each group has its own `strategy()`.

        With `divider`, each batch is divided by keys: the destination of a key is chosen by rendezvous hashing.
        """
        super().__init__(context)
        self._divider = divider
        self._metrics = DestinationMetrics(context.registry, str(context.id))
        self._groups = {
            signal: self._group(config, signal, own, strategy())
            for signal in Signal
            if (own := {name: of for name, listed in destinations.items() if (of := _of(listed, signal))})
        }
        self._dividers: dict[Signal, tuple[Divider, Rendezvous]] = {}
        for signal, group in self._groups.items():
            if divider is not None:
                self._dividers[signal] = divider(signal), Rendezvous(each.name for each in group.destinations)
            for one in group.destinations:
                self._metrics.show_share(one.name, signal.value, partial(_share, one.state, context.clock))

    def consume(self, batch: Batch) -> None:
        """Forward the batch to a destination that works and accepts it, or raise with nothing accepted."""
        group = self._groups.get(batch.signal)
        if group is None:
            self.next[batch.signal].consume(batch)
            return
        parts = self._divide(batch)
        if len(parts) == 1:
            group.consume(batch, parts[0][0])
            return
        refusal = None if batch.admitted else _refusal(group, parts)
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal  # else this frame, with the body, and the error would hold each other
        for owner, part in parts:
            part.admitted = True
            try:
                group.consume(part, owner)
            except ConsumeError as error:
                refused = error.with_traceback(None)
            else:
                continue
            part.settle(Outcome.DROPPED, refused.reason)
            self.context.log.error("items dropped", reason=refused.reason, items=part.items, error=str(refused))

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if no destination that works accepts the batch now, else `None`."""
        group = self._groups.get(batch.signal)
        return super().refusal(batch) if group is None else _refusal(group, self._divide(batch))

    def admit(self, signal: Signal) -> None:
        """Raise `Overloaded` if no destination that works accepts anything now."""
        group = self._groups.get(signal)
        if group is None:
            super().admit(signal)
        else:
            group.admit()

    def fill(self, signal: Signal, fills: Mapping[str, float]) -> float:
        """Return the used share of the queues of the destination with the most capacity."""
        group = self._groups.get(signal)
        return super().fill(signal, fills) if group is None else group.fill(fills)

    def connect(self, outlets: Mapping[Signal, Mapping[str, Outlets]]) -> None:
        """Watch the exporters of all destinations."""
        for signal, group in self._groups.items():
            group.connect(outlets.get(signal, {}))

    async def shutdown(self) -> None:
        """Stop watching the exporters."""
        for group in self._groups.values():
            group.close()
        self._metrics.close()

    def health(self) -> ComponentHealth:
        """Report the readiness of each destination: unhealthy while all destinations of a signal are down."""
        found = {
            signal.value: {one.name: one.state.readiness.label for one in group.destinations}
            for signal, group in self._groups.items()
        }
        down = [name for name, labels in found.items() if {*labels.values()} == {Readiness.DOWN.label}]
        message = f"every destination is down for {', '.join(down)}: batches wait in the queues" if down else ""
        return ComponentHealth(Kind.CONNECTOR, str(self.context.id), not down, message, {"destinations": found})

    def _divide(self, batch: Batch) -> list[tuple[str, Batch]]:
        """Return the parts of the batch with the destination of their keys; "" if the strategy decides alone."""
        found = self._dividers.get(batch.signal)
        return [("", batch)] if found is None else found[0](batch, found[1].choose)

    def _group(
        self, config: ChoosingConfig, signal: Signal, own: Mapping[str, Sequence[str]], strategy: Strategy
    ) -> DestinationGroup:
        return DestinationGroup(
            own,
            strategy=strategy,
            failures=config.failures,
            retry_interval=config.retry_interval,
            return_time=config.return_time,
            sticky=config.sticky,
            ring=self._divider is not None,
            entrance=lambda pipelines: self.choose(signal, pipelines),
            counts=self._metrics,
            clock=self.context.clock,
            log=self.context.log,
        )


def _refusal(group: DestinationGroup, parts: Sequence[tuple[str, Batch]]) -> RetryableError | None:
    """Return the error if a part would be refused now, else `None`."""
    for owner, part in parts:
        refusal = group.refusal(part, owner)
        if refusal is not None:
            return refusal
    return None


def _share(state: Availability, clock: Callable[[], float]) -> float:
    return state.share(clock())


def _of(pipelines: Sequence[str], signal: Signal) -> list[str]:
    """Return the pipelines of one signal."""
    return [name for name in pipelines if name.partition("/")[0] == signal.value]
