"""Instruments of the licence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.licensing.online import REASONS
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.licensing.entitlement import Entitlement
    from otelwp_agent.telemetry.metrics import Registry

TIER = Instrument(
    "otelwp_license_tier",
    "1 for the tier that the agent has now, 0 for the others.",
    InstrumentKind.GAUGE,
    ("tier",),
)
DAYS_LEFT = Instrument(
    "otelwp_license_days_left",
    "Days until the tier ends if the licence is not renewed; +Inf if it does not end.",
    InstrumentKind.GAUGE,
)
CHANGES = Instrument(
    "otelwp_license_changes",
    "Changes of what the agent may use, by the new cause: evaluation, configured, license, grace, lapsed or required.",
    labels=("basis",),
)
REFRESHES = Instrument("otelwp_license_refreshes", "Renewals of the licence by its server.")
REFRESH_FAILURES = Instrument(
    "otelwp_license_refresh_failures",
    "Failed attempts to renew the licence, by reason; the terms stay unchanged.",
    labels=("reason",),
)
REJECTED = Instrument(
    "otelwp_license_rejected",
    "Licences that were read from the configuration or the state file and are not valid, by reason.",
    labels=("reason",),
)
NOT_STORED = Instrument("otelwp_license_state_failures", "Failed attempts to write the state file of the licence.")
CLOCK_ERROR = Instrument(
    "otelwp_license_clock_error_seconds",
    "Seconds by which the system's clock is ahead of the time that licences are judged by; negative if it is behind.",
    InstrumentKind.GAUGE,
)
INSTRUMENTS = (TIER, DAYS_LEFT, CHANGES, REFRESHES, REFRESH_FAILURES, REJECTED, NOT_STORED, CLOCK_ERROR)


class LicenseMetrics:
    """The instruments, bound to a registry."""

    def __init__(self, registry: Registry) -> None:
        """Bind those that every agent has."""
        self._registry = registry
        self._tiers = {tier: registry.gauge(TIER, tier=tier.value) for tier in Tier}
        self.refreshes = registry.counter(REFRESHES)
        self.not_stored = registry.counter(NOT_STORED)

    def bind(self, days_left: Callable[[], float], clock_error: Callable[[], float]) -> None:
        """Read these two whenever metrics are served."""
        self._registry.gauge(DAYS_LEFT, days_left)
        self._registry.gauge(CLOCK_ERROR, clock_error)

    def show(self, entitlement: Entitlement) -> None:
        """Show a tier as the current one."""
        for tier, gauge in self._tiers.items():
            gauge.set(1 if tier is entitlement.tier else 0)

    def changed(self, entitlement: Entitlement) -> None:
        """Count a change to this entitlement."""
        self._registry.counter(CHANGES, basis=entitlement.basis.value).add()

    def refresh_failed(self, reason: str) -> None:
        """Count a failed renewal."""
        self._registry.counter(REFRESH_FAILURES, reason=reason if reason in REASONS else "malformed").add()

    def rejected(self, reason: str) -> None:
        """Count a licence that is not valid."""
        self._registry.counter(REJECTED, reason=reason).add()
