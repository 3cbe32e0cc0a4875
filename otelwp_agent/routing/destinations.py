"""Choose a destination for each batch, and move batches away from destinations that fail.

A destination is one or several pipelines. A `DestinationGroup` forwards each batch to one destination, and watches the
exporters behind its destinations.

Invariants:

* A batch is accepted by exactly one destination, or refused, with nothing accepted.
* A batch moves as a whole, with its receipts: the exporter that gives it up releases it in the same call in which the
  other destination accepts it. A batch that is being sent does not move before the attempt has ended.
* A batch that failed moves to each destination once (`Batch.tried`), and back only if all others have refused it
  permanently. Batches that wait for a destination that is down move whenever another one works.
* While any destination works, none that is down gets a batch, except one test in `retry_interval`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from otelwp_agent.capacity import Offer
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, PermanentError, RetryableError, TooLargeError
from otelwp_agent.routing.availability import Availability, Readiness
from otelwp_agent.routing.figures import LiveFigures
from otelwp_agent.routing.outlets import Move, Outlets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import structlog

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.routing.strategies import Strategy

LOOK_AGAIN = 1.0
"""Seconds after which a group with a destination that is not up looks for batches to move."""
_NO_OUTLETS = Outlets()
_ABOUT_THE_DATA = (MalformedError, TooLargeError)
"""Refusals that say nothing about the destination."""


class Entrance(Protocol):
    """The entry of the pipelines of one destination."""

    def admit(self) -> None:
        """Raise `Overloaded` if a batch would be refused now."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if a batch would be refused now for lack of capacity, else `None`."""

    def consume(self, batch: Batch) -> object:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it."""

    def transfer(self, batch: Batch) -> None:
        """Accept a batch with the receipts that another pipeline has accepted, or raise with nothing changed."""


class RoutingCounts(Protocol):
    """Counts what a group of destinations does."""

    def forwarded(self, destination: str, items: int) -> None:
        """Count items that a destination has accepted."""

    def moved(self, source: str, destination: str, items: int) -> None:
        """Count items that moved from one destination to another."""


class RoutingDestination:
    """One or several pipelines, as one destination; it is also the watcher of the exporters behind them."""

    def __init__(self, group: DestinationGroup, name: str, pipelines: Sequence[str], state: Availability) -> None:
        """Belong to `group`; `state` decides whether it gets data."""
        self.name = name
        self.pipelines = tuple(pipelines)
        self.state = state
        self.figures = LiveFigures()
        self.outlets = _NO_OUTLETS
        self._group = group

    def connect(self, outlets: Outlets) -> None:
        """Watch these exporters, and no others."""
        for exporter in self.outlets.exporters:
            if exporter not in outlets.exporters:
                exporter.unwatch(self)
        for exporter in outlets.exporters:
            exporter.watch(self)
        self.outlets = outlets

    def blocked(self, now: float) -> bool:
        """Return whether an exporter behind it sends nothing now; if its breaker is the reason, it is down."""
        if any(exporter.broken for exporter in self.outlets.exporters) and self.state.block(now):
            self._group.went_down(self, "its circuit breaker is open")
        return any(exporter.blocked_until > now for exporter in self.outlets.exporters)

    def backlog(self) -> int:
        """Return the number of batches in the queues of its exporters."""
        return sum(exporter.backlog for exporter in self.outlets.exporters)

    def delivered(self, seconds: float) -> None:
        """Record an attempt that succeeded, unless another exporter of the destination sends nothing."""
        if not any(exporter.broken for exporter in self.outlets.exporters):
            self._group.delivered(self, seconds)

    def failed(self, batch: Batch, error: ConsumeError, pipeline: str) -> Move:
        """Record a failure; move the batch if it came through this destination."""
        return self._group.failed(self, batch, error, ours=pipeline in self.pipelines)


class DestinationGroup:
    """The destinations of a connector for one signal. Call it from the thread of the event loop only."""

    def __init__(  # noqa: PLR0913 - what it forwards to, three settings and what it reports to
        self,
        names: Mapping[str, Sequence[str]],
        *,
        strategy: Strategy,
        failures: int,
        retry_interval: float,
        return_time: float,
        sticky: bool,
        ring: bool = False,
        entrance: Callable[[Sequence[str]], Entrance],
        counts: RoutingCounts,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Forward to the destinations `names` (with their pipelines), in the order of `strategy`.

        `entrance` returns the entry of pipelines. With `sticky`, waiting batches stay with their destination. With
        `ring`, what a destination cannot deliver moves to the one after it in `names`; the first one is after the last.
        """
        self.destinations = [
            RoutingDestination(self, name, pipelines, Availability(failures, retry_interval, return_time))
            for name, pipelines in names.items()
        ]
        self._strategy = strategy
        self._sticky = sticky
        self._ring = ring
        self._entrance = entrance
        self._counts = counts
        self._clock = clock
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._offer = Offer(self._sweep)

    def connect(self, outlets: Mapping[str, Outlets]) -> None:
        """Watch the exporters behind the destinations, by pipeline: at the start and after a reload."""
        for destination in self.destinations:
            found = [outlets.get(name, _NO_OUTLETS) for name in destination.pipelines]
            exporters = tuple(dict.fromkeys(one for each in found for one in each.exporters))
            destination.connect(Outlets(exporters, len(found) == 1 and found[0].movable))
        self._look_again()

    def close(self) -> None:
        """Stop watching and moving."""
        for destination in self.destinations:
            destination.connect(_NO_OUTLETS)
        self._offer.cancel()
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None

    def consume(self, batch: Batch, owner: str = "") -> None:
        """Forward the batch to one destination, `owner` if it works, or raise with nothing accepted."""
        first: RetryableError | None = None
        for destination in self._choices(self._clock(), owner):
            try:
                self._entrance(destination.pipelines).consume(batch)
            except RetryableError as refusal:
                first = first or refusal.with_traceback(None)
                continue
            self._counts.forwarded(destination.name, batch.items)
            self._strategy.chosen(destination.name, batch.items)
            return
        assert first is not None  # noqa: S101 - there is a destination
        try:
            raise first
        finally:
            del first  # else this frame, with the body, and the error would hold each other

    def refusal(self, batch: Batch, owner: str = "") -> RetryableError | None:
        """Return the error if every destination that may get the batch would refuse it now, else `None`."""
        first: RetryableError | None = None
        now = self._clock()
        for destination in self._usable(self._ordered(now, owner), now):
            refusal = self._entrance(destination.pipelines).refusal(batch)
            if refusal is None:
                return None
            first = first or refusal
        return first

    def admit(self) -> None:
        """Raise `Overloaded` if every destination that may get a batch would refuse it now."""
        first: Overloaded | None = None
        for destination in self._usable(self.destinations, self._clock()):
            try:
                self._entrance(destination.pipelines).admit()
            except Overloaded as refusal:
                first = first or refusal
            else:
                return
        if first is not None:
            raise first

    def fill(self, fills: Mapping[str, float]) -> float:
        """Return the used share of the queues of the destination that has the most capacity, by pipeline."""
        usable = self._usable(self.destinations, self._clock())
        return min((max(fills.get(name, 0.0) for name in one.pipelines) for one in usable), default=0.0)

    def delivered(self, destination: RoutingDestination, seconds: float) -> None:
        """Record that an attempt of an exporter of the destination succeeded after `seconds`."""
        now = self._clock()
        destination.figures.delivered(now, seconds)
        if destination.state.delivered(now):
            self._log.info("destination works again", destination=destination.name)
            self._sweep_soon()

    def failed(self, destination: RoutingDestination, batch: Batch, error: ConsumeError, *, ours: bool) -> Move:
        """Record a failure of the destination; move the batch to another one, if it is `ours`."""
        now = self._clock()
        if not isinstance(error, _ABOUT_THE_DATA):
            destination.figures.failed(now)
        if not isinstance(error, (Overloaded, *_ABOUT_THE_DATA)) and destination.state.failed(now):
            self.went_down(destination, str(error))
        if destination.blocked(now):
            self._sweep_soon()
        permanent = isinstance(error, PermanentError)
        if not ours or not destination.outlets.movable or (self._sticky and not permanent):
            return Move.NONE
        tried = {**batch.tried, destination.name: permanent}
        ordered = self._ordered(now, destination.name if self._ring else "")
        others = [each for each in ordered if each.name not in tried]
        if not others and permanent:
            others = [each for each in ordered if not tried[each.name]]
        if not others:
            return Move.NONE
        before, batch.tried = batch.tried, tried
        if self._forward(destination, batch, others):
            return Move.DONE
        batch.tried = before
        return Move.LATER

    def went_down(self, destination: RoutingDestination, reason: str) -> None:
        """Report that a destination is down, and move what waits for it."""
        self._log.warning("destination is down; others get its data", destination=destination.name, error=reason)
        self._sweep_soon()

    def _ordered(self, now: float, start: str = "") -> list[RoutingDestination]:
        """Return the destinations, the preferred one first. `start` is the first one that the strategy gets."""
        listed = self.destinations
        if start:
            place = next(place for place, each in enumerate(listed) if each.name == start)
            listed = [*listed[place:], *listed[:place]]
        return cast("list[RoutingDestination]", self._strategy.order(listed, now))

    def _choices(self, now: float, owner: str) -> Iterator[RoutingDestination]:
        """Yield the destinations to try for a batch. Those that are down come only if there is no other."""
        others: list[RoutingDestination] = []
        any_works = False
        for destination in self._ordered(now, owner):
            if not destination.blocked(now) and destination.state.takes(now):
                any_works = any_works or destination.state.readiness is not Readiness.DOWN
                yield destination
            else:
                others.append(destination)
        others.sort(key=lambda each: (each.blocked(now), each.state.readiness))
        for destination in others:
            if not any_works or destination.state.readiness is Readiness.RETURNING:
                yield destination

    def _usable(self, ordered: Sequence[RoutingDestination], now: float) -> Sequence[RoutingDestination]:
        """Return the destinations that may get a batch now; all of them if there is none. Changes nothing."""
        return [each for each in ordered if not each.blocked(now) and each.state.usable(now)] or ordered

    def _forward(
        self, source: RoutingDestination, batch: Batch, others: Sequence[RoutingDestination], *, wait: bool = False
    ) -> bool:
        """Move a batch from `source` to the first of `others` that works and accepts it; return whether one did.

        With `wait`, the first one without capacity calls `_sweep` when it has some.
        """
        now = self._clock()
        working = [each for each in others if not each.blocked(now) and each.state.usable(now)]
        working.sort(key=lambda each: each.state.readiness)
        for destination in working:
            if destination.state.readiness is Readiness.DOWN and source.state.readiness is not Readiness.DOWN:
                continue  # a destination that works need not test another one with its own data
            entrance = self._entrance(destination.pipelines)
            refusal = entrance.refusal(batch)
            if refusal is not None:
                if wait and destination.state.readiness is not Readiness.DOWN and not self._offer.waiting:
                    self._offer.wait(refusal)
                continue
            if destination.state.readiness is Readiness.DOWN:
                destination.state.takes(now)
            try:
                entrance.transfer(batch)
            except ConsumeError:
                continue
            self._counts.moved(source.name, destination.name, batch.items)
            return True
        return False

    def _sweep(self) -> None:
        """Move what waits for destinations that do not work to those that do."""
        self._soon = None
        now = self._clock()
        for source in self.destinations:
            stuck = source.blocked(now) or source.state.readiness is Readiness.DOWN
            if not stuck or self._sticky or not source.outlets.movable:
                continue
            ordered = self._ordered(now, source.name if self._ring else "")
            others = [each for each in ordered if each is not source]

            def forward(
                batch: Batch, source: RoutingDestination = source, others: list[RoutingDestination] = others
            ) -> bool:
                before, batch.tried = batch.tried, {}
                if self._forward(source, batch, others, wait=True):
                    return True
                batch.tried = before
                return False

            for exporter in source.outlets.exporters:
                exporter.move(source.pipelines[0], forward)
        self._look_again()

    def _sweep_soon(self) -> None:
        """Move batches after the current call, which may hold one of them."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._sweep)

    def _look_again(self) -> None:
        """Sweep again after `LOOK_AGAIN` while any destination is not up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        if any(each.blocked(now) or each.state.share(now) < 1 for each in self.destinations):
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._sweep)
