"""`Entitlement`: the tier and features that an agent may use now, and the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.tier import Tier


class Basis(Enum):
    """The cause of a tier."""

    EVALUATION = "evaluation"
    """Neither a licence nor `service.tier` is configured: every stage is enabled."""
    CONFIGURED = "configured"
    """`service.tier` states it."""
    LICENSE = "license"
    """A valid licence."""
    GRACE = "grace"
    """A licence whose lease has ended and could not be renewed; its tier holds until the end of the grace period."""
    LAPSED = "lapsed"
    """A licence that is invalid, revoked, expired, or past its grace period: the free tier."""
    REQUIRED = "required"
    """A licence is required (`OTELWP_REQUIRE_LICENSE`) and there is none: the free tier."""


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The tier and features that an agent may use. Immutable: a change is a new object."""

    tier: Tier
    basis: Basis
    reason: str = ""
    """One sentence for logs and health: why, and what to do."""
    features: frozenset[str] = frozenset()
    """Features that the licence names beside its tier."""
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Limits that the licence states, by name."""
    until: float | None = None
    """When this ends if nothing changes, in seconds since 1970; `None` if never."""
