"""`LicenseManager`: what the agent may use now, and notification of every change.

Order of decision: a licence decides; without one, `OTELWP_REQUIRE_LICENSE` means the free tier; else `service.tier`
decides; with none of these every stage is enabled, as an evaluation.
"""

from __future__ import annotations

import asyncio
import math
import os
import random as random_numbers
import time
from typing import TYPE_CHECKING, Any

from otelwp_agent.licensing.decision import DAY, REQUIRE, without_license
from otelwp_agent.licensing.entitlement import Basis, Entitlement
from otelwp_agent.licensing.metrics import LicenseMetrics
from otelwp_agent.licensing.trusted_clock import TOLERANCE, TrustedClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import structlog

    from otelwp_agent.config.license import LicenseConfig
    from otelwp_agent.licensing.watch import LicenseWatch
    from otelwp_agent.telemetry.metrics import Registry
    from otelwp_agent.tier import Tier

TICK = 60.0
"""Seconds between two looks at the clock."""

_TROUBLED = (Basis.GRACE, Basis.LAPSED)


def license_required(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether the distributor of this agent requires a licence (`OTELWP_REQUIRE_LICENSE=1`)."""
    return (os.environ if environment is None else environment).get(REQUIRE, "").strip() == "1"


class LicenseManager:
    """Decides what the agent may use, and calls the subscribers when that changes. Use it on the event loop only."""

    def __init__(  # noqa: PLR0913 - clocks and chance are passed in
        self,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        *,
        required: bool,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_numbers.random,
        tick: float = TICK,
        ask: Callable[[str, str], Awaitable[str]] | None = None,
    ) -> None:
        """Allow nothing above what an agent without a licence and without `service.tier` may use, until `start`.

        `required` is the result of `license_required()`; `wall` returns seconds since 1970; the licence is looked at
        every `tick` seconds. `ask` replaces the HTTP client: it gets the licence and a nonce, and returns the signed
        answer or raises `RefreshError`.
        """
        self._log = log
        self._required = required
        self._wall = wall
        self._random = random
        self._tick_every = tick
        self._asks = ask
        self._monotonic = monotonic
        self._clock = TrustedClock(wall, monotonic)
        self._metrics = LicenseMetrics(registry)
        self._current = without_license(None, required=required)
        self._decided = False
        self._tier: Tier | None = None
        self._settings: tuple[LicenseConfig | None, str | None] = (None, None)
        self._watch: LicenseWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._clock_reported = False
        self._subscribers: list[Callable[[Entitlement], None]] = []
        self._metrics.bind(self._days_left, self._clock_error)

    @property
    def current(self) -> Entitlement:
        """Current tier, features and limits. After `start`, the licence has been read."""
        return self._current

    def subscribe(self, callback: Callable[[Entitlement], None]) -> Callable[[], None]:
        """Call `callback` on the event loop after each change of `current`; return a function that ends this.

        A change is a new tier, basis, set of features or limits. The callback is not called for the present state.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def start(self, settings: LicenseConfig | None, tier: Tier | None, state_path: str | None = None) -> None:
        """Read the licence, decide, and begin to watch it. It raises nothing because of a licence.

        `settings` is `service.license`; `tier` is `ServiceConfig.stated_tier`; `state_path` is the licence's state
        file. Call it before the graph is built. Call it again at a reload: unchanged settings change nothing, but
        the licence is renewed in the background. Subscribers are called if `current` changes.
        """
        same = (settings, state_path) == self._settings and (settings is None or self._watch is not None)
        self._settings, self._tier = (settings, state_path), tier
        if not same:
            await self._close()
        if settings is not None and self._watch is None:
            watch = self._watch = self._new_watch(settings, state_path)
            await watch.start()
        elif self._watch is not None:
            self._watch.tick()
            self._watch.renew()
        self._use(self._decide())
        if self._watch is not None:
            self._schedule()

    async def stop(self) -> None:
        """Stop watching, and store the state. `current` stays as it is."""
        await self._close()

    def describe(self) -> Mapping[str, Any]:
        """Return details for `/health/detailed`."""
        current, terms = self._current, None if self._watch is None else self._watch.terms
        details: dict[str, Any] = {"tier": current.tier.value, "basis": current.basis.value}
        if terms is not None:
            details |= {"license": terms.jti, "customer": terms.sub, "expires": terms.expires.isoformat()}
        if current.until is not None:
            details["days_left"] = round(self._days_left(), 2)
        if current.features:
            details["features"] = sorted(current.features)
        if current.limits:
            details["limits"] = dict(current.limits)
        if terms is not None and terms.domains:
            details["domains"] = list(terms.domains)
        if self._watch is not None and self._watch.refresh_error:
            details["refresh_error"] = self._watch.refresh_error
        if abs(self._clock_error()) > TOLERANCE:
            details["clock_error"] = round(self._clock_error())
        return details

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to do: no lapsed licence, no grace period, and a clock that is right."""
        return self._current.basis not in _TROUBLED and abs(self._clock_error()) <= TOLERANCE

    # -- decisions

    def _decide(self) -> Entitlement:
        if self._watch is not None:
            return self._watch.entitlement()
        return without_license(self._tier, required=self._required)

    def _use(self, entitlement: Entitlement) -> None:
        """Make `entitlement` the current one and notify the subscribers if it differs."""
        before, self._current = self._current, entitlement
        self._metrics.show(entitlement)
        first, self._decided = not self._decided, True
        if first:
            self._report("tier decided", entitlement)
        if _essence(before) == _essence(entitlement):
            return
        if not first:
            self._metrics.changed(entitlement)
            self._report("tier changed", entitlement)
        for callback in tuple(self._subscribers):
            callback(entitlement)

    def _report(self, event: str, entitlement: Entitlement) -> None:
        level = {Basis.LAPSED: "error", Basis.GRACE: "warning"}.get(entitlement.basis, "info")
        fields = {"tier": entitlement.tier.value, "basis": entitlement.basis.value, "reason": entitlement.reason}
        getattr(self._log, level)(event, **fields)

    def _days_left(self) -> float:
        until = self._current.until
        return math.inf if until is None else max(0.0, (until - self._clock.now()) / DAY)

    # -- the watched licence

    def _new_watch(self, settings: LicenseConfig, state_path: str | None) -> LicenseWatch:
        from otelwp_agent.licensing.watch import LicenseWatch  # noqa: PLC0415 - only with a licence

        ask = self._asks
        if settings.url is None:
            ask = None
        elif ask is None:
            from otelwp_agent.licensing.online import LicenseServerClient  # noqa: PLC0415 - only with a server

            ask = LicenseServerClient(settings.url, settings.ca_file, self._log).ask
        return LicenseWatch(
            settings,
            state_path,
            clock=self._clock,
            ask=ask,
            metrics=self._metrics,
            log=self._log,
            random=self._random,
            changed=self._look,
            required=self._required,
        )

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watch is not None:
            watch, self._watch = self._watch, None
            await watch.stop()
            self._clock = TrustedClock(self._wall, self._monotonic)

    def _look(self) -> None:
        """Decide again: terms or time have changed. During `start` of the watch, that follows anyway."""
        if self._timer is not None:
            self._use(self._decide())

    def _tick(self) -> None:
        if self._watch is None:
            return
        self._watch.tick()
        self._report_clock()
        self._use(self._decide())
        self._schedule()

    def _schedule(self) -> None:
        """Look at the clock again in `tick` seconds."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._tick_every, self._tick)

    def _clock_error(self) -> float:
        return 0.0 if self._watch is None else self._clock.error()

    def _report_clock(self) -> None:
        """Log once that the clock is wrong, and once that it is right again."""
        wrong = abs(self._clock_error()) > TOLERANCE
        if wrong and not self._clock_reported:
            self._log.warning(
                "the system's clock is wrong; the licence is judged by the latest known time: correct the clock; if it "
                "is right, make the licence server reachable, or remove the state file of the licence",
                clock_error_seconds=round(self._clock_error()),
            )
        self._clock_reported = wrong


def _essence(entitlement: Entitlement) -> tuple[object, ...]:
    return entitlement.tier, entitlement.basis, entitlement.features, dict(entitlement.limits)
