"""`Tier`: a licence level."""

from __future__ import annotations

from enum import Enum


class Tier(Enum):
    """A licence level. Each tier includes the tiers before it; `pipeline.tiers` checks components and settings."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"

    def enables(self, needed: Tier) -> bool:
        """Return whether a component or setting that needs the tier `needed` may be used on this tier."""
        tiers = [*Tier]
        return tiers.index(self) >= tiers.index(needed)
