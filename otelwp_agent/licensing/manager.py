"""`LicenseManager`: what the agent may use now, and notification of every change.

Order of decision: a licence decides; without one, `OTELWP_REQUIRE_LICENSE` means the free tier; else `service.tier`
decides; with none of these every stage is enabled, as an evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.licensing.entitlement import Basis, Entitlement
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.telemetry.metrics import Registry

REQUIRE = "OTELWP_REQUIRE_LICENSE"
"""Environment variable of distributors: with the value 1, an agent without a licence has the free tier."""


def without_license(tier: Tier | None, *, required: bool) -> Entitlement:
    """Return the entitlement of an agent without a licence; `tier` is `service.tier`, `None` if it is not set."""
    if required:
        reason = (
            f"{REQUIRE} is set and no licence is configured: configure `service.license` for more than the free tier"
        )
        return Entitlement(Tier.FREE, Basis.REQUIRED, reason)
    if tier is not None:
        return Entitlement(tier, Basis.CONFIGURED, f"`service.tier` is `{tier.value}`")
    reason = "neither `service.license` nor `service.tier` is set: every stage is enabled for evaluation"
    return Entitlement(Tier.ENTERPRISE, Basis.EVALUATION, reason)


class LicenseManager:
    """Decides what the agent may use, and calls the subscribers when that changes. Use it on the event loop only."""

    def __init__(
        self,
        *,
        tier: Tier | None,
        required: bool,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Decide without I/O. `tier` is `service.tier`, `None` if it is not set."""
        self._registry = registry
        self._log = log
        self._current = without_license(tier, required=required)
        self._subscribers: list[Callable[[Entitlement], None]] = []

    @property
    def current(self) -> Entitlement:
        """What the agent may use now. After `start`, it is complete: the licence has been read."""
        return self._current

    def subscribe(self, callback: Callable[[Entitlement], None]) -> Callable[[], None]:
        """Call `callback` on the event loop after each change of `current`; return a function that ends this.

        A change is a new tier, basis, set of features or limits. The callback is not called for the present state.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def start(self) -> None:
        """Read the licence, decide, and begin to watch the clock and the licence server. It never raises for a licence.

        Call it before the graph is built: `current` then has the result.
        """

    async def stop(self) -> None:
        """Stop watching, and store the state."""

    def _use(self, entitlement: Entitlement) -> None:
        """Make `entitlement` the current one and notify the subscribers if it differs."""
        before, self._current = self._current, entitlement
        if _essence(before) != _essence(entitlement):
            for callback in tuple(self._subscribers):
                callback(entitlement)


def _essence(entitlement: Entitlement) -> tuple[object, ...]:
    return entitlement.tier, entitlement.basis, entitlement.features, dict(entitlement.limits)
