"""The three signals and the words that each is known by."""

from __future__ import annotations

from enum import Enum


class Signal(Enum):
    """A kind of telemetry. `value` is the name used in YAML, URLs and metric labels."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"

    # Members are singletons. `Enum` hashes their names, in Python, at every look-up of every request.
    __hash__ = object.__hash__

    @property
    def items(self) -> str:
        """What its items are called in metric names: `spans`, `metric_points`, `log_records`."""
        return _ITEMS[self]


_ITEMS = {Signal.TRACES: "spans", Signal.METRICS: "metric_points", Signal.LOGS: "log_records"}

ALL_SIGNALS = frozenset(Signal)
