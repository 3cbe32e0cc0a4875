"""Decide the status of an installation; pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from otelwp_agent.codecs.heartbeat.plugin_version import is_older

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIVE, OUTDATED, ERROR, BLOCKED = "active", "outdated", "error", "blocked"
STATUSES = (ACTIVE, OUTDATED, ERROR, BLOCKED)

STALE_AFTER = timedelta(hours=48)
"""Time without a heartbeat after which an installation has the status `error`."""
HIGH_ERROR_RATE = 5.0
"""Error rate in percent above which an installation counts as failing often."""


def status_of(  # noqa: PLR0913 - all that decides
    cms: str,
    version: str,
    last_heartbeat: datetime,
    *,
    latest: Mapping[str, str],
    is_blocked: bool,
    now: datetime,
) -> str:
    """Return the status of an installation; `latest` has the latest version for each CMS."""
    if is_blocked:
        return BLOCKED
    if now - last_heartbeat > STALE_AFTER:
        return ERROR
    newest = latest.get(cms)
    return OUTDATED if newest is not None and is_older(version, newest) else ACTIVE


def error_rate(errors: int, successes: int) -> float:
    """Return the share of errors in percent, with two decimals; 0 without events."""
    return round(100 * errors / (errors + successes), 2) if errors else 0.0
