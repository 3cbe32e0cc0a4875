"""Instruments of connectors that choose one of several destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.telemetry.metrics import Gauge, Registry

FORWARDED = Instrument(
    "otelwp_destination_items",
    "Spans, data points and log records that a connector sent to a destination, without those that moved there.",
    labels=("connector", "destination"),
)
MOVED = Instrument(
    "otelwp_destination_moved_items",
    "Spans, data points and log records that moved to another destination because the first one failed.",
    labels=("connector", "destination", "to"),
)
SHARE = Instrument(
    "otelwp_destination_share",
    "Part of the data that a destination may get: 0 while it is down, growing to 1 after it works again.",
    InstrumentKind.GAUGE,
    labels=("connector", "destination", "data_type"),
)
INSTRUMENTS = (FORWARDED, MOVED, SHARE)


class DestinationMetrics:
    """The counters of one connector (`routing.destinations.RoutingCounts`)."""

    def __init__(self, registry: Registry, connector: str) -> None:
        """Count for `connector`."""
        self._registry = registry
        self._connector = connector
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []

    def forwarded(self, destination: str, items: int) -> None:
        """Count items that a destination has accepted."""
        self._registry.counter(FORWARDED, connector=self._connector, destination=destination).add(items)

    def moved(self, source: str, destination: str, items: int) -> None:
        """Count items that moved from one destination to another."""
        self._registry.counter(MOVED, connector=self._connector, destination=source, to=destination).add(items)

    def show_share(self, destination: str, data_type: str, read: Callable[[], float]) -> None:
        """Show the share of a destination as `read` returns it."""
        gauge = self._registry.gauge(
            SHARE, read, connector=self._connector, destination=destination, data_type=data_type
        )
        self._gauges.append((gauge, read))

    def close(self) -> None:
        """Remove the gauges, unless a successor (after a reload) has replaced them."""
        if self._gauges and all(gauge.callback is read for gauge, read in self._gauges):
            self._registry.forget(connector=self._connector)
        self._gauges = []
