"""Show the licence of the agent in its health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import ComponentHealth

if TYPE_CHECKING:
    from otelwp_agent.licensing.manager import LicenseManager


def license_health(license_: LicenseManager) -> ComponentHealth:
    """Return the state of the licence for `/health/detailed`: the tier, its cause, and what to do."""
    return ComponentHealth(None, "license", license_.healthy, license_.current.reason, license_.describe())
