"""Decide what an agent may use: pure functions of the licence and the time."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from otelwp_agent.config.types import format_duration
from otelwp_agent.licensing.entitlement import Basis, Entitlement
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from otelwp_agent.licensing.license import License

REQUIRE = "OTELWP_REQUIRE_LICENSE"
"""Environment variable of distributors: with the value 1, an agent without a licence has the free tier."""
DAY = 86400.0


def without_license(tier: Tier | None, *, required: bool) -> Entitlement:
    """Return the entitlement of an agent without a licence; `tier` is `service.tier`, `None` if it is not set."""
    if required:
        reason = (
            f"no licence is configured and {REQUIRE} is set: configure `service.license` for more than the free tier"
        )
        return Entitlement(Tier.FREE, Basis.REQUIRED, reason)
    if tier is not None:
        return Entitlement(tier, Basis.CONFIGURED, f"`service.tier` is `{tier.value}`")
    reason = "neither `service.license` nor `service.tier` is set: every stage is enabled for evaluation"
    return Entitlement(Tier.ENTERPRISE, Basis.EVALUATION, reason)


def lapsed(reason: str) -> Entitlement:
    """Return the free tier, because of `reason`."""
    return Entitlement(Tier.FREE, Basis.LAPSED, reason)


def with_license(terms: License, now: float, grace: float) -> Entitlement:
    """Return the entitlement of a licence at the time `now`, with `grace` seconds after the end of its lease."""
    name = f"licence {terms.jti}"
    if terms.revoked is not None:
        why = f": {terms.revoked}" if terms.revoked else ""
        return lapsed(f"{name} was revoked{why}: ask its issuer, or install another licence")
    if now < terms.starts_at:
        return lapsed(f"{name} is valid from {terms.not_before} on (UTC)")
    if now >= terms.ends_at:
        return lapsed(f"{name} expired at the end of {terms.expires} (UTC): renew it")
    if terms.lease is None or now < terms.lease:
        until = terms.ends_at if terms.lease is None else min(terms.ends_at, terms.lease + grace)
        return _entitled(terms, Basis.LICENSE, f"{name} of {terms.sub}, valid until {terms.expires}", until)
    until = min(terms.ends_at, terms.lease + grace)
    overdue = f"{name} has not been renewed by the licence server since {_date(terms.iat)}"
    if now < until:
        reason = f"{overdue}: tier {terms.tier} ends at {_date(until)} unless the server is reached"
        return _entitled(terms, Basis.GRACE, reason, until)
    return lapsed(f"{overdue}, and the grace period of {_days(grace)} has passed: make the server reachable")


def newest(installed: License, renewal: License | None) -> License:
    """Return the terms that were issued last, of an installed licence and its last renewal."""
    if renewal is None or renewal.jti != installed.jti or renewal.iat < installed.iat:
        return installed
    return renewal


def _entitled(terms: License, basis: Basis, reason: str, until: float) -> Entitlement:
    return Entitlement(
        terms.level, basis, reason, frozenset(terms.features), MappingProxyType(dict(terms.limits)), until
    )


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")


def _days(seconds: float) -> str:
    days = seconds / DAY
    return f"{days:g} days" if days == int(days) and days != 1 else format_duration(seconds)
