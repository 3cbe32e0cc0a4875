"""`TenantTiers`: the tier of each tenant's plan, which decides what a managed collector does for the tenant.

Control stores add themselves as sources; each answers from memory, so that a changed plan counts for the next batch. A
tenant that no source knows, and data without a tenant, have every tier: nothing is left out for them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import ForbiddenError
from otelwp_agent.telemetry.metrics import Instrument, Registry
from otelwp_agent.telemetry.top_labels import OTHER, TopLabels
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.telemetry.metrics import Counter

    TierSource = Callable[[str], Tier | None]
    """Returns the tier of a tenant's plan, or `None` if it does not know the tenant."""

NAMED_TENANTS = 50
"""Maximum number of tenants with their own label value in the metrics; the others share the value `other`."""
REASON = "plan_tier"
"""Reason of refused requests whose tenant's plan does not include the feature."""

BYPASSED = Instrument(
    "otelwp_tenant_bypassed_items",
    "Items that bypassed a processor, or were not sent to an exporter, because the tier of the tenant's plan does not "
    "enable it; `tenant` is `other` beyond the most active tenants.",
    labels=("pipeline", "component", "tenant"),
)
REFUSED = Instrument(
    "otelwp_tenant_refused_requests",
    "Requests refused because the tier of the tenant's plan does not enable the feature; `tenant` as above.",
    labels=("receiver", "feature", "tenant"),
)
INSTRUMENTS = (BYPASSED, REFUSED)


class TenantTiers:
    """Returns the tier of each tenant's plan, and counts the items and requests that this tier does not permit."""

    def __init__(self, registry: Registry | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without a source; count in `registry`."""
        self._sources: list[TierSource] = []
        self._registry = registry or Registry()
        self._top = TopLabels(NAMED_TENANTS, clock, self._forget)
        self._bypassed: dict[tuple[str, str, str], Counter] = {}

    def add(self, source: TierSource) -> Callable[[], None]:
        """Ask `source` from now on, after those that were added before; return a function that removes it."""
        self._sources.append(source)
        return lambda: self._sources.remove(source)

    def of(self, tenant: str) -> Tier:
        """Return the tier of a tenant's plan; the highest one if no source knows the tenant."""
        for source in self._sources:
            tier = source(tenant)
            if tier is not None:
                return tier
        return Tier.ENTERPRISE

    def require(self, tenant: str, needed: Tier, receiver: str, feature: str, instead: str = "") -> None:
        """Raise `ForbiddenError`, and count the request, if the tenant's plan does not enable a feature of a receiver.

        `feature` is its name in the plural, for the message and the metric; `instead` says what else the sender can do.
        """
        tier = self.of(tenant)
        if tier.enables(needed):
            return
        label = self._top.label(tenant)
        self._registry.counter(REFUSED, receiver=receiver, feature=feature, tenant=label).add()
        message = (
            f"{feature} need a plan of tier `{needed.value}`, but the plan of this tenant has tier `{tier.value}`: ask "
            f"the operator of the collector for another plan{f', or {instead}' if instead else ''}"
        )
        raise ForbiddenError(message, reason=REASON)

    def bypassed(self, tenant: str, pipeline: str, component: str, items: int) -> None:
        """Count items that a component did not get because of the tenant's plan."""
        key = (pipeline, component, self._top.label(tenant))
        counter = self._bypassed.get(key)
        if counter is None:
            counter = self._bypassed[key] = self._registry.counter(
                BYPASSED, pipeline=pipeline, component=component, tenant=key[2]
            )
        counter.value += items

    def _forget(self, tenant: str) -> None:
        """Remove the metrics of a tenant that is no longer among the most active ones."""
        if tenant == OTHER:  # a tenant of this name: its counters are those of the others
            return
        for key in [key for key in self._bypassed if key[2] == tenant]:
            del self._bypassed[key]
        for instrument in INSTRUMENTS:
            self._registry.remove(instrument, tenant=tenant)
