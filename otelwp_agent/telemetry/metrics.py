"""The agent's own metrics: plain numbers, written as Prometheus text on request.

An `Instrument` is declared once, as a constant in the module of the component that uses it. `Registry` binds it to
label values and returns a cell, whose `add` updates one attribute. Names and labels are those of the OpenTelemetry
Collector where it has the same instrument (`otelcol_…`); the others begin with `otelwp_`.
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
"""Content type of the exposition format that `Registry.expose` writes."""

_EXACT = 2.0**53
"""Whole numbers below this are exact as floats, and are written without a fraction."""


class InstrumentKind(Enum):
    """Kind of an instrument; `value` is its name in the Prometheus format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Instrument:
    """Declaration of a metric: name, help text, kind and labels."""

    name: str
    help: str
    kind: InstrumentKind = InstrumentKind.COUNTER
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without +Inf."""


class Counter:
    """A sum that only increases; with a `callback`, its value is read from it on request."""

    __slots__ = ("callback", "value")

    def __init__(self, callback: Callable[[], float] | None = None) -> None:
        """Start at 0, or use `callback` for the value."""
        self.value: float = 0
        self.callback = callback

    def add(self, amount: float = 1) -> None:
        """Add `amount`, which is not negative."""
        self.value += amount

    def read(self) -> float:
        """Return the current sum."""
        return self.value if self.callback is None else self.callback()


class Gauge:
    """A value that may increase and decrease; with a `callback`, its value is read from it on request."""

    __slots__ = ("callback", "value")

    def __init__(self, callback: Callable[[], float] | None = None) -> None:
        """Start at 0, or use `callback` for the value."""
        self.value: float = 0
        self.callback = callback

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value

    def read(self) -> float:
        """Return the current value."""
        return self.value if self.callback is None else self.callback()


class Histogram:
    """Counts of observations by buckets."""

    __slots__ = ("bounds", "count", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Create a bucket for each of the upper `bounds`, and one for larger values."""
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
    """All instruments in use, with their cells by label values."""

    def __init__(self) -> None:
        """Start empty."""
        self._families: dict[str, tuple[Instrument, dict[tuple[str, ...], Cell]]] = {}

    def counter(self, instrument: Instrument, callback: Callable[[], float] | None = None, **labels: str) -> Counter:
        """Return the counter of these label values, always the same one; `callback` replaces the previous callback."""
        counter = self._cell(instrument, labels, Counter(callback))
        if callback is not None:
            counter.callback = callback
        return counter

    def gauge(self, instrument: Instrument, callback: Callable[[], float] | None = None, **labels: str) -> Gauge:
        """Return the gauge of these label values, always the same one; `callback` replaces the previous callback."""
        gauge = self._cell(instrument, labels, Gauge(callback))
        if callback is not None:
            gauge.callback = callback
        return gauge

    def histogram(self, instrument: Instrument, **labels: str) -> Histogram:
        """Return the histogram of these label values."""
        return self._cell(instrument, labels, Histogram(instrument.buckets))

    def info(self, name: str, help_: str, labels: Mapping[str, str]) -> None:
        """Expose a gauge `name` with these `labels` and the value 1, which replaces the one with other labels."""
        gauge = Gauge()
        gauge.set(1)
        instrument = Instrument(name, help_, InstrumentKind.GAUGE, tuple(sorted(labels)))
        self._families[name] = (instrument, {tuple(labels[key] for key in instrument.labels): gauge})

    def forget(self, **labels: str) -> None:
        """Remove the gauges that have all of these labels. Counters are kept, because they must never decrease."""
        wanted = labels.items()
        for instrument, cells in self._families.values():
            if instrument.kind is not InstrumentKind.GAUGE:
                continue
            gone = [values for values in cells if wanted <= dict(zip(instrument.labels, values, strict=True)).items()]
            for values in gone:
                del cells[values]

    def remove(self, instrument: Instrument, **labels: str) -> None:
        """Remove the cells of `instrument` that have all of these labels: what they count is no longer reported.

        A counter that is bound again later starts at 0, as after a restart.
        """
        _, cells = self._families.get(instrument.name, (instrument, {}))
        wanted = labels.items()
        for values in [each for each in cells if wanted <= dict(zip(instrument.labels, each, strict=True)).items()]:
            del cells[values]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the cells of a counter or gauge whose labels include these; 0 if there are none."""
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
        """Return all metrics as Prometheus text, with families and cells sorted."""
        return "".join(line for name in sorted(self._families) for line in _family(*self._families[name]))

    def _cell(self, instrument: Instrument, labels: dict[str, str], new: C) -> C:
        if labels.keys() != set(instrument.labels):
            message = f"{instrument.name} has the labels {instrument.labels}, not {tuple(labels)}"
            raise ValueError(message)
        known, cells = self._families.setdefault(instrument.name, (instrument, {}))
        if known != instrument:
            message = f"{instrument.name} has two different declarations"
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
