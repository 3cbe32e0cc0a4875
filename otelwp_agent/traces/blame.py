"""Which plugins and routes take the time of pages: sums over traces, with 95 % intervals.

A trace counts as often as its sampling weight: a trace that was kept with probability p stands for 1/p traces. So the
means are those of all pages, not of the kept ones. The interval of a mean comes from the variance of the weighted mean
(the linearized ratio estimator), and is wide where there are few traces. If some traces were profiled, only these are
used for the times of plugins, because the others know only a part of the times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.traces.usage import OwnerUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otelwp_agent.traces.usage import Measure

Z = 1.96
"""Standard deviations of a 95 % interval."""
BUCKETS = 24
"""Most columns of the chart over time."""
FEWEST = 2
"""Traces from which on a mean has an interval."""
TOP = 50
"""Most plugins and routes in a report; the others are summed up as `other`."""
OTHER = "other"
_NONE = OwnerUsage()


@dataclass(slots=True)
class PageTime:
    """One page, as blame needs it."""

    site: str
    route: str
    start: int
    """Microseconds since 1970."""
    us: int
    """Duration in microseconds."""
    error: bool
    weight: float
    """Number of pages that it stands for, at least 1."""
    measure: Measure
    usage: Mapping[str, OwnerUsage]


@dataclass(slots=True)
class WeightedMean:
    """Mean of weighted values, with its interval."""

    sums: list[float] = field(default_factory=lambda: [0.0] * 6)
    """Count, Σw, Σwx, Σw², Σw²x, Σw²x²."""

    def add(self, value: float, weight: float) -> None:
        """Add a value."""
        sums, square = self.sums, weight * weight
        for at, term in enumerate((1.0, weight, weight * value, square, square * value, square * value * value)):
            sums[at] += term

    def pad(self, other: WeightedMean) -> WeightedMean:
        """Return this mean with a value 0 for each value of `other` that is not among its own."""
        count, total, square = other.sums[0], other.sums[1], other.sums[3]
        return WeightedMean([count, total, self.sums[2], square, *self.sums[4:]])

    def to_json(self) -> dict[str, float | None]:
        """Return `mean`, `low` and `high` in milliseconds; no interval for fewer than `FEWEST` values."""
        count, total, weighted, square, square_x, square_xx = self.sums
        if not total:
            return {"mean": None, "low": None, "high": None}
        mean = weighted / total
        if count < FEWEST:
            return {"mean": mean / 1000, "low": None, "high": None}
        spread = max(0.0, square_xx - 2 * mean * square_x + mean * mean * square)
        half = Z * math.sqrt(count / (count - 1) * spread) / total
        return {"mean": mean / 1000, "low": max(0.0, mean - half) / 1000, "high": (mean + half) / 1000}


def sites(pages: Iterable[PageTime]) -> list[dict[str, Any]]:
    """Return each site with its `pages`, `errors`, page time (`mean`, `low`, `high` in ms) and `last` page (µs)."""
    groups: dict[str, list[PageTime]] = {}
    for page in pages:
        groups.setdefault(page.site, []).append(page)
    found = [
        {
            "site": site,
            "pages": sum(page.weight for page in group),
            "traces": len(group),
            "errors": sum(page.weight for page in group if page.error),
            "last": max(page.start for page in group),
            **_mean(group).to_json(),
        }
        for site, group in groups.items()
    ]
    return sorted(found, key=lambda site: (-site["pages"], site["site"]))


def blame(pages: Sequence[PageTime]) -> dict[str, Any]:
    """Return which plugins (`owners`) and routes take the time of these pages, and the times over time (`timeline`)."""
    profiled = [page for page in pages if page.measure == "profiled"]
    measured = profiled or pages
    whole = _mean(measured)
    owners: dict[str, tuple[WeightedMean, list[PageTime]]] = {}
    for page in measured:
        for owner, used in page.usage.items():
            mean, group = owners.setdefault(owner, (WeightedMean(), []))
            mean.add(used.us, page.weight)
            group.append(page)
    mean_us = whole.sums[2] / whole.sums[1] if whole.sums[1] else 0.0
    rows = [_owner(owner, mean.pad(whole), group, mean_us) for owner, (mean, group) in owners.items()]
    rows.sort(key=lambda row: (-row["mean"], row["owner"]))
    return {
        "traces": len(pages),
        "pages": sum(page.weight for page in pages),
        "measured": len(measured),
        "measure": measured[0].measure if measured else "spans",
        "since": min((page.start for page in pages), default=0),
        "until": max((page.start for page in pages), default=0),
        "page": _mean(pages).to_json(),
        "owners": rows[:TOP],
        "owners_left_out": max(0, len(rows) - TOP),
        "routes": _routes(pages),
        "timeline": _timeline(measured, [row["owner"] for row in rows[:8]]),
    }


def _owner(owner: str, mean: WeightedMean, group: list[PageTime], page_us: float) -> dict[str, Any]:
    figures = mean.to_json()
    return {
        "owner": owner,
        **figures,
        "share": (figures["mean"] or 0.0) * 1000 / page_us if page_us else 0.0,
        "pages": sum(page.weight for page in group),
        "queries": sum(page.usage[owner].queries * page.weight for page in group) / mean.sums[1],
        "errors": sum(page.usage[owner].errors * page.weight for page in group),
        "slowest": max(group, key=lambda page: page.usage[owner].us).usage[owner].slowest,
    }


def _routes(pages: Iterable[PageTime]) -> list[dict[str, Any]]:
    groups: dict[str, list[PageTime]] = {}
    for page in pages:
        groups.setdefault(page.route, []).append(page)
    if len(groups) > TOP:
        order = sorted(groups, key=lambda route: -sum(page.us * page.weight for page in groups[route]))
        rest = [page for route in order[TOP:] for page in groups[route]]
        groups = {route: groups[route] for route in order[:TOP]}
        groups[OTHER] = [*groups.get(OTHER, []), *rest]
    found = []
    for route, group in groups.items():
        sums: dict[str, float] = {}
        for page in group:
            for owner, used in page.usage.items():
                sums[owner] = sums.get(owner, 0.0) + used.us * page.weight
        pages_ = sum(page.weight for page in group)
        found.append(
            {
                "route": route,
                "pages": pages_,
                "errors": sum(page.weight for page in group if page.error),
                "slowest_owner": max(sums, key=lambda owner: sums[owner], default=""),
                **_mean(group).to_json(),
            }
        )
    return sorted(found, key=lambda row: (-(row["mean"] or 0) * row["pages"], row["route"]))


def _timeline(pages: Sequence[PageTime], shown: Sequence[str]) -> list[dict[str, Any]]:
    """Return at most `BUCKETS` periods with the mean milliseconds of the `shown` owners; the others are `other`."""
    if not pages:
        return []
    begin, end = min(page.start for page in pages), max(page.start for page in pages)
    width = max(1, -(-(end - begin + 1) // BUCKETS))
    periods: dict[int, list[PageTime]] = {}
    for page in pages:
        periods.setdefault((page.start - begin) // width, []).append(page)
    found = []
    for number in range((end - begin) // width + 1):
        group = periods.get(number, [])
        total = sum(page.weight for page in group)
        sums: dict[str, float] = {}
        for page in group:
            rest = float(page.us)
            for owner in shown:
                us = min(rest, page.usage.get(owner, _NONE).us)
                rest -= us
                sums[owner] = sums.get(owner, 0.0) + us * page.weight
            sums[OTHER] = sums.get(OTHER, 0.0) + rest * page.weight
        found.append(
            {
                "at": begin + number * width,
                "pages": total,
                "owners": {owner: us / total / 1000 for owner, us in sums.items()} if total else {},
            }
        )
    return found


def _mean(pages: Iterable[PageTime]) -> WeightedMean:
    mean = WeightedMean()
    for page in pages:
        mean.add(page.us, page.weight)
    return mean
