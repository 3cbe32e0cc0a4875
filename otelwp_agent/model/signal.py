"""The three signals and their names."""

from __future__ import annotations

from enum import Enum


class Signal(Enum):
    """A kind of telemetry. `value` is the name used in YAML, URLs and metric labels."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"

    # Faster than the hash of `Enum`, which hashes the name in Python at each look-up. Members are singletons.
    __hash__ = object.__hash__

    @property
    def items(self) -> str:
        """Name of its items in metric names: `spans`, `metric_points`, `log_records`."""
        return _ITEMS[self]


_ITEMS = {Signal.TRACES: "spans", Signal.METRICS: "metric_points", Signal.LOGS: "log_records"}

ALL_SIGNALS = frozenset(Signal)
