"""Statistics of all installations, and alerts about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, func, select

from otelwp_agent.control.fleet.status import ACTIVE, BLOCKED, ERROR, HIGH_ERROR_RATE, OUTDATED, STALE_AFTER
from otelwp_agent.control.fleet.tables import INSTALLATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

MAX_OUTDATED = 20.0
"""Percentage of outdated installations above which there is an alert."""
MAX_FAILING = 5
"""Installations with a high error rate above which there is an alert."""


class FleetStatistics(NamedTuple):
    """Counts of installations."""

    statuses: Mapping[str, int]
    high_error_rate: int
    stale: int
    avg_error_rate: float
    cms: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of installations."""
        return sum(self.cms.values())

    @property
    def outdated_percentage(self) -> float:
        """The share of outdated installations in percent."""
        return round(100 * self.statuses.get(OUTDATED, 0) / self.total, 2) if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the statistics for JSON output."""
        return {
            "active_count": self.statuses.get(ACTIVE, 0),
            "outdated_count": self.statuses.get(OUTDATED, 0),
            "blocked_count": self.statuses.get(BLOCKED, 0),
            "error_count": self.statuses.get(ERROR, 0),
            "high_error_rate_count": self.high_error_rate,
            "stale_count": self.stale,
            "avg_error_rate": self.avg_error_rate,
            "cms_breakdown": [
                {"cms": name, "count": count} for name, count in sorted(self.cms.items(), key=lambda each: -each[1])
            ],
        }


class FleetAlert(NamedTuple):
    """A state of the fleet that an operator must examine."""

    name: str
    value: float
    threshold: float
    summary: str


def statistics(connection: Connection, now: datetime) -> FleetStatistics:
    """Return the statistics of all installations."""
    rate = INSTALLATIONS.c.error_rate
    query = select(
        INSTALLATIONS.c.cms,
        INSTALLATIONS.c.status,
        func.count(),
        func.sum(case((rate > HIGH_ERROR_RATE, 1), else_=0)),
        func.sum(rate),
    ).group_by(INSTALLATIONS.c.cms, INSTALLATIONS.c.status)
    statuses: dict[str, int] = {}
    cms: dict[str, int] = {}
    high, rates = 0, 0.0
    for name, status, count, above, summed in connection.execute(query):
        statuses[status] = statuses.get(status, 0) + count
        cms[name] = cms.get(name, 0) + count
        high += int(above)
        rates += summed
    total = sum(cms.values())
    stale = connection.execute(
        select(func.count()).select_from(INSTALLATIONS).where(INSTALLATIONS.c.last_heartbeat < now - STALE_AFTER)
    ).scalar_one()
    return FleetStatistics(statuses, high, stale, round(rates / total, 2) if total else 0.0, cms)


def alerts(found: FleetStatistics) -> list[FleetAlert]:
    """Return the alerts that apply to these statistics."""
    result = []
    share = found.outdated_percentage
    if share > MAX_OUTDATED:
        result.append(FleetAlert("PluginOutdatedHigh", share, MAX_OUTDATED, f"{share} % of plugins are outdated"))
    if found.high_error_rate > MAX_FAILING:
        summary = f"{found.high_error_rate} plugins have an error rate above {HIGH_ERROR_RATE:g} %"
        result.append(FleetAlert("PluginHighErrorRate", found.high_error_rate, MAX_FAILING, summary))
    return result
