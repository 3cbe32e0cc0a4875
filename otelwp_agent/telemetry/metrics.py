"""Instruments of our own, kept as plain numbers and written out as Prometheus text when somebody asks.

An `Instrument` is declared once, as a constant beside the component that uses it; `Registry` binds it to label values
and gives back a cell whose `add` costs one attribute. Names and labels follow the OpenTelemetry Collector where it has
the instrument (`otelcol_…`), and are ours (`otelwp_…`) where it has not.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the exposition format that `Registry.expose` writes."""

_EXACT = 2.0**53
"""Whole numbers below this are exact as floats, and written without a fraction."""


class InstrumentKind(Enum):
    """What an instrument measures; `value` is Prometheus' word for it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric: its name, what it tells, its kind and its labels."""

    name: str
    help: str
    kind: InstrumentKind = InstrumentKind.COUNTER
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without +Inf."""


class Counter:
    """A sum that only grows: added to, or read by `callback` when somebody asks."""

    __slots__ = ("callback", "value")

    def __init__(self, callback: Callable[[], float] | None = None) -> None:
        """Start at 0, or read `callback` each time."""
        self.value: float = 0
        self.callback = callback

    def add(self, amount: float = 1) -> None:
        """Add `amount`, which is not negative."""
        self.value += amount

    def read(self) -> float:
        """Return the sum now."""
        return self.value if self.callback is None else self.callback()


class Gauge:
    """A value that goes up and down: set, or read by `callback` when somebody asks."""

    __slots__ = ("callback", "value")

    def __init__(self, callback: Callable[[], float] | None = None) -> None:
        """Start at 0, or read `callback` each time."""
        self.value: float = 0
        self.callback = callback

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value

    def read(self) -> float:
        """Return the value now."""
        return self.value if self.callback is None else self.callback()


class Histogram:
    """Counts of observations by size."""

    __slots__ = ("bounds", "count", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Count into buckets up to `bounds`, and one for the rest."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0
        self.count = 0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.count += 1


Cell = Counter | Gauge | Histogram
C = TypeVar("C", Counter, Gauge, Histogram)


class Registry:
    """Every instrument in use, and its cells by label values."""

    def __init__(self) -> None:
        """Start empty."""
        self._families: dict[str, tuple[Instrument, dict[tuple[str, ...], Cell]]] = {}

    def counter(self, instrument: Instrument, callback: Callable[[], float] | None = None, **labels: str) -> Counter:
        """Return the counter of these label values, the same one each time; `callback` replaces what it read before."""
        counter = self._cell(instrument, labels, Counter(callback))
        if callback is not None:
            counter.callback = callback
        return counter

    def gauge(self, instrument: Instrument, callback: Callable[[], float] | None = None, **labels: str) -> Gauge:
        """Return the gauge of these label values; `callback` replaces what it read before."""
        gauge = self._cell(instrument, labels, Gauge(callback))
        if callback is not None:
            gauge.callback = callback
        return gauge

    def histogram(self, instrument: Instrument, **labels: str) -> Histogram:
        """Return the histogram of these label values."""
        return self._cell(instrument, labels, Histogram(instrument.buckets))

    def info(self, name: str, help_: str, labels: Mapping[str, str]) -> None:
        """Expose `labels` on a gauge that is always 1, in place of those that `name` had before."""
        gauge = Gauge()
        gauge.set(1)
        instrument = Instrument(name, help_, InstrumentKind.GAUGE, tuple(sorted(labels)))
        self._families[name] = (instrument, {tuple(labels[key] for key in instrument.labels): gauge})

    def forget(self, **labels: str) -> None:
        """Drop the gauges that carry all of these labels: what they read is gone. Counters stay: they never go back."""
        wanted = labels.items()
        for instrument, cells in self._families.values():
            if instrument.kind is not InstrumentKind.GAUGE:
                continue
            gone = [values for values in cells if wanted <= dict(zip(instrument.labels, values, strict=True)).items()]
            for values in gone:
                del cells[values]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a counter's or gauge's cells whose labels include these; 0 if there are none."""
        if name not in self._families:
            return 0
        instrument, cells = self._families[name]
        return sum(
            cell.read()
            for values, cell in cells.items()
            if labels.items() <= dict(zip(instrument.labels, values, strict=True)).items()
            and not isinstance(cell, Histogram)
        )

    def names(self) -> frozenset[str]:
        """Return the names of all instruments that have been bound."""
        return frozenset(self._families)

    def expose(self) -> str:
        """Write everything as Prometheus text, families and cells sorted."""
        return "".join(line for name in sorted(self._families) for line in _family(*self._families[name]))

    def _cell(self, instrument: Instrument, labels: dict[str, str], new: C) -> C:
        if labels.keys() != set(instrument.labels):
            message = f"{instrument.name} has the labels {instrument.labels}, not {tuple(labels)}"
            raise ValueError(message)
        known, cells = self._families.setdefault(instrument.name, (instrument, {}))
        if known != instrument:
            message = f"{instrument.name} is declared twice, and differently"
            raise ValueError(message)
        cell = cells.setdefault(tuple(labels[name] for name in instrument.labels), new)
        if type(cell) is not type(new):
            message = f"{instrument.name} is a {instrument.kind.value}"
            raise ValueError(message)
        return cell


def _family(instrument: Instrument, cells: dict[tuple[str, ...], Cell]) -> Iterator[str]:
    name = instrument.name
    text = instrument.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {text}\n# TYPE {name} {instrument.kind.value}\n"
    for values, cell in sorted(cells.items(), key=lambda item: item[0]):
        pairs = [f'{label}="{_escape(value)}"' for label, value in zip(instrument.labels, values, strict=True)]
        if isinstance(cell, Histogram):
            total = 0
            for bound, count in zip([*map(_number, cell.bounds), "+Inf"], cell.counts, strict=True):
                total += count
                bucket = _braces([*pairs, f'le="{bound}"'])
                yield f"{name}_bucket{bucket} {total}\n"
            yield f"{name}_sum{_braces(pairs)} {_number(cell.sum)}\n{name}_count{_braces(pairs)} {cell.count}\n"
        else:
            yield f"{name}{_braces(pairs)} {_number(cell.read())}\n"


def _braces(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value == int(value) and abs(value) < _EXACT else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
